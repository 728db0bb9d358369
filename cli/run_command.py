"""`cat2dog run`: pictures of cats in, pictures of dogs out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import build_command, compose, console, options
from runtime.errors import AccuracyError, InputError, ToolchainError

if TYPE_CHECKING:
    from cli.pictures import Picture
    from export.recipe import Recipe
    from runtime.runner import ImageRunner

HELP = "turn pictures of cats into pictures of dogs, with PSNR against PyTorch and timings"
EXAMPLE = "cat2dog run --model models/tiny-128 --input-image images/img1.jpg --output out.png"

# The reference costs far more than an engine; for many pictures it has to be asked for.
PSNR_PICTURES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.model(parser)
    parser.add_argument("--engine", metavar="FILE.engine", help="run this engine instead of one chosen for --model")
    parser.add_argument(
        "--input-image",
        type=options.some_path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="picture files, or folders of them",
    )
    parser.add_argument(
        "--output",
        type=options.some_path,
        metavar="PATH",
        help="file for one picture (default: out.png), folder for several (default: out)",
    )
    parser.add_argument(
        "--runner",
        choices=("auto", "tensorrt", "onnxruntime", "pytorch"),
        default="auto",
        help="what runs the network (default: auto, tensorrt where it runs, else onnxruntime)",
    )
    psnr = parser.add_mutually_exclusive_group()
    psnr.add_argument(
        "--psnr",
        action="store_true",
        default=None,
        dest="psnr",
        help=f"compare with FP32 PyTorch (default: up to {PSNR_PICTURES} pictures)",
    )
    psnr.add_argument("--no-psnr", action="store_false", default=None, dest="psnr", help="do not compare")
    options.precision(parser)
    build_command.add_builder_arguments(parser)
    options.build_folder(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run every picture; one that cannot be read is named at the end, and the others are done."""
    from cli.pictures import pair
    from cli.runners import open_runner
    from engines.batch import BatchProfile

    pictures = pair(args.input_image, args.output)
    if args.model is None and args.engine is None:
        raise InputError("give --model FOLDER (for example --model models/tiny-128) or --engine FILE.engine")
    if args.psnr and args.model is None:
        raise InputError("--psnr compares with a checkpoint: give --model too")
    BatchProfile.parse(args.batch)
    compose.targets_of(args.targets)
    started = console.Stopwatch()
    with console.progress("run") as update:
        recipe = compose.recipe_of(args, update) if args.model else None
        if len(pictures) == 1:
            _first_readable(pictures[0])  # before minutes of work for a file that is no picture
        runner, about = open_runner(args, recipe, update)
        with runner:
            startup = started.ms
            compare = len(pictures) <= PSNR_PICTURES if args.psnr is None else args.psnr
            rows, faults = _run_all(pictures, runner, recipe if compare else None, update)
    _report(args, rows, faults, about, startup)
    worst = min((row["psnr_db"] for row in rows if row["psnr_db"] is not None), default=None)
    if faults:
        raise faults[0] if len(pictures) == 1 else InputError(f"{len(faults)} of {len(pictures)} pictures failed")
    if worst is not None and recipe is not None and worst < recipe.judge[1]:
        raise AccuracyError(
            f"PSNR {worst:.1f} dB is under the gate of {recipe.judge[1]:g} dB: find the diverging layer with "
            f"`cat2dog accuracy --model {args.model} --precision {args.precision}`"
        )
    return 0


def _first_readable(picture: Picture) -> None:
    from runtime.images import read_image

    read_image(picture.source, 32)


def _run_all(
    pictures: Sequence[Picture], runner: ImageRunner, recipe: Recipe | None, update: console.Update
) -> tuple[list[dict[str, Any]], list[ToolchainError]]:
    from runtime.images import write_image
    from runtime.metrics import psnr

    rows: list[dict[str, Any]] = []
    faults: list[ToolchainError] = []
    size = min(runner.largest_batch or 1, 64)
    for batch in _decoded(pictures, runner.resolution, size, faults):
        update(f"picture {len(rows) + 1} of {len(pictures)}", len(rows) / len(pictures))
        images = np.stack([image for _, image, _ in batch])
        clock = console.Stopwatch()
        dogs = runner.run(images)
        each = clock.ms / len(batch)
        references = recipe.reference({"image": images})["dog"] if recipe else [None] * len(batch)
        for (picture, _, decode), dog, reference in zip(batch, dogs, references, strict=True):
            clock = console.Stopwatch()
            write_image(picture.target, dog)
            rows.append(
                {
                    "input": picture.source,
                    "output": picture.target,
                    "decode_ms": decode,
                    "run_ms": each,
                    "encode_ms": clock.ms,
                    "psnr_db": None if reference is None else psnr(dog, reference),
                }
            )
    return rows, faults


def _decoded(
    pictures: Sequence[Picture], resolution: int, size: int, faults: list[ToolchainError]
) -> Iterator[list[tuple[Picture, np.ndarray, float]]]:
    from runtime.images import read_image

    batch: list[tuple[Picture, np.ndarray, float]] = []
    for picture in pictures:
        clock = console.Stopwatch()
        try:
            batch.append((picture, read_image(picture.source, resolution), clock.ms))
        except InputError as error:
            faults.append(error)
            if len(pictures) > 1:
                print(f"skipped: {error}", file=sys.stderr)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _report(
    args: argparse.Namespace, rows: list[dict[str, Any]], faults: list[ToolchainError], about: str, startup: float
) -> None:
    if args.json:
        failed = [str(fault) for fault in faults]
        console.print_json({"runner": about, "startup_ms": startup, "images": rows, "failed": failed})
        return
    if not rows:
        return
    columns = ("input", "output", "decode ms", "run ms", "encode ms", "PSNR dB")
    shown = rows if len(rows) <= 20 else rows[:20]
    console.table(f"{about}, ready after {startup:.0f} ms", columns, [tuple(row.values()) for row in shown])
    if len(rows) > len(shown):
        mean = sum(row["run_ms"] for row in rows) / len(rows)
        print(f"and {len(rows) - len(shown)} more; {mean:.2f} ms a picture on average")
