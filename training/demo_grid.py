"""The picture to show: `python -m training.demo_grid --model models/tiny-128 --out grid.jpg`.

Rows: the cat, the dog that PyTorch draws in FP32, the same dog from the FP16 ONNX in ONNX Runtime, and the dog of the
generator. Columns: photos first (nobody drew a dog for those, so their last cell is empty), then held-out seeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from cat2dog.config import load_config
from cat2dog.reference import reference
from runtime.errors import InputError, ToolchainError
from runtime.images import check_output, find_images, read_image, write_image
from training.contact_sheet import grid, seeds_of
from training.draw import pair
from training.onnx_dogs import onnx_dogs
from training.seeds import HELD_OUT


def demo_grid(folder: Path, photos: list[Path], seeds: range) -> np.ndarray:
    """uint8 `[h,w,3]`. Raises InputError for seeds that training may have used, a bad photo or a bad checkpoint."""
    if seeds[0] < HELD_OUT:
        raise InputError(f"seed {seeds[0]} may have been trained on: expected seeds from {HELD_OUT}")
    size = load_config(folder).resolution
    pairs = [pair(seed, size) for seed in seeds]
    cats = np.stack([*(read_image(photo, size) for photo in photos), *(cat for cat, _ in pairs)])
    empty = np.full_like(cats[0], 255)
    wanted = [empty] * len(photos) + [dog for _, dog in pairs]
    return grid([list(cats), list(reference(folder, cats, cache=None)), list(onnx_dogs(folder, cats, "fp16")), wanted])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.demo_grid", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path, help="a checkpoint folder")
    parser.add_argument("--out", required=True, help="the picture to write, such as grid.jpg")
    parser.add_argument("--images", nargs="*", default=["images/img1.jpg"], help="photos, default images/img1.jpg")
    parser.add_argument("--seeds", default=f"{HELD_OUT}:{HELD_OUT + 7}", help="FIRST:END, default 7 held-out ones")
    options = parser.parse_args(arguments)
    try:
        check_output(options.out)
        photos = find_images(options.images) if options.images else []
        write_image(options.out, demo_grid(options.model, photos, seeds_of(options.seeds, most=16)))
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {options.model} drew {len(photos)} photos and the cats of seeds {options.seeds}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
