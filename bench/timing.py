"""Times taken in rounds: what is printed of them, and when two measurements agree."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def timing(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of the milliseconds of each round: median, p95, least and most of all of them, and the spread.

    The spread is how far the medians of the rounds lie apart, from `low` to `high`. Rounds of all peers are taken in
    turn, so that it holds what changes during a run (clocks, heat, neighbours), which the scatter inside one round does
    not show.

    Raises ValueError where there is no time at all.
    """
    medians = [statistics.median(each) for each in rounds if each]
    times = sorted(ms for each in rounds for ms in each)
    if not times:
        raise ValueError("no times were taken")
    return {
        "median": _rounded(statistics.median(times)),
        "p95": _rounded(times[min(len(times) - 1, int(len(times) * 0.95))]),
        "least": _rounded(times[0]),
        "most": _rounded(times[-1]),
        "low": _rounded(min(medians)),
        "high": _rounded(max(medians)),
        "spread": _rounded(max(medians) - min(medians)),
        "count": len(times),
        "rounds": len(medians),
    }


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median, least, p95 and most of milliseconds that were taken in one go. Raises IndexError where there are none."""
    ordered = sorted(times)
    return {
        "median": round(statistics.median(ordered), 4),
        "least": round(ordered[0], 4),
        "p95": round(ordered[int(len(ordered) * 0.95)], 4),
        "most": round(ordered[-1], 4),
    }


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two timings are the same within their spreads: their medians differ by no more than both together."""
    return bool(abs(one["median"] - other["median"]) <= one["spread"] + other["spread"])


def wall_ms(work: Callable[[int], object], repeats: int) -> list[float]:
    """Milliseconds of `work(0)`, `work(1)` and so on, each."""
    times = []
    for index in range(repeats):
        began = time.perf_counter()
        work(index)
        times.append((time.perf_counter() - began) * 1000)
    return times


def _rounded(ms: float) -> float:
    # Five digits: more than any clock here resolves, and files stay readable.
    return float(f"{ms:.5g}")
