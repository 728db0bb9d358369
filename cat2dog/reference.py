"""What a checkpoint makes of pictures, in FP32 eager PyTorch: the truth that engines are judged by.

Outputs are cached by content, one `.npz` an image. Torch is imported only for images that are not in the cache.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cat2dog.config import load_config
from cat2dog.fingerprint import fingerprint
from cat2dog.folder import find
from runtime.errors import InputError
from runtime.files import write_bytes
from runtime.npz import read_npz

Progress = Callable[[int, int], None]

# Part of the cache key: raise it when the computation changes.
_VERSION = 1
# Beside the picture: names, headers, its hash.
_ABOUT_BYTES = 4096


def reference(
    folder: str | os.PathLike[str],
    images: npt.NDArray[np.uint8],
    cache: str | os.PathLike[str] | None,
    progress: Progress | None = None,
) -> npt.NDArray[np.uint8]:
    """uint8 `[B,R,R,3]` to uint8 `[B,R,R,3]` at the checkpoint's resolution R.

    cache: folder for outputs and the hash memo, or None for no cache; damaged entries are computed again.
    progress: `progress(done, total)` in blocks of the network, for the images that have to be computed.
    Raises InputError if the images do not fit the checkpoint, or the checkpoint is missing or unsound.
    """
    config = load_config(find(folder))
    side = config.resolution
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
        raise InputError(
            f"images are {images.dtype} {list(images.shape)}; {folder} takes uint8 [B, {side}, {side}, 3]: resize them"
        )
    outputs = np.empty_like(images)
    paths: list[Path | None] = [None] * len(images)
    if cache is not None:
        paths = _paths(folder, images, Path(cache))
    missing = [index for index, path in enumerate(paths) if path is None or not _read(path, outputs[index])]
    if not missing:
        return outputs

    import torch

    from cat2dog.exact import exact_images

    total, steps = len(missing) * config.depth, 0

    def step(blocks: int) -> None:
        nonlocal steps
        steps += blocks
        if progress:
            progress(steps, total)

    def done(position: int, output: torch.Tensor) -> None:
        index = missing[position]
        outputs[index] = output.numpy()
        path = paths[index]
        if path is not None:
            _write(path, outputs[index])

    exact_images(folder, [torch.from_numpy(images[index].copy()) for index in missing], done, step)
    return outputs


def _paths(folder: str | os.PathLike[str], images: npt.NDArray[np.uint8], cache: Path) -> list[Path | None]:
    marks = fingerprint(folder, cache / "hashes.json")
    start = f"{_VERSION} {marks['config']} {marks['weights']} ".encode()
    return [cache / f"{hashlib.sha256(start + image.tobytes()).hexdigest()[:32]}.npz" for image in images]


def _write(path: Path, output: npt.NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, dog=output, sha256=np.frombuffer(hashlib.sha256(output.tobytes()).digest(), np.uint8))
    write_bytes(path, buffer.getvalue())


def _read(path: Path, output: npt.NDArray[np.uint8]) -> bool:
    """Fill `output` from the cache; False if the entry is not there or is damaged."""
    try:
        entry = read_npz(path, output.nbytes + _ABOUT_BYTES, compressed=True)
        dog, digest = entry["dog"], entry["sha256"].tobytes()
    except (ValueError, KeyError):
        return False
    if dog.dtype != np.uint8 or dog.shape != output.shape or hashlib.sha256(dog.tobytes()).digest() != digest:
        return False
    output[...] = dog
    return True
