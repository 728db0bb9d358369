"""`python -m zoo.convnext.train`: epoch seconds and accuracy of four rows: vanilla, compile, AMP, both.

On a folder in Tiny-ImageNet's layout, or on the drawn stand-in. Keeps each row's state and checkpoint under `--out`;
the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from zoo.command import Parser, run
from zoo.convnext.config import macs, parameter_count
from zoo.convnext.source import SIZES, add_data, add_device, add_size, data_of, device_of

ROW_NAMES = ("vanilla", "compile", "amp", "both")
_MOST = {"epochs": 1000, "batch": 4096}
METHOD = (
    "one process, row after row, each with the same initial weights and order of pictures; pictures lie on the device "
    "as bytes and are enlarged there; seconds are of an epoch's training steps, waited for at both ends, without "
    "compiling, which compile_seconds has; accuracy is over all validation pictures"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    parser = Parser(
        "python -m zoo.convnext.train",
        "Train a ConvNeXt as it is, compiled, with AMP, and both.",
        "python -m zoo.convnext.train --data tiny-imagenet-200 --rows vanilla compile amp both --epochs 30",
    )
    add_data(parser, required=True)
    parser.add_argument("--rows", nargs="+", choices=ROW_NAMES, default=list(ROW_NAMES), help="(default: all four)")
    parser.add_argument("--epochs", type=int, default=30, help="(default: 30)")
    parser.add_argument("--batch", type=int, default=128, help="(default: 128)")
    add_size(parser)
    parser.add_argument("--seconds", type=float, help="start no epoch after so many, over all rows")
    add_device(parser)
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/convnext"), help="(default: runs/convnext)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="the result (default: training.json in --out)")
    return run(parser, _train, arguments)


def _train(args: argparse.Namespace) -> int:
    for name, most in _MOST.items():
        if not 1 <= getattr(args, name) <= most:
            raise InputError(f"--{name} {getattr(args, name)}; expected 1 to {most}")
    if args.seconds is not None and not 0 < args.seconds < 1e7:
        raise InputError(f"--seconds {args.seconds:g}; expected a positive number")
    if not 0 <= args.seed < 1 << 31:
        raise InputError(f"--seed {args.seed}; expected 0 to {(1 << 31) - 1}")
    from bench.machine import machine
    from bench.schema import SCHEMA, write_result
    from zoo.convnext.checkpoint import save
    from zoo.convnext.loop import Plan, train_row

    device, data = device_of(args), data_of(args)
    if len(data.train) < args.batch:
        raise InputError(f"--batch {args.batch} of {len(data.train)} pictures to learn from; expected at most as many")
    config = replace(SIZES[args.size], activation=args.activation, classes=data.classes)
    args.out.mkdir(parents=True, exist_ok=True)
    output = args.output or args.out / "training.json"
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "training",
        "complete": False,
        "machine": machine(("torch", "triton", "numpy", "pillow")),
        "method": METHOD,
        "training": {
            "network": f"convnext-{config.activation}-{config.resolution}",
            "parameters": parameter_count(config),
            "flops": 2 * macs(config),
            "data": data.name,
            "device": "gpu" if device == "cuda" else "cpu",
            "batch": args.batch,
            "pictures": len(data.train),
            "validation_pictures": len(data.val),
            "rows": [],
        },
    }
    began = time.monotonic()
    left = args.seconds
    for name in args.rows:
        if args.seconds is not None:
            left = args.seconds - (time.monotonic() - began)
        plan = Plan(args.epochs, args.batch, device, args.seed, left if left is not None else float("inf"))
        model, record = train_row(name, config, data, plan, args.out / f"{name}.state.safetensors", _say)
        save(args.out / f"{name}.safetensors", model)
        row: dict[str, Any] = {"name": name, "epochs": record.epochs, "wanted_epochs": args.epochs}
        if record.compile_seconds is not None:
            row["compile_seconds"] = record.compile_seconds
        result["training"]["rows"].append(row)
        result["complete"] = len(result["training"]["rows"]) == len(args.rows)
        write_result(output, result)
    for line in table(result["training"]["rows"]):
        print(line)
    print(f"{output}: {len(args.rows)} rows on {data.name}; checkpoints in {args.out}")
    return 0


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as lines of text; of a row that the time did not reach, that it did not."""
    lines = ["row       epoch s   accuracy %   epochs"]
    for row in rows:
        done = row["epochs"]
        if done:
            seconds = sorted(epoch["seconds"] for epoch in done)[len(done) // 2]
            lines.append(f"{row['name']:8} {seconds:8.2f} {100 * done[-1]['accuracy']:12.2f} {len(done):8}")
        else:
            lines.append(f"{row['name']:8} no epoch in the time given")
    return lines


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
