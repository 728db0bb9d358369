"""`python -m bench.report`: every result file, as one page to look at. `--help` tells where from and where to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report.codecs_section import codecs_section
from bench.report.document import Block, Heading, Paragraph
from bench.report.found import FOLDER, find_engine_files, find_results, of_kind
from bench.report.growth_section import growth_section
from bench.report.ladder_section import ladder_section
from bench.report.layers_section import layers_section
from bench.report.peers_section import peers_section
from bench.report.render import html, markdown_files
from runtime.errors import InputError, ToolchainError
from runtime.files import write_bytes, write_text

TITLE = "cat2dog, measured"
OUTPUT = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Write `index.html`, and `report.md` with its figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.report",
        description=(__doc__ or "").split(": ")[1].split(".")[0] + ".",
        epilog="example: python -m bench.report --results build/bench --output build/report",
    )
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of result files (default: bench/results)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the report (default: bench/report)")
    args = parser.parse_args(arguments)
    try:
        blocks = report(args.results)
        write_report(blocks, args.output)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{args.output / 'index.html'} and report.md, of {args.results}")
    return 0


def report(results: Path) -> list[Block]:
    """All sections. Raises InputError where there is no result, or one is damaged."""
    found, engine_files = find_results(results), find_engine_files(results)
    if not found and not engine_files:
        raise InputError(f"no result file is in {results}: measure with `cat2dog bench --output {results}/NAME.json`")
    # What a GPU did comes first.
    ordered = sorted(found, key=lambda result: result.content["machine"]["gpu"] is None)
    blocks: list[Block] = [Heading(TITLE, 1), Paragraph(_ABOUT)]
    for result in of_kind(ordered, "peers"):
        blocks += peers_section(result)
    for result in of_kind(ordered, "ladder"):
        blocks += ladder_section(result)
    for result in of_kind(ordered, "codecs"):
        blocks += codecs_section(result)
    blocks += growth_section([*of_kind(ordered, "peers"), *of_kind(ordered, "growth")])
    blocks += layers_section(of_kind(ordered, "peers"), engine_files)
    return blocks


_ABOUT = (
    "Every figure here is in a result file, which names its machine, versions, date and command. Peers of one table "
    "were measured in one run, in turns; two tables may be of different machines, which their titles name."
)


def write_report(blocks: Sequence[Block], output: Path) -> None:
    """Both forms into one folder; figures that are shown no more are removed from it."""
    write_text(output / "index.html", html(TITLE, blocks))
    files = markdown_files(blocks)
    for name, data in files.items():
        write_bytes(output / name, data)
    for path in (output / "figures").glob("*"):
        if f"figures/{path.name}" not in files and path.suffix in (".svg", ".jpg", ".png"):
            path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
