"""`python -m bench.engine_table RESULTS.json ...`: what `bench.engine` wrote, as a Markdown table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = "| checkpoint | precision | attention | linear layers | ms (p95) | worst PSNR dB | plan MB | build s |"


def table(paths: Sequence[Path]) -> str:
    """One line an engine, in the order of the files and of the engines in each."""
    lines = [HEAD, "|" + " --- |" * HEAD.count(" |")]
    for path in paths:
        lines += [_line(row) for row in json.loads(path.read_text("utf-8"))["engines"]]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    scores = [float(score) for score in row["gate"]["scores"]]
    cells = [
        row["checkpoint"],
        row["precision"],
        row["attention"],
        row.get("options", {}).get("linear", "tensorrt"),
        f"{row['ms']['median']:.2f} ({row['ms']['p95']:.2f})",
        f"{min(scores):.1f} of {len(scores)}" if scores else row["gate"]["state"],
        f"{row['bytes'] / 1e6:.0f}",
        f"{row['build_seconds']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(table([Path(name) for name in sys.argv[1:]]))
