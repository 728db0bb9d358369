"""Validation inputs with the reference's answers, and the accuracy gate that judges a runner by them.

Needs numpy only: the gate of an engine runs under the flavor's own Python.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.files import atomic_path
from runtime.judge import scores
from runtime.manifest import Gate
from runtime.npz import read_npz
from runtime.runner import Runner

_INPUT, _OUTPUT, _ABOUT = "input.", "output.", "about"
_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class Validation:
    """Validation inputs, the reference's outputs and the bar: `metric` of `runtime.judge` at least `threshold`.

    `against` says what made the reference.
    """

    feed: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    metric: str
    threshold: float
    against: str

    def __post_init__(self) -> None:
        counts = {len(array) for array in (*self.feed.values(), *self.expected.values())}
        if len(counts) != 1 or 0 in counts:
            raise InputError(f"validation inputs and outputs have different or no samples: {sorted(counts)}")

    @property
    def samples(self) -> int:
        """How many inputs there are."""
        return len(next(iter(self.feed.values())))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as `.npz`, whole or not at all."""
        arrays: dict[str, Any] = {_INPUT + name: array for name, array in self.feed.items()}
        arrays.update({_OUTPUT + name: array for name, array in self.expected.items()})
        arrays[_ABOUT] = np.array([self.metric, str(self.threshold), self.against])
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Validation:
        """Read what `save` wrote; nothing is unpickled. Raises InputError for anything else."""
        try:
            arrays = read_npz(path, _MOST_BYTES)
            metric, threshold, against = (str(part) for part in arrays[_ABOUT])
            feed = {name[len(_INPUT) :]: array for name, array in arrays.items() if name.startswith(_INPUT)}
            expected = {name[len(_OUTPUT) :]: array for name, array in arrays.items() if name.startswith(_OUTPUT)}
            return cls(feed, expected, metric, float(threshold), against)
        except (ValueError, KeyError, TypeError, MemoryError) as error:
            raise InputError(f"{Path(path)} is no validation file ({' '.join(str(error).split())[:200]})") from error


def gate(runner: Runner, validation: Validation, batch: int = 1) -> Gate:
    """Run every sample through `runner`, at most `batch` at a time, and judge it. The state is `passed` or `failed`."""
    got = answers(runner, validation, batch)
    each = scores(validation.metric, got, validation.expected)
    state = "passed" if min(each) >= validation.threshold else "failed"
    return Gate(state, validation.metric, validation.threshold, validation.against, scores=tuple(each))


def answers(runner: Runner, validation: Validation, batch: int) -> dict[str, np.ndarray]:
    """What a runner that takes exactly or at most `batch` samples says to each; the last batch is padded."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in validation.expected}
    fixed = any(spec.shape and spec.shape[0] == batch for spec in runner.inputs)
    for start in range(0, validation.samples, batch):
        part = {name: array[start : start + batch] for name, array in validation.feed.items()}
        count = len(next(iter(part.values())))
        if fixed and count < batch:
            part = {n: np.concatenate([a, np.repeat(a[-1:], batch - count, axis=0)]) for n, a in part.items()}
        answer = runner.infer(part)
        for name in rows:
            rows[name].append(answer[name][:count])
    return {name: np.concatenate(parts) for name, parts in rows.items()}
