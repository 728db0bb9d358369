"""`python -m serving.text2image_server`: text to image on Triton, in the environment of `make serve-text2image`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence

from runtime.errors import InputError, ToolchainError
from serving.arguments import add_arguments, limits_of, settings_of
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
    try:
        return serve(args, JsonLog())
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def serve(args: argparse.Namespace, log: JsonLog) -> int:
    """Open the models, serve them, return the exit code. Raises ToolchainError where it does not come to that."""
    try:
        from serving.host import Host, one_log, stopped_by_signals
    except ImportError as error:
        raise InputError(
            f"serving needs PyTriton, in an environment of its own ({error}): `make serve-text2image` makes it, or "
            "pip install 'cat2dog[serving,text2image]' in a fresh one"
        ) from error
    settings, limits, warm = settings_of(args), limits_of(args), warm_up_wanted()
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_log(log))
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
        function = TextToImage(
            models.painter, models.captioner, bool(args.upscaler), warm, limits, args.most_steps, args.most_side
        )
        host = Host([function], settings, log)
        stack.callback(host.close)
        stack.enter_context(stopped_by_signals(host))
        host.start()
        return host.wait()


def warm_up_wanted() -> bool:
    """What WARMUP_MODEL says; yes where it is not set. Raises InputError for a word that is neither yes nor no."""
    word = os.environ.get(WARM_VARIABLE, "")
    if word.lower() not in _WORDS:
        raise InputError(f"{WARM_VARIABLE}={word[:40]} is set; expected 1 or 0")
    return _WORDS[word.lower()]


if __name__ == "__main__":
    sys.exit(main())
