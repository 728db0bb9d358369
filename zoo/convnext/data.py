"""Pictures to learn from: a folder in Tiny-ImageNet's layout, read whole into memory as bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.images import INPUT_SUFFIXES, Limits, read_image
from zoo.command import bar
from zoo.convnext.synthetic import SIDE, draw, labels_of

_MOST_BYTES = 8 << 30
_MOST_TEXT, _MOST_CLASSES = 16 << 20, 10_000
# Tiny-ImageNet's are 64 px and a few kilobytes.
_LIMITS = Limits(pixels=4096 * 4096, file_bytes=16 << 20)
_THREADS = 16


@dataclass(frozen=True)
class Pictures:
    """`images` uint8 `[N,64,64,3]`, `labels` int64 `[N]`."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """What is learnt from and what it is judged by; `name` says what it is, `digest` stands for every byte of it."""

    name: str
    train: Pictures
    val: Pictures
    classes: int

    def digest(self) -> str:
        """Twelve digits of the hash of pictures and labels."""
        sha = hashlib.sha256()
        for array in (self.train.images, self.train.labels, self.val.images, self.val.labels):
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()[:12]


def synthetic(per_class: int, val_per_class: int, classes: int = 200, seed: int = 0) -> Data:
    """The drawn stand-in in memory; its labels are 0 to `classes` - 1. Raises InputError for sizes out of range."""
    if not 1 <= classes <= 200 or not 1 <= per_class <= 2000 or not 1 <= val_per_class <= 2000:
        raise InputError(
            f"{classes} classes with {per_class} and {val_per_class} pictures; expected up to 200, 2000 and 2000"
        )
    parts = []
    for count, own in ((per_class, seed), (val_per_class, seed + 1)):
        parts.append(Pictures(draw(labels_of(count, classes), own), np.tile(np.arange(classes), count)))
    name = f"synthetic, {classes} classes, {per_class} and {val_per_class} of each, seed {seed}"
    return Data(name, parts[0], parts[1], classes)


def load_folder(folder: str | os.PathLike[str]) -> Data:
    """`train/<wnid>/images/*.JPEG`, `val/images` with `val/val_annotations.txt`, and `wnids.txt`.

    Raises InputError, naming the file, for a folder of another layout, a picture that cannot be decoded, and more
    than 8 GiB of pixels.
    """
    folder = Path(folder)
    wnids = _wnids(folder)
    number = {name: index for index, name in enumerate(wnids)}
    train = [(path, number[name]) for name in wnids for path in _pictures(folder / "train" / name / "images")]
    val = _annotated(folder / "val", number)
    with bar("decoding") as progress:
        total = len(train) + len(val)
        learnt = _decoded(train, lambda done: progress(done, total))
        judged = _decoded(val, lambda done: progress(len(train) + done, total))
    return Data(folder.resolve().name, learnt, judged, len(wnids))


def validation_pictures(folder: str | os.PathLike[str], count: int) -> np.ndarray:
    """uint8 `[count,64,64,3]` of a folder's validation pictures, spread over them. Raises as `load_folder` does."""
    folder = Path(folder)
    listed = _annotated(folder / "val", {name: index for index, name in enumerate(_wnids(folder))})
    chosen = [listed[row * len(listed) // count] for row in range(count)]
    return _decoded(chosen, lambda done: None).images


def _wnids(folder: Path) -> list[str]:
    wnids = _lines(folder / "wnids.txt")
    if not wnids or len(wnids) > _MOST_CLASSES or len(set(wnids)) != len(wnids):
        raise InputError(f"{folder / 'wnids.txt'} names {len(wnids)} classes, some perhaps twice; expected one a line")
    if odd := next((name for name in wnids if name in (".", "..") or "/" in name or "\0" in name), None):
        raise InputError(f"{folder / 'wnids.txt'} names class '{odd[:40]}', which is no name of a folder")
    return wnids


def _annotated(folder: Path, number: dict[str, int]) -> list[tuple[Path, int]]:
    """Pictures of `val/images` with the classes that `val_annotations.txt` gives them: name, wnid, a box."""
    file = folder / "val_annotations.txt"
    found = []
    for row, line in enumerate(_lines(file), 1):
        cells = line.split("\t")
        if len(cells) < 2 or cells[1] not in number or Path(cells[0]).name != cells[0]:
            raise InputError(f"{file}, line {row}: '{line[:60]}' is no picture's name, a tab and a class of wnids.txt")
        found.append((folder / "images" / cells[0], number[cells[1]]))
    if not found:
        raise InputError(f"{file} names no pictures")
    return found


def _pictures(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); expected a class's pictures there") from error
    found = [folder / name for name in names if name.lower().endswith(INPUT_SUFFIXES)]
    if not found:
        raise InputError(f"{folder} holds no picture; expected files ending in .JPEG")
    return found


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_TEXT:
            raise InputError(f"{path} has more than {_MOST_TEXT >> 20} MiB; expected a list of names")
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(
            f"{path} cannot be read ({reason}); expected a folder in Tiny-ImageNet's layout, as "
            "`python -m zoo.convnext.synthetic` writes one"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _decoded(listed: Sequence[tuple[Path, int]], done: Callable[[int], None]) -> Pictures:
    size = len(listed) * SIDE * SIDE * 3
    if size > _MOST_BYTES:
        raise InputError(f"{len(listed)} pictures are {size >> 30} GiB of pixels; at most {_MOST_BYTES >> 30} are read")
    images = np.empty((len(listed), SIDE, SIDE, 3), np.uint8)

    def decode(row: int) -> None:
        images[row] = read_image(listed[row][0], SIDE, _LIMITS)

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        try:
            for row, _ in enumerate(pool.map(decode, range(len(listed)))):
                done(row + 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Pictures(images, np.array([label for _, label in listed], np.int64))
