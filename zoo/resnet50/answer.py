"""What the network answers, as a person reads it: two classes with percent, mean and variance of the embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import ToolchainError

OUTPUTS = {"logits": (1000,), "embedding": (2048,), "statistics": (2,)}


@dataclass(frozen=True)
class Answer:
    """Of one picture: the two likeliest classes and their percent, mean and unbiased variance of its embedding."""

    classes: tuple[int, int]
    percent: tuple[float, float]
    mean: float
    variance: float

    def lines(self, number: int, labels: Sequence[str]) -> tuple[str, str]:
        """The two lines about picture `number`, counted from 1."""
        first, second = (f"{p:.2f}% a {labels[index]}" for p, index in zip(self.percent, self.classes, strict=True))
        return (
            f"mean: {self.mean:.6f} variance: {self.variance:.6f} of image #{number}",
            f"image #{number} is {first} and {second}",
        )


def answer_of(outputs: Mapping[str, np.ndarray]) -> Answer:
    """The answer of the first sample. Raises ToolchainError where a value is not finite."""
    logits, statistics = (np.asarray(outputs[name][0], np.float64) for name in ("logits", "statistics"))
    if not (np.isfinite(logits).all() and np.isfinite(statistics).all()):
        raise ToolchainError("the network answered with values that are not finite: build it again in fp32 or bf16")
    # Of equal ones the lower class first.
    first, second = np.argsort(-logits, kind="stable")[:2]
    weights = np.exp(logits - logits[first])
    percent = 100 * weights / weights.sum()
    return Answer(
        (int(first), int(second)),
        (float(percent[first]), float(percent[second])),
        float(statistics[0]),
        float(statistics[1]),
    )


def margin(outputs: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """By how much the first logit is ahead of the second, and the second of the third."""
    best = -np.sort(-np.asarray(outputs["logits"][0], np.float64))[:3]
    return float(best[0] - best[1]), float(best[1] - best[2])
