"""`cat2dog convert`: someone's weights into a checkpoint."""

from __future__ import annotations

import argparse

from cli import console, options
from runtime.errors import InputError

HELP = "make a checkpoint from a .pt or .safetensors file; nothing in it is ever executed"
EXAMPLE = "cat2dog convert --weights dog.pt --key-map map.json --model models/500m-256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help=".pt (loaded with weights_only=True) or .safetensors"
    )
    options.model(parser, help="folder to write; its name chooses the config, unless --config does")
    parser.add_argument("--config", metavar="FILE", help="config of the weights, as JSON")
    parser.add_argument(
        "--key-map", metavar="FILE", help='JSON of {"their.name": "our.name"}; {i} stands for any number in both'
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the checkpoint that is there")
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint."""
    from cat2dog.config import lookup, parameter_count
    from cat2dog.convert import convert, load_key_map
    from cli.init_command import config_file

    if args.model is None:
        raise InputError("--model names no folder to write; give for example --model models/500m-256")
    config = config_file(args.config) if args.config else lookup(args.model.name)
    key_map = load_key_map(args.key_map) if args.key_map else None
    with console.progress(f"convert {args.model.name}") as update:
        update("reading and writing weights", None)
        convert(args.weights, config, args.model, key_map, overwrite=args.overwrite)
    facts = {"model": args.model, "weights": args.weights, "parameters": parameter_count(config)}
    if args.json:
        console.print_json(facts)
    else:
        print(f"{args.model}: {facts['parameters'] / 1e6:.1f} M parameters from {args.weights}")
    return 0
