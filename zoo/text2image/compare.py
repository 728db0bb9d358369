"""`python -m zoo.text2image.compare`: whole pictures with a runner in the denoiser's place, against PyTorch's."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.metrics import psnr
from zoo.command import Parser, run
from zoo.text2image.asking import add_request
from zoo.text2image.options import add_pipeline
from zoo.text2image.request import Request

if TYPE_CHECKING:
    from runtime.runner import Runner

# What FP32 loses; a picture that is equal has no finite PSNR, and JSON no infinity.
EQUAL = 999.0


@dataclass(frozen=True)
class Compared:
    """A denoiser's pictures against PyTorch's: PSNR in dB of each (EQUAL where equal), seconds a picture, file MB."""

    denoiser: str
    psnr_db: tuple[float, ...]
    seconds: float
    megabytes: float


def compared(pipeline: Any, requests: Sequence[Request], files: Sequence[Path]) -> list[Compared]:
    """PyTorch first, then each of `files`, which are put in the denoiser's place one after the other."""
    from zoo.text2image.denoiser import open_denoiser, swap
    from zoo.text2image.painter import Painter
    from zoo.text2image.parts import denoiser_name

    name = denoiser_name(pipeline)
    own = getattr(pipeline, name)
    size = sum(each.numel() * each.element_size() for each in (*own.parameters(), *own.buffers()))
    expected, seconds = _painted(Painter(pipeline), requests)
    rows = [Compared(f"PyTorch {str(own.dtype).removeprefix('torch.')}", (EQUAL,) * len(requests), seconds, size / 1e6)]
    for file in files:
        runner: Runner
        with open_denoiser(file) as runner:
            try:
                swap(pipeline, runner)
                got, seconds = _painted(Painter(pipeline), requests)
            finally:
                setattr(pipeline, name, own)
        scores = tuple(min(psnr(a, b), EQUAL) for a, b in zip(got, expected, strict=True))
        data = file.with_name(f"{file.name}.data")
        weight = file.stat().st_size + (data.stat().st_size if data.exists() else 0)
        rows.append(Compared(file.name, scores, seconds, weight / 1e6))
    return rows


def _painted(painter: Any, requests: Sequence[Request]) -> tuple[list[Any], float]:
    painter.paint(requests[0])  # whatever is slow the first time
    began = time.perf_counter()
    pictures = [painter.paint(request).picture for request in requests]
    return pictures, (time.perf_counter() - began) / len(requests)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code."""
    parser = Parser(
        "python -m zoo.text2image.compare",
        "Pictures by a pipeline whose denoiser is an engine or an ONNX file, against those by PyTorch.",
        'python -m zoo.text2image.compare --pipeline FOLDER --prompt "a cat" --denoiser unet_int8.onnx',
    )
    add_pipeline(parser)
    add_request(parser)
    parser.add_argument(
        "--denoiser", type=Path, action="append", required=True, metavar="FILE", help=".engine or .onnx; several"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="pictures, of seeds from --seed on (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    return run(parser, _compare, arguments)


def _compare(args: argparse.Namespace) -> int:
    from runtime.errors import InputError
    from zoo.text2image.loading import open_pipeline

    if not 1 <= args.seeds <= 100:
        raise InputError(f"--seeds {args.seeds} was given; expected 1 to 100")
    pipeline = open_pipeline(args.pipeline, args.device, args.dtype, args.allow_download)
    requests = [
        Request(
            args.prompt, args.negative_prompt, args.steps, args.guidance, args.seed + number, args.width, args.height
        )
        for number in range(args.seeds)
    ]
    rows = compared(pipeline, requests, args.denoiser)
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    print(f"{'denoiser':32} {'PSNR dB, each picture':32} {'s a picture':>12} {'MB':>9}")
    for row in rows:
        scores = " ".join("equal" if score == EQUAL else f"{score:.1f}" for score in row.psnr_db)
        print(f"{row.denoiser[:32]:32} {scores[:32]:32} {row.seconds:12.2f} {row.megabytes:9.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
