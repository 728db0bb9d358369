"""`python -m bench.report.writeup`: WRITEUP.md and the README's table, every figure taken from a result file.

In the template, `{{FILE | PATH | FORMAT}}` is a figure: FILE under `bench/results`, PATH of keys, numbers and
`key=value&key=value` (the first entry of a list that has them), parted by slashes, FORMAT as in Python.
`{{FILE | PATH ÷ PATH | FORMAT}}` is a ratio. `{{checkpoints}}` and `{{engines}}` are tables.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import engine_table
from bench.report.found import FOLDER, Result, find_engine_files, find_results, of_kind
from bench.tables import latency, markdown, number, psnr_text, startup_text
from runtime.errors import InputError, ToolchainError
from runtime.files import write_text

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = Path(__file__).with_name("writeup_template.md")
_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_MARKS = re.compile(r"(<!-- checkpoint table -->\n).*?(\n?<!-- end of table -->)", re.DOTALL)
_LINE = 120
HEAD = (
    "checkpoint", "where", "what runs it", "start-up s", "runtime ms", "picture ms", "TFLOP/s", "MFU %",
    "PSNR dB mean (worst)",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.report.writeup",
        description=(__doc__ or "").split("\n\n")[0].partition(": ")[2],
        epilog="example: python -m bench.report.writeup",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "WRITEUP.md", help="default: WRITEUP.md")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="default: README.md")
    args = parser.parse_args(arguments)
    try:
        write_text(args.output, writeup(TEMPLATE.read_text("utf-8")))
        write_text(args.readme, with_table(args.readme.read_text("utf-8")))
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{args.output}, and the table in {args.readme}")
    return 0


def with_table(text: str, results: Path = FOLDER) -> str:
    """A page with the table of checkpoints between its marks. Raises InputError where they are not there."""
    table = checkpoint_table(of_kind(find_results(results), "peers"))
    made, count = _MARKS.subn(lambda found: f"{found[1]}{table}{found[2]}", text)
    if count != 1:
        raise InputError("expected '<!-- checkpoint table -->' and '<!-- end of table -->' once, each on its line")
    return made


def writeup(template: str, results: Path = FOLDER) -> str:
    """The template with its figures. Raises InputError, naming the expression, for one that no result file has."""
    filled = _EXPRESSION.sub(lambda found: _value(found[1].strip(), results), template)
    return "\n\n".join(map(_wrapped, filled.strip().split("\n\n"))) + "\n"


def _wrapped(block: str) -> str:
    """Figures are shorter than what stood for them: prose is filled to the line again."""
    if block.startswith(("|", "#")):
        return block
    return textwrap.fill(" ".join(block.split()), _LINE, break_long_words=False, break_on_hyphens=False)


def _value(expression: str, results: Path) -> str:
    if expression == "checkpoints":
        return checkpoint_table(of_kind(find_results(results), "peers"))
    if expression == "engines":
        return engine_table.table(find_engine_files(results))
    try:
        file, path, form = (part.strip() for part in expression.split("|"))
        content = json.loads((results / file).read_text("utf-8"))
        values = [float(_found(content, each.strip())) for each in path.split("÷")]
        return format(values[0] / values[1] if len(values) == 2 else values[0], form)
    except (OSError, ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise InputError(f"{{{{{expression}}}}} is not in the results: {type(error).__name__} {error}") from error


def _found(content: Any, path: str) -> Any:
    for part in path.split("/"):
        if isinstance(content, list):
            wanted = dict(each.split("=", 1) for each in part.split("&")) if "=" in part else {}
            content = next(each for each in content if _is(each, wanted)) if wanted else content[int(part)]
        else:
            content = content[part]
    return content


def _is(entry: dict[str, Any], wanted: dict[str, str]) -> bool:
    return all(str(entry[name]) == value for name, value in wanted.items())


def checkpoint_table(results: Sequence[Result]) -> str:
    """A line for each result: the fastest engine of it, or what ran fastest where no engine did; GPUs first."""
    rows = []
    for result in sorted(results, key=lambda result: result.content["machine"]["gpu"] is None):
        peers = [peer for peer in result.content["peers"] if latency(peer, "host", 1)]
        engines = [peer for peer in peers if peer["name"].startswith("tensorrt") or "engine" in peer]
        for peer in sorted(engines or peers, key=lambda each: latency(each, "network", 1)["ms"]["median"])[:1]:  # type: ignore[index]
            network = latency(peer, "network", 1) or {}
            times = [_ms(latency(peer, level, 1)) for level in ("host", "picture")]
            subject = f"{result.content['subject']['checkpoint']} {peer['precision']}"
            cells = [subject, result.place, peer["name"], startup_text(peer), *times]
            rows.append([*cells, number(network.get("tflops")), number(network.get("mfu_percent")), psnr_text(peer)])
    return markdown(HEAD, rows)


def _ms(row: dict[str, Any] | None) -> str:
    return "-" if row is None else number(row["ms"]["median"])


if __name__ == "__main__":
    sys.exit(main())
