"""Times and checks launch plans of one attention problem on the GPU at hand: CUDA graphs, random data, medians."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.kernels.driver import bind
from engines.kernels.launch import LaunchPlan
from engines.kernels.problem import AttentionProblem
from engines.kernels.sizes import evaluate
from engines.kernels.timing import NUMPY, Feeds

_SETS = 3
_ROWS = 48


class Measured(Feeds):
    """One problem's data on the GPU. `plan` is any plan of the problem; all have the same inputs and outputs."""

    def __init__(self, problem: AttentionProblem, plan: LaunchPlan, batch: int, seed: int = 0):
        self.problem, self.batch = problem, batch
        rng = np.random.default_rng(seed)
        shapes = [[evaluate(size, {"B": batch}) for size in tensor.shape] for tensor in plan.inputs]
        feed = [_random(rng, t.dtype, s, i) for i, (t, s) in enumerate(zip(plan.inputs, shapes, strict=True))]
        super().__init__(feed, bind(plan, shapes), _SETS)

    def error(self, answers: Sequence[np.ndarray], seed: int = 1) -> float:
        """Relative error (root of summed squares) of some rows of an answer, the last ones among them, in FP64."""
        (answer,) = answers
        rng = np.random.default_rng(seed)
        p = self.problem
        wrong = right = 0.0
        for index in range(_ROWS):
            batch, head = int(rng.integers(self.batch)), int(rng.integers(p.heads))
            row = p.queries - 1 - index if index < 2 and index < p.queries else int(rng.integers(p.queries))
            expected = reference_row(p, self.feed, batch, head, row)
            got = _row(p, answer, batch, head, row)
            wrong += float(np.square(got - expected).sum())
            right += float(np.square(expected).sum())
        return (wrong / right) ** 0.5


def reference_row(problem: AttentionProblem, feed: list[np.ndarray], batch: int, head: int, row: int) -> np.ndarray:
    """`[head_size]` FP64: one row of one head's output, by the definition in `problem`."""
    p = problem
    q, k, v = (_head(p, feed, part, batch, head) for part in range(3))
    extra = [array.astype(np.float64) for array in feed[1 if p.layout == "packed" else 3 :]]
    q = q[row : row + 1]
    if p.qk_norm is not None:
        q, k = _normed(q, extra[0], p.qk_norm), _normed(k, extra[1], p.qk_norm)
        extra = extra[2:]
    if p.rope:
        q, k = _roped(q, extra[0][row : row + 1], extra[1][row : row + 1]), _roped(k, extra[0], extra[1])
    if p.qk_norm is not None or p.rope:  # what the tensor cores are given is rounded
        q, k = (x.astype(NUMPY[p.precision]).astype(np.float64) for x in (q, k))
    logits = (q @ k.T)[0] * p.scale
    weights = np.exp(logits - logits.max())
    return weights @ v / weights.sum()


def _head(p: AttentionProblem, feed: list[np.ndarray], part: int, batch: int, head: int) -> np.ndarray:
    size = p.head_size
    if p.layout == "heads":
        return feed[part][batch, head].astype(np.float64)
    if p.layout == "tokens":
        return feed[part][batch][:, head * size : (head + 1) * size].astype(np.float64)
    start = (part * p.heads + head) * size
    return feed[0][batch][:, start : start + size].astype(np.float64)


def _row(p: AttentionProblem, answer: np.ndarray, batch: int, head: int, row: int) -> np.ndarray:
    if p.output == "heads":
        return answer[batch, head, row].astype(np.float64)
    return answer[batch, row, head * p.head_size : (head + 1) * p.head_size].astype(np.float64)


def _normed(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * gain


def _roped(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    half = x.shape[-1] // 2
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], 1)


def _random(rng: np.random.Generator, dtype: str, shape: list[int], index: int) -> np.ndarray:
    """Tokens are normal; gains lie around 1; tables are cosines and sines of one set of angles."""
    if dtype != "fp32":
        return rng.standard_normal(shape, np.float32).astype(NUMPY[dtype])
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    angles = np.random.default_rng(7).uniform(0, 6.28, shape)
    return (np.cos(angles) if index % 2 else np.sin(angles)).astype(np.float32)
