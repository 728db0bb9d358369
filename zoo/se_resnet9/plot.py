"""`python -m zoo.se_resnet9.plot`: bars of a result of `zoo.se_resnet9.bench`, for inference and for training.

Writes `X_inference.svg` and `X_training_step.svg` for `--result X.json`, or into `--output FOLDER`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report.svg import COLOURS, Bar, bars
from bench.schema import read_result
from runtime.errors import InputError
from runtime.files import write_text
from zoo.command import Parser, run
from zoo.se_resnet9.cases import GOALS


def drawings(result: dict[str, Any]) -> dict[str, str]:
    """SVG text of each part that has times. Raises InputError where none has."""
    found = {}
    for what, (name, goal) in GOALS.items():
        rows = [peer for peer in result["peers"] if peer["name"].startswith(f"{what}: ") and peer["latency"]]
        if not rows:
            continue
        compared = [peer["latency"][0]["ms"]["median"] for peer in rows if peer["name"] == f"{what}: {name}"]
        items = [_bar(peer, compared[0] if compared else None, name) for peer in rows]
        line = (f"{goal:g} times as fast as {name}", compared[0] / goal) if compared else None
        found[what] = bars(items, "ms", line)
    if not found:
        raise InputError("no way of this result has a time: measure with `python -m zoo.se_resnet9.bench` on a GPU")
    return found


def _bar(peer: dict[str, Any], compared: float | None, name: str) -> Bar:
    short = peer["name"].partition(": ")[2]
    ms = peer["latency"][0]["ms"]
    ours = short.startswith(("fast", "folded"))
    colour = COLOURS["onnxruntime" if ours else "tensorrt" if short.startswith("engine") else "torch"]
    note = f" ({compared / ms['median']:.2f}x)" if compared and short != name else ""
    return Bar(short, ms["median"], colour, ms["low"], ms["high"], note)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw."""
    prog = "python -m zoo.se_resnet9.plot"
    parser = Parser(prog, "Bars of a result.", f"{prog} --result bench/results/zoo/se_resnet9.json")
    parser.add_argument("--result", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="(default: beside the result)")

    def work(args: argparse.Namespace) -> int:
        for what, text in drawings(read_result(args.result)).items():
            path = (args.output or args.result.parent) / f"{args.result.stem}_{what.replace(' ', '_')}.svg"
            write_text(path, text)
            print(path)
        return 0

    return run(parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
