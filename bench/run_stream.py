"""`python -m bench.run_stream`: does a folder of pictures keep the network busy, or wait for the codecs?

Makes so many JPEGs of the sample pictures in a temporary folder and runs them as `cat2dog run` does: by an image runner
that takes a fixed time for each batch, as a GPU would (`--ms`), by an engine, or by ONNX Runtime. Beside the time it
took stand what decoding, running and encoding take alone, each with all its threads and nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.machine import machine
from runtime.errors import ToolchainError
from runtime.files import write_text
from runtime.images import find_images, read_image, write_image
from runtime.runner import ImageRunner, TensorSpec
from runtime.stream import Steps, default_workers, stream

_PACKAGES = ("pillow", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "cuda-bindings")
_PHOTO = (800, 600)


class FixedTimeRunner:
    """255 - image, `ms` after it was asked; one batch at a time, as one GPU has it, whichever lane asks."""

    def __init__(self, resolution: int, batch: int, lanes: int, ms: float):
        shape = (-1, resolution, resolution, 3)
        bounds = (1, *shape[1:]), (batch, *shape[1:])
        self.inputs = (TensorSpec("image", "uint8", shape, *bounds),)
        self.outputs = (TensorSpec("dog", "uint8", shape),)
        self.lanes = lanes
        self._seconds = ms / 1000
        self._gpu = threading.Lock()

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The answer, when its time has come."""
        with self._gpu:
            time.sleep(self._seconds)
        return {"dog": 255 - feed["image"]}

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> FixedTimeRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; write the results where `--output` says."""
    parser = argparse.ArgumentParser(prog="python -m bench.run_stream", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--resolution", type=int, default=256, help="of the stand-in runner")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lanes", type=int, default=2, help="of the stand-in runner")
    parser.add_argument("--ms", type=float, default=20.0, help="what a batch takes in the stand-in runner")
    parser.add_argument("--onnx", type=Path, help="run this file in ONNX Runtime instead")
    parser.add_argument("--engine", type=Path, help="run this engine instead")
    parser.add_argument("--workers", type=int, default=default_workers(), help="threads that decode and encode")
    parser.add_argument("--output", type=Path, help="results, JSON")
    args = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder, _runner(args) as runner:
            pictures = make_pictures(Path(folder) / "cats", args.pictures)
            result = measure(pictures, Path(folder) / "dogs", runner, args.batch, args.workers)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    result = {"machine": machine(_PACKAGES), **result}
    print(json.dumps(result, indent=1))
    if args.output:
        write_text(args.output, json.dumps(result, indent=1) + "\n")
    return 0


def make_pictures(folder: Path, count: int) -> list[Path]:
    """So many JPEGs of a photo's size, cut from the sample pictures, no two alike."""
    folder.mkdir()
    samples = [Image.open(path).convert("RGB") for path in find_images([Path(__file__).parent.parent / "images"])]
    for index in range(count):
        sample = samples[index % len(samples)]
        turned = sample.resize(_PHOTO, Image.Resampling.BILINEAR, box=(index % 50, 0, sample.width, sample.height))
        turned.save(folder / f"{index:05}.jpg", quality=90)
    return sorted(folder.iterdir())


def measure(pictures: Sequence[Path], target: Path, runner: ImageRunner, batch: int, workers: int) -> dict[str, Any]:
    """Seconds of each step alone and of all together."""
    size = runner.resolution
    batch = min(batch, runner.largest_batch or batch)

    def decode(path: Path) -> np.ndarray:
        return read_image(path, size)

    def encode(path: Path, dog: np.ndarray) -> None:
        write_image(target / f"{path.stem}.png", dog)

    images = [decode(path) for path in pictures[:batch]]
    whole = np.stack(images)
    for _ in range(3 * runner.lanes):
        runner.run(whole)  # warms it up
    batches = -(-len(pictures) // batch)
    alone = {
        "decode": _seconds(workers, decode, pictures),
        "run": _seconds(runner.lanes, lambda _: runner.run(whole), range(batches)),
        "encode": _seconds(workers, lambda path: encode(path, images[int(path.stem) % len(images)]), pictures),
    }
    began = time.perf_counter()
    outcomes = list(stream(pictures, Steps(decode, runner.run, encode, batch, runner.lanes), workers))
    together = time.perf_counter() - began
    failed = [str(outcome.fault) for outcome in outcomes if outcome.fault]
    assert not failed, failed[0]
    # Decoding and encoding share the workers, so that what bounds the whole is the runner or the two of them.
    bound = max(alone["run"], alone["decode"] + alone["encode"])
    return {
        "pictures": len(pictures),
        "resolution": size,
        "batch": batch,
        "lanes": runner.lanes,
        "workers": workers,
        "seconds_alone": {name: round(seconds, 3) for name, seconds in alone.items()},
        "seconds_in_turn": round(sum(alone.values()), 3),
        "seconds_together": round(together, 3),
        "pictures_a_second": round(len(pictures) / together, 1),
        "of_the_bound": round(together / bound, 3),
        "runner_busy": round(alone["run"] / together, 3),
    }


def _seconds(threads: int, work: Callable[[Any], object], items: Sequence[Any]) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass
    return time.perf_counter() - began


def _runner(args: argparse.Namespace) -> ImageRunner:
    if args.engine:
        from runtime.tensorrt_runner import TensorRTRunner

        return ImageRunner.from_runner(TensorRTRunner(args.engine, lanes=args.lanes))
    if args.onnx:
        from runtime.onnxruntime_runner import OnnxRuntimeRunner

        return ImageRunner.from_runner(OnnxRuntimeRunner(args.onnx))
    return ImageRunner.from_runner(FixedTimeRunner(args.resolution, args.batch, args.lanes, args.ms))


if __name__ == "__main__":
    raise SystemExit(main())
