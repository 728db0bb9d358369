"""`python -m zoo.text2image`: a prompt to a picture, and the pictures on the way to it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InputError
from runtime.images import check_output, write_image
from zoo.command import Parser, bar, run
from zoo.text2image.asking import add_image, add_request, request_of
from zoo.text2image.options import add_models, opened


def main(arguments: Sequence[str] | None = None) -> int:
    """Paint; returns the exit code."""
    parser = Parser(
        "python -m zoo.text2image",
        "A prompt to a picture, by a diffusers pipeline.",
        'python -m zoo.text2image --pipeline FOLDER --prompt "a cat on a mat" --steps 25 --output out.png',
    )
    add_models(parser)
    add_request(parser)
    add_image(parser)
    parser.add_argument("--output", type=Path, default=Path("out.png"), metavar="FILE", help="(default: out.png)")
    parser.add_argument("--intermediates", type=Path, metavar="FOLDER", help="keep the pictures on the way here")
    parser.add_argument(
        "--every", type=int, metavar="N", help="a picture each so many steps (default: 1, with --intermediates)"
    )
    return run(parser, _paint, arguments)


def _paint(args: argparse.Namespace) -> int:
    check_output(args.output)
    if args.every is not None and args.intermediates is None:
        raise InputError("--every says how often --intermediates FOLDER gets a picture; give that, too")
    every = (args.every or 1) if args.intermediates is not None else 0
    if args.intermediates is not None:
        check_output(args.intermediates / "step_001.png")
    with opened(args) as models, bar("denoising") as progress:
        request = request_of(args, models, every)
        for step in models.painter.steps(request, progress):
            if step.final:
                write_image(args.output, step.picture)
            elif args.intermediates is not None:
                write_image(args.intermediates / f"step_{step.number:03d}.png", step.picture)
    size = "{1} x {0}".format(*step.picture.shape)
    said = "; the pipeline's safety checker blackened it" if step.flagged else ""
    print(f"{args.output}: {size}, {step.total} steps in {step.seconds:.2f} s, prompt '{request.prompt}'{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
