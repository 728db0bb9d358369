"""How good a trained checkpoint is: `python -m training.evaluate --model models/tiny-128 --out runs/tiny/eval`.

On held-out seeds, PSNR and SSIM of the dog that PyTorch draws against the dog of the generator, and of the trivial
answer (the cat itself) against it. Writes `results.json` and `grid.png` (cat, drawn dog, wanted dog).
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, ToolchainError
from runtime.files import sha256_file, write_text
from runtime.images import find_images, read_image, write_image
from runtime.metrics import psnr_each
from training.contact_sheet import grid, seeds_of
from training.draw import VERSION, pair
from training.seeds import HELD_OUT
from training.similarity import ssim

_BATCH = 8
_GRID = 8


def _scores(pictures: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    ratios = np.minimum(psnr_each(pictures, wanted), 100.0)  # equal pictures have no finite PSNR
    likeness = [ssim(picture, target) for picture, target in zip(pictures, wanted, strict=True)]
    return {
        "psnr_db_mean": round(float(np.mean(ratios)), 3),
        "psnr_db_min": round(float(np.min(ratios)), 3),
        "psnr_db_median": round(float(np.median(ratios)), 3),
        "ssim_mean": round(float(np.mean(likeness)), 4),
        "ssim_min": round(float(np.min(likeness)), 4),
    }


def _read_run(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}): expected the run.json of training.train") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is a JSON {type(found).__name__}: expected the run.json of training.train")
    return found


def evaluate(
    folder: Path, seeds: range, device: str, photos: list[Path], run: Path | None = None
) -> tuple[dict[str, Any], np.ndarray, np.ndarray | None]:
    """Results, the picture grid, and a grid of (photo, its dog) for `photos` if any, both uint8 `[h,w,3]`.

    `run` is the training's own `run.json`, to be repeated in the results. Raises InputError for seeds that training may
    have used, and for a `run` that is not JSON.
    """
    if seeds[0] < HELD_OUT:
        raise InputError(f"seed {seeds[0]} may have been trained on: expected seeds from {HELD_OUT}")
    training = None if run is None else _read_run(run)
    import torch

    from cat2dog.checkpoint import load
    from training.loop import predict

    model = load(folder).to(device)
    size = model.config.resolution
    pairs = [pair(seed, size) for seed in seeds]
    cats, wanted = np.stack([cat for cat, _ in pairs]), np.stack([dog for _, dog in pairs])

    def drawn_of(pictures: np.ndarray) -> np.ndarray:
        parts = [predict(model, None, pictures[i : i + _BATCH], device) for i in range(0, len(pictures), _BATCH)]
        return np.concatenate(parts)

    dogs = drawn_of(cats)
    results = {
        "checkpoint": str(folder),
        "weights_sha256": sha256_file(folder / "model.safetensors"),
        "seeds": [seeds[0], seeds[-1]],
        "pictures": len(seeds),
        "resolution": size,
        "dog_against_drawn_dog": _scores(dogs, wanted),
        "cat_against_drawn_dog": _scores(cats, wanted),
        "generator_version": VERSION,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "training": training,
    }
    picture_grid = grid([[cats[i], dogs[i], wanted[i]] for i in range(min(_GRID, len(seeds)))])
    photo_grid = None
    if photos:
        images = np.stack([read_image(photo, size) for photo in photos])
        photo_grid = grid([list(row) for row in zip(images, drawn_of(images), strict=True)])
    return results, picture_grid, photo_grid


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path, help="a checkpoint folder")
    parser.add_argument("--out", required=True, type=Path, help="folder for results.json and the grids")
    parser.add_argument("--seeds", default=f"{HELD_OUT}:{HELD_OUT + 100}", help="FIRST:END, default 100 held-out ones")
    parser.add_argument("--images", nargs="*", default=[], help="photos to draw too, into photos.png")
    parser.add_argument("--run", type=Path, help="the training's run.json, to be repeated in the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
    options = parser.parse_args(arguments)
    try:
        photos = find_images(options.images) if options.images else []
        seeds = seeds_of(options.seeds, most=10_000)
        results, picture_grid, photo_grid = evaluate(options.model, seeds, options.device, photos, options.run)
        write_image(options.out / "grid.png", picture_grid)
        if photo_grid is not None:
            write_image(options.out / "photos.png", photo_grid)
        write_text(options.out / "results.json", json.dumps(results, indent=2) + "\n")
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name in ("dog_against_drawn_dog", "cat_against_drawn_dog"):
        scores = results[name]
        print(f"{name.replace('_', ' ')}: PSNR {scores['psnr_db_mean']:.2f} dB, SSIM {scores['ssim_mean']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
