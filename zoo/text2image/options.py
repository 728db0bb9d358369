"""The options that name models, of the commands and of the server, and the models that they name."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InputError
from zoo.text2image.loading import DEVICES, DTYPES, open_pipeline

if TYPE_CHECKING:
    from zoo.text2image.caption import Captioner
    from zoo.text2image.painter import Painter

PIPELINE_VARIABLE = "MODEL_NAME"


@dataclass(frozen=True)
class Models:
    """What was opened: the captioner is None where none was named."""

    painter: Painter
    captioner: Captioner | None


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """Which pipeline, and where it runs."""
    parser.add_argument(
        "--pipeline",
        default=os.environ.get(PIPELINE_VARIABLE, ""),
        metavar="FOLDER",
        help=f"a diffusers pipeline, safetensors only; or OWNER/NAME on the hub (default: ${PIPELINE_VARIABLE})",
    )
    parser.add_argument(
        "--allow-download", action="store_true", help="get OWNER/NAME from the hub where it is not cached"
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where PyTorch runs (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="of PyTorch's weights (default: half on a GPU, float32 on a CPU)",
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """The pipeline, and the models that may stand beside it."""
    add_pipeline(parser)
    parser.add_argument(
        "--denoiser", type=Path, metavar="FILE", help=".engine or .onnx that denoises in place of the pipeline's own"
    )
    parser.add_argument("--captioner", metavar="FOLDER", help="an image-to-text model, for prompts of pictures")
    parser.add_argument("--upscaler", metavar="FOLDER", help="a Swin2SR model, for larger pictures")


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[Models]:
    """The models of `args`, closed at the end. Raises InputError for what cannot be opened."""
    if not args.pipeline:
        raise InputError(f"give --pipeline FOLDER, or name one in {PIPELINE_VARIABLE}")
    pipeline = open_pipeline(args.pipeline, args.device, args.dtype, args.allow_download)
    # What needs torch is imported after the check that it is there.
    from zoo.text2image.denoiser import open_denoiser, swap
    from zoo.text2image.painter import Painter

    with contextlib.ExitStack() as stack:
        if args.denoiser is not None:
            runner = open_denoiser(args.denoiser)
            stack.callback(runner.close)
            swap(pipeline, runner)
        captioner = upscaler = None
        if args.captioner:
            from zoo.text2image.caption import Captioner

            captioner = Captioner(args.captioner, args.device)
        if args.upscaler:
            from zoo.text2image.upscale import Upscaler

            upscaler = Upscaler(args.upscaler, args.device)
        painter = Painter(pipeline, upscaler)
        stack.callback(painter.close)
        yield Models(painter, captioner)
