"""`python -m bench.attention_table RESULTS.json ...`: what `bench.attention` wrote, as a Markdown table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OURS, TURNED = "plugin", "plugin, QK-norm and RoPE"
HEAD = (
    "| tokens | heads | batch | precision | plugin µs | TFLOP/s | best peer µs | which | plugin is faster by | "
    "with QK-norm and RoPE µs |"
)


def table(paths: Sequence[Path]) -> str:
    """One line a case, in the order of the files; of a case that is in several, the last one's."""
    lines = [HEAD, "|" + " --- |" * HEAD.count(" |")]
    return "\n".join([*lines, *(_line(row) for row in rows(paths))])


def rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Every case once, the last measurement of it."""
    cases: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in paths:
        for row in json.loads(path.read_text("utf-8"))["rows"]:
            cases[tuple(row[name] for name in ("precision", "tokens", "heads", "head_size", "batch"))] = row
    return list(cases.values())


def _line(row: dict[str, Any]) -> str:
    us = row["us"]
    peers = {name: value for name, value in us.items() if name not in (OURS, TURNED)}
    best = min(peers, key=lambda name: peers[name])
    cells = [
        row["tokens"],
        f"{row['heads']}x{row['head_size']}",
        row["batch"],
        row["precision"],
        f"{us[OURS]:.1f}",
        f"{row['tflops'][OURS]:.0f}",
        f"{peers[best]:.1f}",
        best,
        f"{100 * (peers[best] / us[OURS] - 1):+.0f} %",
        f"{us[TURNED]:.1f} ({100 * (us[TURNED] / us[OURS] - 1):+.0f} %)",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
