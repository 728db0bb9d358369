"""`cat2dog run`: pictures of cats in, pictures of dogs out."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import build_command, compose, console, options, run_fleet
from runtime.errors import AccuracyError, InputError, ToolchainError

if TYPE_CHECKING:
    from cli.pictures import Picture
    from export.recipe import Recipe
    from runtime.runner import ImageRunner
    from runtime.stream import Outcome

HELP = "turn pictures of cats into pictures of dogs, with PSNR against PyTorch and timings"
EXAMPLE = "cat2dog run --model models/tiny-128 --input-image images/img1.jpg --output out.png"

# The reference costs far more than an engine; for many pictures it has to be asked for.
PSNR_PICTURES = 5
# More pictures in one batch win nothing, and wait for one another longer.
MOST_BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    network = parser.add_mutually_exclusive_group()
    options.model(network)
    network.add_argument(
        "--recipe",
        metavar="PACKAGE.MODULE:FACTORY",
        help="a recipe's network, and what it answers in place of pictures",
    )
    parser.add_argument("--engine", metavar="FILE.engine", help="run this engine instead of one chosen for --model")
    parser.add_argument(
        "--input-image",
        type=run_fleet.place_argument,
        nargs="+",
        metavar="PATH",
        help="picture files, folders of them, or one URL such as s3://bucket/cats (of a --recipe, default: its"
        " validation samples)",
    )
    parser.add_argument(
        "--output",
        type=run_fleet.place_argument,
        metavar="PATH",
        help="file for one picture (default: out.png), folder for several (default: out)",
    )
    parser.add_argument(
        "--runner",
        choices=("auto", "tensorrt", "onnxruntime", "pytorch"),
        default="auto",
        help="what runs the network (default: auto, tensorrt where it runs, else onnxruntime)",
    )
    parser.add_argument(
        "--provider",
        choices=("cpu", "cuda"),
        help="where ONNX Runtime runs the network (default: cpu; cuda needs the package onnxruntime-gpu)",
    )
    run_fleet.add_arguments(parser)
    options.signed_by(parser)
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
    options.policy(parser)
    build_command.add_builder_arguments(parser)
    options.build_folder(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Run every picture; one that cannot be read is named at the end, and the others are done."""
    from cli.pictures import pair
    from cli.runners import open_runner
    from engines.batch import BatchProfile

    if args.recipe:
        from cli.run_recipe import run_recipe

        return run_recipe(args)
    if not args.input_image:
        raise InputError("give --input-image PATH: pictures, or folders of them")
    if run_fleet.wanted(args):
        BatchProfile.parse(args.batch)
        compose.targets_of(args.targets)
        return run_fleet.run(args)
    pictures = pair(args.input_image, args.output)
    if args.model is None and args.engine is None:
        raise InputError("give --model FOLDER (for example --model models/tiny-128) or --engine FILE.engine")
    if args.psnr and args.model is None:
        raise InputError("--psnr compares with a checkpoint: give --model too")
    if args.provider and (args.engine or args.runner in ("tensorrt", "pytorch")):
        given = "--engine" if args.engine else f"--runner {args.runner}"
        raise InputError(f"--provider is for ONNX Runtime, but {given} was given: leave one of them out")
    BatchProfile.parse(args.batch)
    compose.targets_of(args.targets)
    started = console.Stopwatch()
    with console.progress("run") as update:
        recipe = compose.recipe_of(args, update) if args.model else None
        if len(pictures) == 1:
            _first_readable(pictures[0])  # before minutes of work for a file that is no picture
        runner, about = open_runner(args, recipe, update, lanes=1 if len(pictures) == 1 else 2)
        with runner:
            startup = started.ms
            clock = console.Stopwatch()
            compare = len(pictures) <= PSNR_PICTURES if args.psnr is None else args.psnr
            rows, faults = _run_all(pictures, runner, recipe if compare else None, update)
            seconds = clock.ms / 1000
    _report(args, rows, faults, about, startup, seconds)
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
    """A row for every picture that was done, in the order given, and the faults of the others."""
    from runtime.images import read_image, write_image
    from runtime.stream import Steps, stream

    steps: Steps[Picture] = Steps(
        decode=lambda picture: read_image(picture.source, runner.resolution),
        run=runner.run,
        encode=lambda picture, dog: write_image(picture.target, dog),
        batch=min(runner.largest_batch or 1, MOST_BATCH),
        lanes=runner.lanes,
    )
    rows: list[dict[str, Any]] = []
    faults: list[ToolchainError] = []
    done: list[Outcome[Picture]] = []  # waiting to be compared: the reference is cheaper for several at a time
    clock = console.Stopwatch()
    # Closing it waits for what is being written, so that an interrupted run leaves only whole files.
    with contextlib.closing(stream(pictures, steps, keep=recipe is not None)) as outcomes:
        for count, outcome in enumerate(outcomes, 1):
            rate = count / clock.ms * 1000
            update(f"{count} of {len(pictures)} pictures, {rate:.1f} a second", count / len(pictures))
            if outcome.fault:
                faults.append(outcome.fault)
                if len(pictures) > 1:
                    print(f"skipped: {outcome.fault}", file=sys.stderr)
            else:
                done.append(outcome)
            if len(done) == steps.batch:
                rows += _rows(done, recipe)
                done = []
        rows += _rows(done, recipe)
    return rows, faults


def _rows(done: Sequence[Outcome[Picture]], recipe: Recipe | None) -> list[dict[str, Any]]:
    from runtime.metrics import psnr

    scores: list[float | None] = [None] * len(done)
    if recipe and done:
        references = recipe.reference({"image": np.stack([each.image for each in done])})["dog"]
        scores = [psnr(each.answer, reference) for each, reference in zip(done, references, strict=True)]
    return [
        {
            "input": each.item.source,
            "output": each.item.target,
            "decode_ms": each.decode_ms,
            "run_ms": each.run_ms,
            "encode_ms": each.encode_ms,
            "psnr_db": score,
        }
        for each, score in zip(done, scores, strict=True)
    ]


def _report(
    args: argparse.Namespace,
    rows: list[dict[str, Any]],
    faults: list[ToolchainError],
    about: str,
    startup: float,
    seconds: float,
) -> None:
    if args.json:
        failed = [str(fault) for fault in faults]
        result = {"runner": about, "startup_ms": startup, "seconds": seconds, "images": rows, "failed": failed}
        console.print_json(result)
        return
    if not rows:
        return
    columns = ("input", "output", "decode ms", "run ms", "encode ms", "PSNR dB")
    shown = rows if len(rows) <= 20 else rows[:20]
    console.table(f"{about}, ready after {startup:.0f} ms", columns, [tuple(row.values()) for row in shown])
    if len(rows) > len(shown):
        print(f"and {len(rows) - len(shown)} more")
    if len(rows) > 1:
        mean = {name: sum(row[f"{name}_ms"] for row in rows) / len(rows) for name in ("decode", "run", "encode")}
        each = ", ".join(f"{name} {value:.2f} ms" for name, value in mean.items())
        print(f"{len(rows)} pictures in {seconds:.2f} s, {len(rows) / seconds:.1f} a second; on average {each}")
