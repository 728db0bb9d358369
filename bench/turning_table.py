"""`python -m bench.turning_table RESULTS.json`: what `bench.turning` wrote, as a Markdown table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.turning_case import IN_ATTENTION, IN_LAYER, PLAIN

HEAD = (
    "| tokens | heads | batch | precision | QKV layer and attention µs | both in the QKV layer µs | "
    "both in attention µs |"
)


def table(path: Path) -> str:
    """One line a case, in the order of the file."""
    lines = [HEAD, "|" + " --- |" * HEAD.count(" |")]
    for row in json.loads(path.read_text("utf-8"))["rows"]:
        cells = [row["tokens"], f"{row['heads']}x{row['head_size']}", row["batch"], row["precision"]]
        cells.append(f"{row['us'][PLAIN]:.1f}")
        cells += [
            f"{row['us'][form]:.1f} ({100 * (row['ratio'][form] - 1):+.0f} %)" for form in (IN_LAYER, IN_ATTENTION)
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
