"""`python -m serving.text2image_server`: text to image on Triton, in the environment of `make serve-text2image`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence

from runtime.errors import InputError
from serving import start
from serving.arguments import add_arguments, limits_of
from serving.log import JsonLog
from serving.text2image_function import MOST_SIDE, MOST_STEPS, TextToImage
from zoo.text2image.options import add_models, opened

WARM_VARIABLE = "WARMUP_MODEL"
_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": True}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.text2image_server",
        description="Text to image on Triton: prompts in, pictures out.",
        epilog="example: python -m serving.text2image_server --pipeline FOLDER --timeout 60",
    )
    add_models(parser)
    parser.add_argument(
        "--most-steps", type=int, default=MOST_STEPS, metavar="N", help=f"that one may ask for (default: {MOST_STEPS})"
    )
    parser.add_argument(
        "--most-side", type=int, default=MOST_SIDE, metavar="PX", help=f"that one may ask for (default: {MOST_SIDE})"
    )
    add_arguments(parser)
    args = parser.parse_args(arguments)
    return start.run(
        lambda stack, log: [_opened(stack, log, args)], args, "make serve-text2image", "serving,text2image"
    )


def _opened(stack: contextlib.ExitStack, log: JsonLog, args: argparse.Namespace) -> TextToImage:
    limits, warm = limits_of(args), warm_up_wanted()
    began = time.monotonic()
    models = stack.enter_context(opened(args))
    log(
        "set-up",
        pipeline=str(args.pipeline),
        denoiser=str(args.denoiser or "PyTorch"),
        captioner=str(args.captioner or "none"),
        upscaler=str(args.upscaler or "none"),
        seconds=time.monotonic() - began,
    )
    return TextToImage(
        models.painter, models.captioner, bool(args.upscaler), warm, limits, args.most_steps, args.most_side
    )


def warm_up_wanted() -> bool:
    """What WARMUP_MODEL says; yes where it is not set. Raises InputError for a word that is neither yes nor no."""
    word = os.environ.get(WARM_VARIABLE, "")
    if word.lower() not in _WORDS:
        raise InputError(f"{WARM_VARIABLE}={word[:40]} is set; expected 1 or 0")
    return _WORDS[word.lower()]


if __name__ == "__main__":
    sys.exit(main())
