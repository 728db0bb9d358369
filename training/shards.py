"""Pairs drawn beforehand: `python -m training.shards --seeds 0:20000 --size 128 --out data/128`.

A shard is one `.npz` of a thousand pairs, so that a data set is a few dozen files: cats as JPEG of quality 95 (they are
photos), dogs as lossless WebP (they are the target, and flat), each kind's files end to end with where each ends.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import InputError, ToolchainError
from runtime.files import write_bytes
from training.contact_sheet import seeds_of
from training.draw import VERSION, pair

_MOST_PAIRS = 20_000
_MOST_BYTES = 2 << 30
_FIELDS = ("about", "seeds", "cats", "cat_ends", "dogs", "dog_ends")


def _encode(picture: np.ndarray, suffix: str, quality: tuple[int, int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    if not done:
        raise ToolchainError(f"OpenCV could not encode a {suffix} of shape {picture.shape}")
    return data.tobytes()


def _decode(data: np.ndarray, size: int, path: Path) -> np.ndarray:
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None or picture.shape != (size, size, 3):
        raise InputError(f"{path} holds a picture that is damaged or not {size}x{size}: write the shard again")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _joined(files: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum([len(file) for file in files], dtype=np.int64)
    return np.frombuffer(b"".join(files), dtype=np.uint8), ends


def write_shard(path: str | os.PathLike[str], seeds: range, size: int) -> None:
    """Draw `seeds` at `size` pixels and write them as one shard, whole or not at all."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    cats, dogs = [], []
    for seed in seeds:
        cat, dog = pair(seed, size)
        cats.append(_encode(cat, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 95)))
        dogs.append(_encode(dog, ".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)))  # above 100 means lossless
    cat_bytes, cat_ends = _joined(cats)
    dog_bytes, dog_ends = _joined(dogs)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.array([VERSION, size, len(seeds)], dtype=np.int64),
        seeds=np.array(seeds, dtype=np.int64),
        cats=cat_bytes,
        cat_ends=cat_ends,
        dogs=dog_bytes,
        dog_ends=dog_ends,
    )
    write_bytes(path, buffer.getvalue())


def read_shard(path: str | os.PathLike[str], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(seeds int64 [n], cats uint8 [n,size,size,3], dogs)` of a shard; dogs are exact, cats within JPEG's error.

    Raises InputError for a missing or damaged file, another size, or another version of the generator.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is over {_MOST_BYTES} bytes: expected a shard")
        with np.load(path, allow_pickle=False) as archive:
            large = sum(entry.file_size for entry in archive.zip.infolist())
            if sorted(archive.files) != sorted(_FIELDS) or large > _MOST_BYTES:
                raise InputError(f"{path} holds {', '.join(archive.files)[:80]}: expected a shard of training.shards")
            about, seeds, cats, cat_ends, dogs, dog_ends = (archive[name] for name in _FIELDS)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; expected a shard") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}): write the shard again") from None
    if about.shape != (3,) or about[0] != VERSION or about[1] != size:
        raise InputError(
            f"{path} holds version and size {about[:2].tolist()}, expected {[VERSION, size]}: write the shards again"
        )
    count = int(about[2])
    if not 0 < count <= _MOST_PAIRS or {seeds.shape, cat_ends.shape, dog_ends.shape} != {(count,)}:
        raise InputError(f"{path} is damaged (it says {count} pairs): write the shard again")
    pictures = []
    for data, ends in ((cats, cat_ends), (dogs, dog_ends)):
        starts = np.concatenate([[0], ends[:-1]])
        if data.dtype != np.uint8 or (ends < starts).any() or ends[-1] != len(data):
            raise InputError(f"{path} is damaged (its pictures do not fill it): write the shard again")
        out = np.empty((count, size, size, 3), dtype=np.uint8)
        for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
            out[index] = _decode(data[start:end], size, path)
        pictures.append(out)
    return seeds, pictures[0], pictures[1]


def shard_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The shards in a folder, by name; InputError if there is none."""
    paths = sorted(Path(folder).glob("shard-*.npz"))
    if not paths:
        raise InputError(f"no shards in {folder}: make some with python -m training.shards --out {folder}")
    return paths


def write_shards(
    folder: str | os.PathLike[str], seeds: range, size: int, per_shard: int, workers: int
) -> Iterator[tuple[int, int]]:
    """Write what is missing of `seeds`, one process a shard; yields (shards done, shards in all) as they finish."""
    folder = Path(folder)
    parts = [seeds[i : i + per_shard] for i in range(0, len(seeds), per_shard)]
    names = [folder / f"shard-{size}-v{VERSION}-{part[0]:010d}-{part[-1]:010d}.npz" for part in parts]
    todo = [(name, part) for name, part in zip(names, parts, strict=True) if not name.is_file()]
    done = len(parts) - len(todo)
    yield done, len(parts)
    # Spawned, not forked: a fork of a process with OpenCV's or torch's threads may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(write_shard, name, part, size) for name, part in todo]):
            future.result()
            done += 1
            yield done, len(parts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.shards", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0:20000", help="FIRST:END, default 0:20000")
    parser.add_argument("--size", type=int, default=128, help="pixels of one picture, default 128")
    parser.add_argument("--out", required=True, help="the folder to write shards into; those there are kept")
    parser.add_argument("--per-shard", type=int, default=1000, help="pairs in one file, default 1000")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, default one a core")
    options = parser.parse_args(arguments)
    try:
        if not 1 <= options.per_shard <= _MOST_PAIRS or options.workers < 1:
            raise InputError(f"--per-shard must be 1 to {_MOST_PAIRS} and --workers at least 1")
        pair(0, options.size)  # a size that cannot be drawn is refused before processes start
        seeds = seeds_of(options.seeds, most=10_000_000)
        for done, total in write_shards(options.out, seeds, options.size, options.per_shard, options.workers):
            if sys.stdout.isatty() or done == total:
                print(f"\r{options.out}: {done} of {total} shards", end="\n" if done == total else "", flush=True)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
