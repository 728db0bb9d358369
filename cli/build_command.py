"""`cat2dog build`: checkpoint or recipe to engine, exporting first where needed."""

from __future__ import annotations

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from cli import compose, console, options

if TYPE_CHECKING:
    from engines.build import Built

HELP = "build a TensorRT engine (ahead of time where there is no GPU), prove it, and file it"
EXAMPLE = "cat2dog build --model models/500m-256 --precision fp16 --batch 1-8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.model_or_recipe(parser)
    options.precision(parser)
    options.policy(parser)
    add_builder_arguments(parser)
    parser.add_argument("--force", action="store_true", help="build even where an up-to-date engine is filed")
    options.build_folder(parser)
    options.json_output(parser)


def add_builder_arguments(parser: argparse.ArgumentParser) -> None:
    """What decides which engine of a checkpoint and precision it is; `cat2dog run` takes these too."""
    parser.add_argument(
        "--attention",
        choices=("auto", "plugin", "native", "decomposed"),
        default="auto",
        help="form of attention (default: auto, native where the flavor has it, else plugin where there are kernels"
        " for the GPU, else decomposed)",
    )
    add_linear_argument(parser)
    parser.add_argument(
        "--flavor",
        choices=("auto", "tensorrt", "tensorrt_rtx"),
        default="auto",
        help="which TensorRT (default: auto, tensorrt where it runs, else tensorrt_rtx ahead of time)",
    )
    parser.add_argument("--batch", default="1", metavar="N|MIN-MAX|MIN-OPT-MAX", help="batch sizes (default: 1)")
    parser.add_argument(
        "--targets", metavar="CC,...", help="compute capabilities to build ahead of time for, as 8.6,8.9"
    )
    parser.add_argument(
        "--workspace", type=int, metavar="MIB", help="the builder's scratch memory (default: TensorRT's)"
    )
    parser.add_argument(
        "--optimization-level", type=int, choices=range(6), help="the builder's effort, 0 to 5 (default: TensorRT's, 3)"
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="make an engine that takes new weights without being built again (engines.refit); has no kernels of"
        " ours in it",
    )
    options.store(parser)
    options.opset(parser)


def add_linear_argument(parser: argparse.ArgumentParser) -> None:
    """Which form linear layers take; `cat2dog accuracy` takes this, too."""
    parser.add_argument(
        "--linear",
        choices=("auto", "plugin", "tensorrt"),
        default="auto",
        help="form of linear layers: fused kernels of ours with norm, activation and residual inside, or TensorRT's own"
        " layers (default: auto, of each the faster as measured on the GPU; tensorrt where there are no kernels)",
    )


def run(args: argparse.Namespace) -> int:
    """Build the engine, or find it."""
    clock = console.Stopwatch()
    with console.progress("build") as update:
        recipe = compose.recipe_of(args, update)
        built = compose.built(args, recipe, update)
    facts = describe(built, clock.ms / 1000)
    if args.json:
        console.print_json(facts)
    else:
        state = "built" if built.fresh else "up to date"
        for line in facts["linear_lines"] if built.fresh else ():
            print(f"linear layers: {line}")
        print(f"{built.path}: {state}, {facts['size'] / 1e6:.1f} MB, {facts['gate_line']}, {facts['seconds']} s")
        for note in built.manifest.build.notes:
            print(f"note: {note}", file=sys.stderr)
    return 0


def describe(built: Built, seconds: float) -> dict[str, Any]:
    """What `--json` prints of an engine."""
    from engines.linear_report import linear_lines

    manifest = built.manifest
    return {
        "engine": built.path,
        "fresh": built.fresh,
        "size": manifest.size,
        "sha256": manifest.sha256,
        "precision": manifest.key.precision,
        "attention": manifest.key.attention,
        "linear": manifest.key.options.get("linear", "tensorrt"),
        "linear_lines": linear_lines(manifest.key, manifest.linear),
        "flavor": manifest.key.flavor,
        "flavor_version": manifest.key.flavor_version,
        "gpu": manifest.key.gpu,
        "targets": manifest.key.targets,
        "gate": vars(manifest.gate),
        "gate_line": gate_line(built),
        "build_seconds": manifest.build.seconds,
        "peak_memory_bytes": manifest.build.peak_memory_bytes,
        "notes": manifest.build.notes,
        "seconds": round(seconds, 2),
    }


def gate_line(built: Built) -> str:
    """The gate's verdict in words: `gate passed, worst 62.1 dB`."""
    gate = built.manifest.gate
    scores = gate.scores or gate.proxy_scores
    unit = "dB" if gate.metric == "psnr" else gate.metric
    worst = f", worst {'inf' if math.isinf(min(scores)) else f'{min(scores):.4g}'} {unit}" if scores else ""
    by = " (its ONNX in ONNX Runtime)" if not gate.scores and gate.proxy_scores else ""
    return f"gate {gate.state}{worst}{by}"
