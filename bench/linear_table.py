"""`python -m bench.linear_table RESULTS.json`: of `cat2dog tune --results`, each linear layer's fastest kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEAD = "| tokens | layer | us | TFLOP/s | relative error | kernel |"


def table(path: Path) -> str:
    """One line a layer, in the order of the file."""
    lines = [HEAD, "|" + " --- |" * HEAD.count(" |")]
    for row in json.loads(path.read_text("utf-8"))["problems"]:
        key, best = row["problem"], row["timings"][0]
        before = f"{key['norm']} norm, " if key["norm"] else ""
        after = [key["activation"], "QK-norm" * key["qk_norm"], "RoPE" * key["rope"], key["residual"] and "residual"]
        layer = ", ".join([f"{before}{key['inner']} to {key['columns']}", *(part for part in after if part)])
        cells = [
            key["rows"],
            layer,
            f"{best['us']:.1f}",
            f"{best['tflops']:.0f}",
            f"{best['error']:.1e}",
            best["variant"],
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
