"""How different one network's answers to one input are: again, from another build, and at another place in a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from accuracy.measures import relative_error
from runtime.errors import InputError
from runtime.runner import Runner

Open = Callable[[], Runner]
Progress = Callable[[str, "float | None"], None]
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """Of all answers that should be equal: how many comparisons, how many were bit for bit, and the worst of them.

    `largest` is the largest absolute difference (grey levels of pictures), `share` the largest share of values that
    differ, `relative` the largest relative error.
    """

    comparisons: int
    equal: int
    largest: float
    share: float
    relative: float


def difference(pairs: Sequence[Pair]) -> Difference:
    """The worst of pairs of arrays, each of one shape and type; NaN equals NaN. Raises InputError for no pairs."""
    if not pairs:
        raise InputError("there is nothing to compare: give at least two runs")
    largest = share = relative = 0.0
    equal = 0
    for one, other in pairs:
        if one.tobytes() == other.tobytes():
            equal += 1
            continue
        a, b = one.astype(np.float64), other.astype(np.float64)
        apart = np.abs(a - b)
        largest = max(largest, float("inf") if np.isnan(apart).any() else float(apart.max()))
        share = max(share, float((one != other).mean()))
        relative = max(relative, relative_error(other, one))
    return Difference(len(pairs), equal, largest, share, relative)


def measure(
    builds: Sequence[Open], feed: Mapping[str, np.ndarray], repeats: int, batch: int, progress: Progress
) -> dict[str, Any]:
    """Run each of `builds` on the samples of `feed` (samples first, at least one) and compare.

    `again`: each sample alone, `repeats` times in one runner. `builds`: each sample by the first and by every other
    build. `positions`: a batch of `batch` samples, turned so that each sample stands at every place, against the first
    place; `alone`: a place in that batch against the sample alone. None where a runner takes one sample only, or none
    alone. `batch` becomes as many as the runner takes. Raises InputError for fewer than two builds or repeats.
    """
    if len(builds) < 2 or repeats < 2:
        raise InputError(f"{len(builds)} builds and {repeats} repeats were given; expected at least 2 of each")
    count = len(next(iter(feed.values())))
    again: list[Pair] = []
    firsts: list[list[np.ndarray]] = []
    with builds[0]() as runner:
        smallest = max((spec.sizes(0)[0] for spec in runner.inputs if spec.shape), default=1)
        largest = min((most for spec in runner.inputs if spec.shape and (most := spec.sizes(0)[1])), default=batch)
        for sample in range(count):
            progress("the same again", sample / count)
            runs = [_run(runner, _batch(feed, [sample] * smallest)) for _ in range(repeats)]
            again += [pair for run in runs[1:] for pair in _first_rows(runs[0], run)]
            firsts.append([array[:1] for array in runs[0]])
        places = min(max(batch, smallest), largest)
        positions, alone = _positions(runner, feed, places, firsts, progress) if places > 1 else ([], [])
        alone = alone if smallest == 1 else []
    others = []
    for index, build in enumerate(builds[1:], 2):
        with build() as runner:
            for sample in range(count):
                progress(f"build {index} of {len(builds)}", sample / count)
                others += list(zip(firsts[sample], _run(runner, _batch(feed, [sample] * smallest)), strict=True))
    return {
        "samples": count,
        "repeats": repeats,
        "builds_compared": len(builds),
        "batch": places,
        "again": asdict(difference(again)),
        "builds": asdict(difference([(one, other[:1]) for one, other in others])),
        "positions": asdict(difference(positions)) if positions else None,
        "alone": asdict(difference(alone)) if alone else None,
    }


def _positions(
    runner: Runner,
    feed: Mapping[str, np.ndarray],
    places: int,
    firsts: Sequence[Sequence[np.ndarray]],
    progress: Progress,
) -> tuple[list[Pair], list[Pair]]:
    """Pairs of one sample at two places of a batch, and of one in a batch and alone."""
    count = len(firsts)
    turns = max(places, count)
    at: dict[tuple[int, int], list[np.ndarray]] = {}  # by sample and place
    for turn in range(turns):
        progress("places in a batch", turn / turns)
        order = [(turn + place) % count for place in range(places)]
        answers = _run(runner, _batch(feed, order))
        for place, sample in enumerate(order):
            at[sample, place] = [array[place : place + 1] for array in answers]
    positions = [
        pair
        for (sample, place), rows in at.items()
        if place and (sample, 0) in at
        for pair in zip(at[sample, 0], rows, strict=True)
    ]
    alone = [pair for (sample, _), rows in at.items() for pair in zip(firsts[sample], rows, strict=True)]
    return positions, alone


def _batch(feed: Mapping[str, np.ndarray], samples: Sequence[int]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array[list(samples)]) for name, array in feed.items()}


def _run(runner: Runner, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    answers = runner.infer(feed)
    return [answers[name] for name in sorted(answers)]


def _first_rows(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> list[Pair]:
    return [(a[:1], b[:1]) for a, b in zip(one, other, strict=True)]
