"""`cat2dog export`: checkpoint or recipe to ONNX."""

from __future__ import annotations

import argparse

from cli import compose, console, options

HELP = "write a checkpoint, or a recipe of your own, as one neutral ONNX file"
EXAMPLE = "cat2dog export --model models/500m-256 --precision fp16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.model_or_recipe(parser)
    options.precision(parser)
    options.policy(parser)
    options.opset(parser)
    parser.add_argument("--batch", type=int, metavar="N", help="fix the batch to N (default: dynamic)")
    parser.add_argument(
        "--output", type=options.some_path, metavar="FILE.onnx", help="default: build/onnx/{name}_{precision}.onnx"
    )
    options.build_folder(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Export, unless an up-to-date file is there."""
    from export.export import export
    from export.onnx_file import data_path
    from runtime.errors import InputError

    if args.batch is not None and not 1 <= args.batch <= 1 << 16:
        raise InputError(f"batch {args.batch} is not between 1 and {1 << 16}")
    clock = console.Stopwatch()
    with console.progress("export") as update:
        recipe = compose.recipe_of(args, update)
        policy = compose.policy_of(args, args.precision)
        path = compose.onnx_path(args, recipe, args.precision, policy)
        path = args.output or path.with_stem(path.stem + ("" if args.batch is None else f"_b{args.batch}"))
        shape = {"opset": args.opset, "batch": args.batch}
        done = export(recipe, path, args.precision, policy=policy, **shape, progress=update, verify_hash=True)
    weights = done.files[data_path(path).name]["size"]
    facts = {
        "onnx": done.path,
        "precision": args.precision,
        "opset": args.opset,
        "weights_bytes": weights,
        "attention_nodes": done.attention_nodes,
        "nodes": done.nodes,
        "export_seconds": done.seconds,
        "peak_memory_bytes": done.peak_memory_bytes,
        "seconds": round(clock.ms / 1000, 2),
    }
    if args.json:
        console.print_json(facts)
    else:
        print(
            f"{done.path}: {weights / 1e6:.1f} MB of weights, {done.attention_nodes} attention nodes, "
            f"{facts['seconds']} s"
        )
    return 0
