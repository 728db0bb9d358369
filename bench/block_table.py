"""`python -m bench.block_table [TABLE.json]`: kernels of a block's linear layers, the fastest alone and the taken."""

from __future__ import annotations

import sys
from pathlib import Path

from engines.kernels.linear_key import LinearKey
from engines.kernels.tables import SHIPPED, read_table

HEAD = "| tokens | block us | layer | alone us | fastest alone | us of the one taken | taken in the block |"


def table(path: Path) -> str:
    """One line a layer that was measured in its block, in the order of the table."""
    lines = [HEAD, "|" + " --- |" * (HEAD.count(" | ") + 1)]
    for entry in read_table(path).entries:
        if entry.in_block is None or not isinstance(entry.key, LinearKey):
            continue
        best, taken = entry.timings[0], entry.in_block.timing
        layer = f"{entry.key.inner} to {entry.key.columns}"
        cells = [entry.key.rows, f"{entry.in_block.block[0]:.1f}", layer, f"{best.median:.1f}", best.variant]
        cells += [f"{taken.median:.1f}", "the same" if taken.variant == best.variant else taken.variant]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED / "sm90_nvidia-h200.json"))
