"""`python -m bench.timeline_table FILE.json`: where the time of a block's linear launches goes, as a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

_PHASES = ("begin to first tile", "kernel before ended to first tile", "multiply", "finish")
HEAD = f"| checkpoint | block us | clock GHz | layer | thread blocks | began late | {' | '.join(_PHASES)} |"


def table(path: Path) -> str:
    """One line a layer, microseconds of each phase."""
    lines = [HEAD, "|" + " --- |" * (HEAD.count(" | ") + 1)]
    for block in json.loads(path.read_text("utf-8"))["blocks"]:
        for layer in block["layers"]:
            cells = [block["checkpoint"], f"{block['us']:.1f}", f"{block['clock_ghz']:.2f}", layer["layer"]]
            cells += [layer["thread_blocks"], f"{100 * layer['late']:.0f} %"]
            cells += [f"{layer['us'][phase]:.1f}" for phase in _PHASES]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
