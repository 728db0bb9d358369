"""`cat2dog init`: a named checkpoint with seeded weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cli import console, options
from runtime.errors import InputError

if TYPE_CHECKING:
    from cat2dog.config import Config

HELP = "write a checkpoint with seeded random weights that behave like a trained network's"
EXAMPLE = "cat2dog init --model models/500m-256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.model(parser, help="folder to write; its name chooses the config: tiny-128, 500m-256, 1b-512, 2b-1024, ...")
    parser.add_argument(
        "--config", metavar="FILE", help="take the config from this JSON file instead of the folder's name"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the checkpoint that is there")
    parser.add_argument("--list", action="store_true", help="list the named checkpoints and stop")
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint, or list what could be written."""
    from cat2dog.config import NAMED, lookup, parameter_count

    if args.list:
        return _list(args.json)
    if args.model is None:
        raise InputError(f"--model names no folder; give for example --model models/{next(iter(NAMED))}")
    if not 0 <= args.seed < 1 << 63:
        raise InputError(f"seed {args.seed} is not between 0 and 2**63-1")
    config = config_file(args.config) if args.config else lookup(args.model.name)

    from cat2dog.initialise import initialise

    clock = console.Stopwatch()
    with console.progress(f"init {args.model.name}") as update:
        initialise(
            config,
            args.seed,
            args.model,
            overwrite=args.overwrite,
            progress=lambda done, total: update(f"part {done} of {total}", done / total),
        )
    facts = {
        "model": args.model,
        "parameters": parameter_count(config),
        "seed": args.seed,
        "seconds": round(clock.ms / 1000, 2),
    }
    if args.json:
        console.print_json(facts)
    else:
        print(f"{args.model}: {facts['parameters'] / 1e6:.1f} M parameters, seed {args.seed}, {facts['seconds']} s")
    return 0


def config_file(path: str) -> Config:
    """A config from a JSON file; raises InputError where there is none."""
    from cat2dog.config import Config

    try:
        with open(path, encoding="utf-8") as file:
            return Config.from_json(file.read(1 << 16))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read config {path}: {getattr(error, 'strerror', None) or error}") from error


def _list(as_json: bool) -> int:
    from cat2dog.config import NAMED, parameter_count
    from cat2dog.flops import flops

    rows = [
        {
            "name": name,
            "resolution": config.resolution,
            "tokens": config.tokens,
            "width": config.width,
            "depth": config.depth,
            "heads": config.heads,
            "parameters": parameter_count(config),
            "flops": flops(config).total,
        }
        for name, config in NAMED.items()
    ]
    if as_json:
        console.print_json(rows)
        return 0
    shown = [(*list(row.values())[:6], row["parameters"] / 1e6, row["flops"] / 1e12) for row in rows]
    columns = ("name", "px", "tokens", "width", "depth", "heads", "M parameters", "TFLOP an image")
    console.table("named checkpoints", columns, shown)
    return 0
