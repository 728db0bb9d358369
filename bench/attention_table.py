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
    """One line a case, in the order of the files."""
    lines = [HEAD, "|" + " --- |" * HEAD.count(" |")]
    for path in paths:
        lines += [_line(row) for row in json.loads(path.read_text("utf-8"))["rows"]]
    return "\n".join(lines)


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
