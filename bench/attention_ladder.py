"""`python -m bench.attention_ladder RESULTS.json`: what each step of the kernels brought, as a Markdown table.

Reads what `cat2dog tune --results` wrote: every step is a set of variants, and stands there with its fastest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Choose = Callable[[str], bool]

# What later forms have in their names.
_LATER = ("overlap", "ahead", "resident")


def _early(variant: str) -> bool:
    return not any(word in variant for word in _LATER)


STEPS: tuple[tuple[str, Choose], ...] = (
    ("Triton, 64 queries a program", lambda v: v.startswith("triton 64x")),
    ("Triton, the best", lambda v: v.startswith("triton")),
    ("wgmma and TMA, 128 queries, no turns", lambda v: v.startswith("sm90 128x") and "turns" not in v and _early(v)),
    ("warp groups take turns at the tensor cores", lambda v: v.startswith("sm90 128x") and _plain(v)),
    ("192 queries a block as well", lambda v: v.startswith("sm90") and _plain(v)),
    (
        "one block a multiprocessor does tile after tile",
        lambda v: v.startswith("sm90") and "even parts" not in v and _early(v),
    ),
    ("the work cut evenly over the blocks", lambda v: v.startswith("sm90") and _early(v)),
)
# Stand in the table of results that have them.
LATER_STEPS: tuple[tuple[str, Choose], ...] = (
    ("the whole softmax beside the product with the values", lambda v: _without(v, "ahead", "resident")),
    ("the next tile loaded while one ends", lambda v: _without(v, "resident")),
    ("several blocks a multiprocessor", lambda v: _without(v)),
)
CASES = ((20, 64, 1), (14, 128, 1), (20, 64, 4), (14, 128, 4))


def _plain(variant: str) -> bool:
    return "blocks" not in variant and _early(variant)


def _without(variant: str, *words: str) -> bool:
    return variant.startswith("sm90") and not any(word in variant for word in words)


def table(path: Path, tokens: int = 4096) -> str:
    """Microseconds of one launch at `tokens` tokens, FP16; each step includes those before it of its kind."""
    problems = [p for p in json.loads(path.read_text("utf-8"))["problems"] if p["problem"]["queries"] == tokens]
    head = " | ".join(f"{heads}x{size}, batch {batch}" for heads, size, batch in CASES)
    lines = [f"| {tokens} tokens, FP16, µs | {head} |", "|" + " --- |" * (len(CASES) + 1)]
    said = " ".join(timing["variant"] for problem in problems for timing in problem["timings"])
    steps = [*STEPS, *(step for step, word in zip(LATER_STEPS, _LATER, strict=True) if word in said)]
    for name, choose in steps:
        cells = [_fastest(problems, case, choose) for case in CASES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _fastest(problems: list[dict[str, Any]], case: tuple[int, int, int], choose: Choose) -> str:
    wanted = dict(zip(("heads", "head_size", "batch"), case, strict=True))
    (problem,) = [p for p in problems if all(p["problem"][name] == value for name, value in wanted.items())]
    return f"{min(timing['us'] for timing in problem['timings'] if choose(timing['variant'])):.1f}"


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
