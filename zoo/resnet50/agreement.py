"""Do two runs name the same classes, wherever the network is sure enough for that to be asked?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """Counts of pictures: with the same crop, the same two classes in order, the same first one.

    `tolerance` is twice the most that a margin (first logit less second, second less third) moved where the classes are
    the same. A picture is `decided` where both margins of the first run are more than that; `violations` are decided
    ones with other classes.
    """

    pictures: int
    same_crops: int
    same_top1: int
    same_top2: int
    decided: int
    violations: int
    tolerance: float
    most_percent: float

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def agreement(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Agreement:
    """Compare the rows of `python -m zoo.resnet50 --json`, of the same pictures. Raises ValueError for others."""
    if [row["image"] for row in first] != [row["image"] for row in second] or not first:
        raise ValueError("the rows are not of the same pictures")
    pairs = list(zip(first, second, strict=True))
    same = [(a, b) for a, b in pairs if a["classes"] == b["classes"]]
    moved = [abs(x - y) for a, b in same for x, y in zip(a["margins"], b["margins"], strict=True)]
    tolerance = 2 * max(moved, default=0.0)
    decided = [(a, b) for a, b in pairs if min(a["margins"]) > tolerance]
    percents = [abs(x - y) for a, b in same for x, y in zip(a["percent"], b["percent"], strict=True)]
    return Agreement(
        pictures=len(pairs),
        same_crops=sum(a["crop_sha256"] == b["crop_sha256"] for a, b in pairs),
        same_top1=sum(a["classes"][0] == b["classes"][0] for a, b in pairs),
        same_top2=len(same),
        decided=len(decided),
        violations=sum(a["classes"] != b["classes"] for a, b in decided),
        tolerance=tolerance,
        most_percent=max(percents, default=0.0),
    )
