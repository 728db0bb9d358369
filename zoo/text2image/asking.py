"""The options that ask for a picture, and the request that they make."""

from __future__ import annotations

import argparse
from pathlib import Path

from runtime.errors import InputError
from runtime.images import read_image
from zoo.text2image.adjustment import Adjustment
from zoo.text2image.options import Models
from zoo.text2image.request import Request, decoded


def add_request(parser: argparse.ArgumentParser) -> None:
    """Prompt, steps, size and so on; all but the prompt may be left to the pipeline."""
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what to paint")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what to paint away from")
    parser.add_argument("--steps", type=int, metavar="N", help="of denoising (default: the pipeline's)")
    parser.add_argument(
        "--guidance", type=float, metavar="G", help="how closely to follow the prompt (default: the pipeline's)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise it begins with (default: 0)")
    parser.add_argument("--width", type=int, metavar="PX", help="(default: the pipeline's)")
    parser.add_argument("--height", type=int, metavar="PX", help="(default: the pipeline's)")


def add_image(parser: argparse.ArgumentParser) -> None:
    """A picture to begin with, or to take the prompt from; and what is done on the way and at the end."""
    parser.add_argument("--input-image", type=Path, metavar="FILE", help="begin with this picture instead of noise")
    parser.add_argument(
        "--strength", type=float, default=0.8, metavar="S", help="how far to leave it, to 1: entirely (default: 0.8)"
    )
    parser.add_argument(
        "--prompt-image", type=Path, metavar="FILE", help="take the prompt from this picture, by the --captioner"
    )
    parser.add_argument("--upscale", action="store_true", help="enlarge the picture, by the --upscaler")
    parser.add_argument(
        "--latent-centre", type=float, default=0.0, metavar="S", help="take this share of a colour cast away, 0 to 1"
    )
    parser.add_argument(
        "--latent-clamp",
        type=float,
        default=0.0,
        metavar="SD",
        help="pull outliers of the latents in to so many deviations",
    )
    parser.add_argument(
        "--latent-contrast", type=float, default=1.0, metavar="F", help="scale latents around their mean"
    )
    parser.add_argument(
        "--latent-until",
        type=float,
        default=0.5,
        metavar="S",
        help="the share of steps that are adjusted (default: 0.5)",
    )


def request_of(args: argparse.Namespace, models: Models, every: int = 0) -> Request:
    """The request of `add_request`'s and `add_image`'s options. Raises InputError for what is out of bounds."""
    prompt = decoded(args.prompt.encode("utf-8", "surrogateescape"))
    # Pictures come as squares, so that their longer side decides how much of them is needed.
    side = max(args.width or 0, args.height or 0) or max(models.painter.own_size)
    if args.prompt_image is not None:
        if models.captioner is None:
            raise InputError("--prompt-image needs an image-to-text model: give --captioner FOLDER")
        caption = models.captioner.caption(read_image(args.prompt_image, side))
        prompt = f"{caption}, {prompt}" if prompt else caption
    if not prompt:
        raise InputError("there is no prompt; give --prompt TEXT, or --prompt-image FILE with a --captioner")
    return Request(
        prompt=prompt,
        negative_prompt=args.negative_prompt,
        steps=args.steps,
        guidance=args.guidance,
        seed=args.seed,
        width=args.width,
        height=args.height,
        image=read_image(args.input_image, side) if args.input_image is not None else None,
        strength=args.strength,
        every=every,
        adjustment=Adjustment(args.latent_centre, args.latent_clamp, args.latent_contrast, args.latent_until),
        upscale=args.upscale,
    )
