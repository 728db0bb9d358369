"""`python -m zoo.text2image.latent_study`: one prompt with each latent adjustment, side by side, and what changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.images import check_output, write_image
from runtime.metrics import psnr
from zoo.command import Parser, run
from zoo.text2image.adjustment import NONE, Adjustment
from zoo.text2image.asking import add_image, add_request, request_of
from zoo.text2image.options import add_models, opened

if TYPE_CHECKING:
    from zoo.text2image.painter import Painter
    from zoo.text2image.request import Request

STUDIED: Mapping[str, Adjustment] = {
    "none": NONE,
    "centre": Adjustment(centre=1.0),
    "clamp": Adjustment(clamp=2.0),
    "contrast": Adjustment(contrast=1.05),
    "centre, clamp": Adjustment(centre=1.0, clamp=2.0),
}


@dataclass(frozen=True)
class Studied:
    """A picture `[H,W,3]` by one adjustment; mean and standard deviation in grey levels, of each colour and of all."""

    name: str
    picture: np.ndarray
    colour: tuple[float, float, float]
    contrast: float
    psnr_db: float


def studied(painter: Painter, request: Request, adjustments: Mapping[str, Adjustment] = STUDIED) -> list[Studied]:
    """The request by each adjustment, from the same noise; PSNR is against the first."""
    rows: list[Studied] = []
    for name, adjustment in adjustments.items():
        picture = painter.paint(replace(request, adjustment=adjustment)).picture
        red, green, blue = picture.reshape(-1, 3).mean(0)
        against = rows[0].picture if rows else picture
        rows.append(Studied(name, picture, (red, green, blue), float(picture.std()), psnr(picture, against)))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Paint and tell; returns the exit code."""
    parser = Parser(
        "python -m zoo.text2image.latent_study",
        "What adjusting the latents does to a picture: a sheet of pictures from the same noise, and a table.",
        'python -m zoo.text2image.latent_study --pipeline FOLDER --prompt "a cat" --output sheet.png',
    )
    add_models(parser)
    add_request(parser)
    add_image(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("out.png"), metavar="FILE", help="the sheet (default: out.png)"
    )
    return run(parser, _study, arguments)


def _study(args: argparse.Namespace) -> int:
    check_output(args.output)
    with opened(args) as models:
        rows = studied(models.painter, request_of(args, models))
    write_image(args.output, np.concatenate([row.picture for row in rows], axis=1))
    print(f"{args.output}, from left to right:")
    print(f"{'adjustment':16} {'mean red, green, blue':>22} {'contrast':>9} {'PSNR dB against none':>21}")
    for row in rows:
        colour = " ".join(f"{mean:.0f}" for mean in row.colour)
        print(f"{row.name:16} {colour:>22} {row.contrast:9.1f} {row.psnr_db:21.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
