"""The fewest FP32 islands that reach a wished score, by measurement: add the worst, then take away what is not needed.

First each family of modules is made narrow alone, everything else FP32: that is its own share of the error. From no
islands on, families become islands in that order until the score is reached. Then each is tried without, the least
important first; and of what stays, half the blocks, and half of those. At the end no family can be left out. Only
measured scores decide; nothing assumes that errors add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from export.families import Family
from export.policy import Island

# What a policy of these islands scores on the worst sample; higher is better.
Measure = Callable[[Sequence[Island]], float]
Progress = Callable[[str, "float | None"], None]


@dataclass(frozen=True)
class Step:
    """One measured policy on the way: what was tried, its islands, its worst score."""

    what: str
    islands: tuple[Island, ...]
    score: float


@dataclass(frozen=True)
class Found:
    """Islands that reach the wished score, or `reached` is False and they are all there are; the way there.

    `alone` is what each family scores with only itself narrow, worst first.
    """

    islands: tuple[Island, ...]
    score: float
    reached: bool
    alone: dict[str, float]
    steps: list[Step] = field(default_factory=list)


def search(families: Sequence[Family], measure: Measure, wished: float, progress: Progress) -> Found:
    """Find the fewest islands among `families` with a worst score of at least `wished`.

    Takes about twice as many measurements as there are families. Equal sets of islands are measured once.
    """
    tried = _Tried(measure, progress, expected=2 * len(families) + 4)
    base = tried.step("no islands", ())
    if base >= wished:
        return Found((), base, True, {}, tried.steps)
    everything = _whole(families)
    if (best := tried.step("every module an island", everything)) < wished:
        return Found(everything, best, False, {}, tried.steps)
    alone = {
        family.pattern: tried.score(f"only {family.pattern} narrow", _whole(f for f in families if f is not family))
        for family in families
    }
    order = sorted(families, key=lambda family: alone[family.pattern])
    chosen: list[Family] = []
    for family in order:
        chosen.append(family)
        if tried.step(f"with {family.pattern}", _whole(chosen)) >= wished:
            break
    for family in reversed(chosen[:-1]):  # without the last one it was not enough, or it would not have been added
        rest = [each for each in chosen if each is not family]
        if tried.step(f"without {family.pattern}", _whole(rest)) >= wished:
            chosen = rest
    members = {family.pattern: family.members for family in chosen}
    for family in chosen:
        _fewer_blocks(family, members, chosen, tried, wished)
    islands = _islands(chosen, members)
    score = tried.score("found", islands)
    explained = tuple(island for family in chosen for island in _explained(family, chosen, members, tried))
    return Found(explained, score, True, dict(sorted(alone.items(), key=lambda entry: entry[1])), tried.steps)


class _Tried:
    """Measures each set of islands once, and keeps the steps."""

    def __init__(self, measure: Measure, progress: Progress, expected: int):
        self.measure, self.progress, self.expected = measure, progress, expected
        self.scores: dict[frozenset[str], float] = {}
        self.steps: list[Step] = []

    def score(self, what: str, islands: Sequence[Island]) -> float:
        key = frozenset(island.module for island in islands)
        if key not in self.scores:
            done = len(self.scores)
            self.progress(f"measuring: {what}", done / max(self.expected, done + 1))
            self.scores[key] = self.measure(islands)
        return self.scores[key]

    def step(self, what: str, islands: Sequence[Island]) -> float:
        score = self.score(what, islands)
        self.steps.append(Step(what, tuple(islands), score))
        return score


def _whole(families: Iterable[Family]) -> tuple[Island, ...]:
    return tuple(family.island("measured") for family in families)


def _islands(chosen: Sequence[Family], members: dict[str, tuple[str, ...]]) -> tuple[Island, ...]:
    """One island for a family that is whole, else one for each block of it that stays."""
    islands: list[Island] = []
    for family in chosen:
        if members[family.pattern] == family.members:
            islands.append(family.island("measured"))
        else:
            islands += [Island("measured", module=path) for path in members[family.pattern]]
    return tuple(islands)


def _fewer_blocks(
    family: Family, members: dict[str, tuple[str, ...]], chosen: Sequence[Family], tried: _Tried, wished: float
) -> None:
    """Keep only half of the family's blocks where so many in a row will do, then a half of that, and so on.

    Less is not tried: an island for each of 24 of 25 blocks would be more to read and save nothing.
    """
    while len(kept := members[family.pattern]) > 1:
        size = len(kept) // 2
        for start in range(0, len(kept), size):
            start = min(start, len(kept) - size)
            window = kept[start : start + size]
            what = f"{family.pattern} in {size} of {len(family.members)}"
            if tried.step(what, _islands(chosen, {**members, family.pattern: window})) >= wished:
                members[family.pattern] = window
                break
        else:
            return


def _explained(
    family: Family, chosen: Sequence[Family], members: dict[str, tuple[str, ...]], tried: _Tried
) -> list[Island]:
    """The islands of one family, with what the score is without them as their reason."""
    rest = [each for each in chosen if each is not family]
    without = tried.score(f"without {family.pattern}", _islands(rest, members))
    why = f"measured: {without:.4g} without it"
    return [Island(why, module=island.module) for island in _islands([family], members)]
