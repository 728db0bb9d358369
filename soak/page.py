"""`python -m soak.page`: `RELIABILITY.md`, its figures from the result files."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.files import write_text
from soak.result import FOLDER

TEMPLATE = Path(__file__).with_name("page_template.md")
PAGE = FOLDER.parents[2] / "RELIABILITY.md"


def page(template: str, folder: Path = FOLDER) -> str:
    """The template with each `{{file.json a/b | format}}` replaced by what the file says there.

    Raises KeyError for a figure that is in no file.
    """
    return re.sub(r"\{\{(.+?)\}\}", lambda match: _figure(match[1], folder), template)


def _figure(expression: str, folder: Path) -> str:
    where, _, form = (part.strip() for part in expression.partition("|"))
    if where.startswith("table "):
        return _TABLES[where.removeprefix("table ")](folder)
    name, _, way = where.partition(" ")
    value: Any = json.loads((folder / name).read_text("utf-8"))
    for part in filter(None, way.split("/")):
        value = value[part]
    scale = {"MB": 1e-6, "minutes": 1 / 60, "millions": 1e-6}.get(form)
    if scale is not None:
        return f"{value * scale:.1f}"
    return format(value, form) if form else f"{value:,}" if isinstance(value, int) else str(value)


def _matrix(folder: Path) -> str:
    rows = json.loads((folder / "matrix.json").read_text("utf-8"))["rows"]
    lines = ["| row | Python | became | versions |", "| --- | --- | --- | --- |"]
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row.get("versions", {}).items() if name != "onnx")
        became = row["status"] if row["status"] == "passed" else f"{row['status']}: {row['reason']}"
        absent = f"; not there: {', '.join(row['not_there'])}" if row.get("not_there") else ""
        lines.append(f"| {row['row']} | {row['python']} | {became}: {row.get('did', '')}{absent} | {versions} |")
    return "\n".join(lines)


def _fuzz(folder: Path) -> str:
    rows = json.loads((folder / "fuzz.json").read_text("utf-8"))["rows"]
    lines = ["| parser | CPU s | inputs | kept |", "| --- | --- | --- | --- |"]
    lines += [f"| {row['target']} | {row['cpu_seconds']:.0f} | {row['inputs']:,} | {row['kept']} |" for row in rows]
    return "\n".join(lines)


_TABLES = {"matrix": _matrix, "fuzz": _fuzz}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m soak.page", description="RELIABILITY.md from the results.")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args(arguments)
    write_text(args.output, page(TEMPLATE.read_text("utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
