"""`python -m bench.compare ONE.json OTHER.json`: do two runs of the bench agree within their printed spreads?

Exit code 0 where every latency that both have agrees, 1 where one does not: then something changed, or the machine was
busy with other work, which shows as wide spreads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.schema import read_result
from bench.tables import markdown, number
from bench.timing import agree
from runtime.errors import InputError, ToolchainError

HEAD = ("what", "one, ms", "other, ms", "other is", "agree")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for every latency of both."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description=(__doc__ or "").split("\n\n")[0].partition(": ")[2],
        epilog="example: python -m bench.compare build/bench/before.json build/bench/after.json",
    )
    parser.add_argument("one")
    parser.add_argument("other")
    args = parser.parse_args(arguments)
    try:
        one, other = read_result(args.one), read_result(args.other)
        rows = compare(one, other)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for label, result in (("one", one), ("other", other)):
        print(f"{label}: {_whence(result['machine'])}")
    print(f"\n{markdown(HEAD, rows)}")
    differ = sum(row[-1] == "no" for row in rows)
    print(f"\n{len(rows) - differ} of {len(rows)} agree within the sum of both spreads")
    return 1 if differ else 0


def _whence(machine: Mapping[str, Any]) -> str:
    """Where and when a result was measured, and by what command."""
    where = [machine["gpu"], f"driver {machine['driver']}"] if machine.get("gpu") else [machine["cpu"], "no GPU"]
    return f"{', '.join(map(str, where))}; {machine['date']}; `{machine['command']}`"


def compare(one: dict[str, Any], other: dict[str, Any]) -> list[list[str]]:
    """A row for each latency that both results have. Raises InputError where they have none in common."""
    first, second = dict(_timings(one)), dict(_timings(other))
    rows = []
    for name in (name for name in first if name in second):
        a, b = first[name], second[name]
        cells = [f"{number(ms['median'])} ± {number(ms['spread'])}" for ms in (a, b)]
        change = 100 * (b["median"] / a["median"] - 1) if a["median"] else 0.0
        rows.append([name, *cells, f"{change:+.1f} %", "yes" if agree(a, b) else "no"])
    if not rows:
        raise InputError("these two results have no latency in common: compare runs of one checkpoint, or of codecs")
    return rows


def _timings(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for peer in result.get("peers", ()):
        for row in peer["latency"]:
            yield f"{peer['name']}, {row['level']}, batch {row['batch']}", row["ms"]
    for row in result.get("codecs", ()):
        if "ms" in row:
            yield f"{row['step']}, {row['pixels']} px, {row['library']} {row['settings']}".strip(), row["ms"]


if __name__ == "__main__":
    sys.exit(main())
