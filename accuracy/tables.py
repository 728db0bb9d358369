"""What the README shows of this room's results, made of the files themselves: `python -m accuracy.tables`.

.venv/bin/python -m accuracy.tables            # print them
.venv/bin/python -m accuracy.tables --write    # put them into README.md
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.files import write_text

RESULTS = Path("bench/results/accuracy")
_MARK = "<!-- {name} -->\n{body}<!-- end of {name} -->"


def search_table(results: Path) -> str:
    """A row for no islands, what was found, the default policy and everything in FP32, of each search."""
    lines = [
        "| checkpoint | precision | policy | islands | nodes in FP32 | PSNR dB | time (estimate) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(results.glob("search_*/search.json")):
        facts = _read(path)
        for row in facts["trade"]:
            if row["what"].startswith("with "):
                continue
            what = f"found, asked for {facts['wished']:g} dB" if row["what"] == "found" else row["what"]
            cells = (
                *(facts["name"], facts["precision"], what, row["islands"], row["fp32_nodes"]),
                *(f"{float(row['score']):.1f}", f"{row['relative_time_estimated']:.2f}"),
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def quantization_table(results: Path) -> str:
    """Worst and mean PSNR by mode, calibrator and what is quantized, of each checkpoint; FP16 and BF16 beside them."""
    parts = []
    for path in sorted(results.glob("quantization_*.json")):
        facts = _read(path)
        rows = {row["scheme"]: row for row in facts["rows"]}
        half = ", ".join(f"{name.upper()} {_pair(rows[name])}" for name in ("fp16", "bf16"))
        kinds = list(dict.fromkeys(name.rpartition("-")[2] for name in rows if "-" in name))
        parts += [
            f"| {facts['model']} ({half}) | {' | '.join(kinds)} |",
            f"| --- |{' --- |' * len(kinds)}",
        ]
        for stem in dict.fromkeys(name.rpartition("-")[0] for name in rows if "-" in name):
            mode, _, calibrator = stem.partition("-")
            cells = [_pair(rows[f"{stem}-{kind}"]) for kind in kinds]
            parts.append(f"| {mode.upper()}, {calibrator} | {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def determinism_figures(results: Path) -> str:
    """A sentence for each runner and checkpoint."""
    said = []
    for path in sorted(results.glob("determinism_*/determinism.json")):
        facts = _read(path)
        kinds = {
            "again": "again",
            "builds": "from another build",
            "positions": "at another place in a batch",
            "alone": "in a batch and alone",
        }
        words = []
        for name, text in kinds.items():
            each = facts[name]
            if each is not None:
                same = each["equal"] == each["comparisons"]
                words.append(f"{text} {'the same bits' if same else _apart(each)}")
        said.append(f"- {facts['name']} {facts['precision']}, {facts['what']}: {'; '.join(words)}.")
    return "\n".join(said) + "\n"


def _apart(each: dict[str, Any]) -> str:
    return f"up to {each['largest']:g} apart, {each['equal']} of {each['comparisons']} equal"


def _pair(row: dict[str, Any]) -> str:
    return f"{row['psnr_db_min']:.1f} / {row['psnr_db_mean']:.1f}"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


MAKERS: dict[str, Callable[[Path], str]] = {
    "search table": search_table,
    "quantization table": quantization_table,
    "determinism figures": determinism_figures,
}


def filled(readme: str, results: Path) -> str:
    """The README's text with each part between its marks made anew."""
    for name, make in MAKERS.items():
        pattern = re.compile(_MARK.format(name=name, body=".*?"), re.DOTALL)
        readme = pattern.sub(_MARK.format(name=name, body=make(results)).replace("\\", r"\\"), readme)
    return readme


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m accuracy.tables", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put them into README.md")
    if parser.parse_args().write:
        readme = Path("README.md")
        write_text(readme, filled(readme.read_text("utf-8"), RESULTS))
    else:
        print("\n".join(make(RESULTS) for make in MAKERS.values()), end="")


if __name__ == "__main__":
    main()
