"""Times and checks launch plans of one attention problem on the GPU at hand: CUDA graphs, random data, medians."""

from __future__ import annotations

import contextlib
import statistics

import ml_dtypes
import numpy as np

from engines.kernels.driver import LoadedPlan, bind, bytes_of
from engines.kernels.launch import LaunchPlan
from engines.kernels.problem import AttentionProblem
from engines.kernels.sizes import evaluate
from runtime import cuda

NUMPY = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16), "fp32": np.dtype(np.float32)}
_SETS = 3
_ROWS = 48
_GRAPH_MS = 1.0


class Measured:
    """One problem's data on the GPU: `_SETS` sets of inputs that launches take in turn, so that no run finds its own
    inputs in the nearest cache.

    `plan` is any plan of the problem; all have the same inputs and outputs. Close it, or use it in a `with` block.
    """

    def __init__(self, problem: AttentionProblem, plan: LaunchPlan, batch: int, seed: int = 0):
        self.problem, self.batch = problem, batch
        self._stack = contextlib.ExitStack()
        rng = np.random.default_rng(seed)
        shapes = [[evaluate(size, {"B": batch}) for size in tensor.shape] for tensor in plan.inputs]
        self.names = bind(plan, shapes)
        self.feed = [_random(rng, t.dtype, s, i) for i, (t, s) in enumerate(zip(plan.inputs, shapes, strict=True))]
        output = plan.outputs[0]
        self._shape = [evaluate(size, self.names) for size in output.shape]
        self._dtype = output.dtype
        try:
            self.stream = self._stack.enter_context(cuda.Stream())
            self._inputs = [[self._upload(array, turn) for array in self.feed] for turn in range(_SETS)]
            self._output = self._stack.enter_context(cuda.DeviceBuffer(bytes_of(output.dtype, self._shape)))
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Free the GPU's memory."""
        self._stack.close()

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def milliseconds(self, plan: LaunchPlan, repeats: int = 20) -> tuple[float, float, float]:
        """Of one launch: median, least and most of `repeats` replays of a graph that holds about 1 ms of launches."""
        with LoadedPlan(plan) as loaded, self._workspace(loaded) as workspace:
            prepared = [
                loaded.prepare([b.address for b in inputs], [self._output.address], workspace.address, self.names)
                for inputs in self._inputs
            ]
            first, second = cuda.Event(), cuda.Event()
            with first, second:

                def run(count: int) -> None:
                    for turn in range(count):
                        prepared[turn % _SETS].launch(self.stream.address)

                def timed(graph: cuda.Graph) -> float:
                    first.record(self.stream)
                    graph.launch(self.stream)
                    second.record(self.stream)
                    second.synchronize()
                    return second.milliseconds_since(first)

                run(_SETS)
                self.stream.synchronize()
                with cuda.Graph(self.stream, lambda: run(_SETS * 2)) as graph:
                    timed(graph)
                    one = min(timed(graph) for _ in range(3)) / (_SETS * 2)
                count = max(_SETS, min(600, int(_GRAPH_MS / max(one, 1e-4)))) // _SETS * _SETS
                with cuda.Graph(self.stream, lambda: run(count)) as graph:
                    for _ in range(3):
                        timed(graph)
                    times = [timed(graph) / count for _ in range(repeats)]
        return statistics.median(times), min(times), max(times)

    def answer(self, plan: LaunchPlan) -> np.ndarray:
        """What the plan gives for `feed`; an element it did not write is NaN."""
        with LoadedPlan(plan) as loaded, self._workspace(loaded) as workspace:
            poison = np.full(self._shape, np.nan, NUMPY[self._dtype])
            cuda.upload(self._output, poison, self.stream)
            inputs = [buffer.address for buffer in self._inputs[0]]
            loaded.prepare(inputs, [self._output.address], workspace.address, self.names).launch(self.stream.address)
            with cuda.PinnedBuffer(poison.nbytes) as pinned:
                cuda.copy_to_host(pinned, self._output, poison.nbytes, self.stream)
                self.stream.synchronize()
                return pinned.view(poison.dtype, tuple(self._shape)).copy()

    def error(self, answer: np.ndarray, seed: int = 1) -> float:
        """Relative error (root of summed squares) of some rows of an answer, the last ones among them, in FP64."""
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

    def _workspace(self, loaded: LoadedPlan) -> cuda.DeviceBuffer:
        return cuda.DeviceBuffer(loaded.workspace_bytes(self.names))

    def _upload(self, array: np.ndarray, turn: int) -> cuda.DeviceBuffer:
        buffer = self._stack.enter_context(cuda.DeviceBuffer(array.nbytes))
        cuda.upload(buffer, np.roll(array, turn, axis=-1), self.stream)
        return buffer


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
