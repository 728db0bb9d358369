"""`python -m zoo.text2image.quantize`: a pipeline's denoiser as INT8 ONNX, calibrated by denoising two prompts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InputError
from zoo.command import Parser, run
from zoo.text2image.options import add_pipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Export in FP32, quantize, build where it is asked for; returns the exit code."""
    parser = Parser(
        "python -m zoo.text2image.quantize",
        "The denoiser of a pipeline as INT8 ONNX (Q/DQ), with the FP32 file beside it.",
        "python -m zoo.text2image.quantize --pipeline FOLDER --size 512x512 --output unet_int8.onnx",
    )
    add_pipeline(parser)
    parser.add_argument(
        "--size", default="", metavar="WxH", help="of the pictures, in pixels (default: the pipeline's own)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.onnx", help="the INT8 file")
    parser.add_argument("--build", metavar="FOLDER", type=Path, help="build an engine of it, too, and keep it here")
    parser.add_argument("--flavor", default="auto", help="of TensorRT, to build with (default: auto)")
    return run(parser, _quantize, arguments)


def _quantize(args: argparse.Namespace) -> int:
    if args.output.suffix != ".onnx":
        raise InputError(f"output {args.output} was given; expected a file ending in .onnx")
    from zoo.text2image.loading import open_pipeline

    pipeline = open_pipeline(args.pipeline, "cpu", "float32", args.allow_download)
    from export.export import export
    from zoo.text2image.quantized import quantized
    from zoo.text2image.recipe import denoiser_recipe, size_of

    recipe = denoiser_recipe(pipeline, args.output.stem, *size_of(args.size))
    wide = export(recipe, args.output.with_name(f"{args.output.stem}_fp32.onnx"), "fp32")
    quantized(wide.path, args.output, recipe.validation())
    print(f"{args.output}: INT8 of {wide.path}")
    if args.build is not None:
        from zoo.text2image.quantized import built

        engine = built(args.output, recipe, args.build, args.flavor)
        print(f"{engine.path}: gate {engine.manifest.gate.state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
