"""Times and checks launch plans of one fused linear layer on the GPU at hand."""

from __future__ import annotations

import math

import numpy as np

from engines.kernels.driver import bind
from engines.kernels.launch import LaunchPlan
from engines.kernels.linear_problem import LinearProblem, Turning
from engines.kernels.timing import NUMPY, Feeds

# Weights are read once by an engine's pass: in the measurement, too, none may still lie in the L2 from the last time.
# Everything else the layers before have just written, or read.
_WEIGHTS = 1
_MORE_THAN_CACHE = 160 << 20
_MOST_SETS = 64
_ROWS = 24
_RUNS = (10, 8, 7, 6, 4, 2, 1)


class MeasuredLinear(Feeds):
    """One layer's data on the GPU: x normal, weights such that the product is, too. `plan` is any plan of it."""

    def __init__(self, problem: LinearProblem, plan: LaunchPlan, batch: int, seed: int = 0):
        self.problem, self.batch = problem, batch
        feed = random_feed(problem, batch, seed)
        sets = min(_MOST_SETS, max(3, math.ceil(_MORE_THAN_CACHE / feed[_WEIGHTS].nbytes)))
        warm = [index for index in range(len(feed)) if index != _WEIGHTS]
        super().__init__(feed, bind(plan, [array.shape for array in feed]), sets, warm)

    def error(self, answers: list[np.ndarray], seed: int = 1) -> float:
        """The larger relative error (root of summed squares) of y and of the statistics, of some rows, in FP64."""
        rng = np.random.default_rng(seed)
        p = self.problem
        rows = sorted({p.rows - 1, 0, *(int(row) for row in rng.integers(p.rows, size=_ROWS))})
        worst = 0.0
        for sample in {0, self.batch - 1}:
            expected = reference_rows(p, self.feed, sample, rows)
            pairs = [(answers[0][sample, rows], expected)]
            if p.statistics:
                got = answers[1][sample, rows]
                pairs.append((got[..., 0], run_statistics(expected, got.shape[1])[..., 0]))
                pairs.append((got[..., 1], run_statistics(expected, got.shape[1])[..., 1]))
            for got, wanted in pairs:
                wrong, right = np.square(got.astype(np.float64) - wanted).sum(), np.square(wanted).sum()
                worst = max(worst, float((wrong / right) ** 0.5))
                if not math.isfinite(float(wrong)):
                    return math.inf
        return worst


def random_feed(problem: LinearProblem, batch: int, seed: int = 0) -> list[np.ndarray]:
    """Inputs in the order of `LinearProblem`; what belongs together (statistics, row sums) fits together."""
    p, rng = problem, np.random.default_rng(seed)
    half = NUMPY[p.precision]
    x = (rng.standard_normal((batch, p.rows, p.inner), np.float32) + (0.3 if p.norm else 0.0)).astype(half)
    weights = (rng.standard_normal((p.columns, p.inner), np.float32) / np.float32(math.sqrt(p.inner))).astype(half)
    feed: list[np.ndarray] = [x, weights]
    if p.norm:
        runs = next(runs for runs in _RUNS if p.inner % runs == 0)
        feed.append(run_statistics(x.astype(np.float64), runs).astype(np.float32))
    if p.norm == "layer":
        feed.append(weights.astype(np.float64).sum(1).astype(np.float32))
    if p.bias:
        feed.append(rng.standard_normal(p.columns, np.float32))
    if p.turning is not None and p.turning.qk_norm is not None:
        feed += [rng.uniform(0.5, 1.5, p.turning.head_size).astype(np.float32) for _ in range(2)]
    if p.turning is not None and p.turning.rope:
        angles = rng.uniform(0, 6.28, (p.rows, p.turning.head_size // 2))
        feed += [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]
    if p.residual:
        shape = (p.rows, p.columns) if p.residual == "shared" else (batch, p.rows, p.columns)
        feed.append(rng.standard_normal(shape, np.float32).astype(half))
    return feed


def run_statistics(x: np.ndarray, runs: int) -> np.ndarray:
    """`[..., channels]` to `[..., runs, 2]`: each run's mean and sum of squared distances from it."""
    parts = x.reshape(*x.shape[:-1], runs, -1)
    mean = parts.mean(-1)
    return np.stack([mean, np.square(parts - mean[..., None]).sum(-1)], -1)


def reference_rows(problem: LinearProblem, feed: list[np.ndarray], sample: int, rows: list[int]) -> np.ndarray:
    """`[len(rows), width]` FP64: some rows of one sample's output, by the definition in `LinearProblem`."""
    p = problem
    wide = [array.astype(np.float64) for array in feed[1:]]
    x, weights, rest = feed[0][sample, rows].astype(np.float64), wide[0], wide[1:]
    if p.norm:
        rest = rest[1:]
    if p.norm == "layer":
        x, rest = x - x.mean(-1, keepdims=True), rest[1:]
    if p.norm:
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + p.epsilon)
    y = x @ weights.T
    if p.bias:
        y, rest = y + rest[0], rest[1:]
    if p.turning is not None:
        y, rest = _turned(p.turning, y, rest, rows)
    if p.activation == "swiglu":
        gate, up = y[:, 0::2], y[:, 1::2]
        return gate / (1 + np.exp(-gate)) * up
    if p.activation == "gelu":
        y = 0.5 * y * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    if p.activation == "gelu_tanh":
        y = 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    if p.residual:
        y = y + (rest[0][rows] if p.residual == "shared" else rest[0][sample, rows])
    return y


def _turned(
    turning: Turning, y: np.ndarray, rest: list[np.ndarray], rows: list[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    heads = y.reshape(len(rows), 3, turning.heads, turning.head_size).copy()
    if turning.qk_norm is not None:
        for part in range(2):
            root = np.sqrt(np.square(heads[:, part]).mean(-1, keepdims=True) + turning.qk_norm)
            heads[:, part] = heads[:, part] / root * rest[part]
        rest = rest[2:]
    if turning.rope:
        cos, sin = (table[rows][:, None, None, :] for table in rest[:2])
        first, second = np.split(heads[:, :2], 2, axis=-1)
        heads[:, :2] = np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
        rest = rest[2:]
    return heads.reshape(len(rows), -1), rest
