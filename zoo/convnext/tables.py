"""`python -m zoo.convnext.tables`: the tables of the README anew, of the result files in bench/results/zoo."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.schema import read_result
from runtime.files import write_text

README = Path(__file__).with_name("README.md")
RESULTS = Path(__file__).resolve().parents[2] / "bench/results/zoo"


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with its tables made of `convnext*.json` under `results`."""
    files = [read_result(path) for path in sorted(results.glob("convnext*.json"))]
    training = [file for file in files if file["kind"] == "training"]
    networks = [file for file in files if file["kind"] == "network"]
    for name, lines in (("training", _training(training)), ("bench", _bench(networks))):
        found = re.search(rf"(<!-- {name} table -->\n)(.*?)<!-- end of table -->", text, re.DOTALL)
        if found is not None:
            text = text[: found.start(2)] + "".join(f"{line}\n" for line in lines) + text[found.end(2) :]
    return text


def _training(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["| where | network, data | row | epoch s (median) | compiling s | right % | epochs |", "| --- " * 7 + "|"]
    for result in results:
        told = result["training"]
        what = f"{told['network']}, batch {told['batch']}, {told['data']}"
        for row in told["rows"]:
            if not row["epochs"]:
                continue
            seconds = statistics.median(epoch["seconds"] for epoch in row["epochs"])
            compiling = f"{row['compile_seconds']:.0f}" if "compile_seconds" in row else ""
            right = 100 * row["epochs"][-1]["accuracy"]
            cells = (_place(result), what, row["name"], f"{seconds:.2f}", compiling, f"{right:.1f}", len(row["epochs"]))
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _bench(results: Sequence[dict[str, Any]]) -> list[str]:
    sizes = sorted({row["batch"] for result in results for peer in result["peers"] for row in peer["latency"]})
    head = ["where", "form", *(f"batch {size}, ms" for size in sizes), "right %", "as FP32 %"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for result in results:
        for peer in result["peers"]:
            if not peer["latency"] and "accuracy" not in peer:
                continue
            times = {row["batch"]: f"{row['ms']['median']:.4g}" for row in peer["latency"]}
            told = peer.get("accuracy")
            judged = [f"{100 * told['right']:.1f}", f"{100 * told['agree']:.1f}"] if told else ["", ""]
            cells = [_place(result), peer["name"], *(times.get(size, "") for size in sizes), *judged]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _place(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return str(machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores")


def main() -> int:
    """Write the README anew."""
    write_text(README, filled(README.read_text("utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
