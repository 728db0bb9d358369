"""How far a network's outputs are from the reference's, by the metric that fits what it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from runtime.errors import InputError
from runtime.metrics import psnr


def scores(metric: str, got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> list[float]:
    """One score a sample, higher is better; with several outputs the worst of them counts.

    Metrics: `psnr` in dB over uint8 images (`inf` when equal), `cosine` in -1..1 over all of a sample's values,
    `top1` 1 or 0 for the same largest entry, `top5` the share of the reference's five largest entries that are among
    the five largest (of all, where there are fewer); of equal entries the first counts as larger. Embeddings take
    `cosine`; logits `top1` and `top5`, or `cosine`, which is sharper. Not-a-number anywhere scores -inf. Raises
    InputError for an unknown metric, missing outputs or shapes that differ.
    """
    if metric not in METRICS:
        raise InputError(f"metric '{metric}' is not one of {', '.join(METRICS)}")
    missing = [name for name in expected if name not in got]
    if missing or not expected:
        raise InputError(
            f"outputs {', '.join(missing) or '(none expected)'} are missing; there are {', '.join(got) or 'none'}"
        )
    each = []
    for name, reference in expected.items():
        if got[name].shape != reference.shape:
            raise InputError(
                f"output '{name}' has shape {list(got[name].shape)}, the reference {list(reference.shape)}"
            )
        each.append([_score(metric, one, other) for one, other in zip(got[name], reference, strict=True)])
    return [min(sample) for sample in zip(*each, strict=True)]


def _score(metric: str, got: np.ndarray, expected: np.ndarray) -> float:
    if got.dtype.kind not in "iub" and not np.isfinite(got.astype(np.float32)).all():
        return float("-inf")
    return METRICS[metric](got, expected)


def _cosine(got: np.ndarray, expected: np.ndarray) -> float:
    a, b = got.astype(np.float64).reshape(-1), expected.astype(np.float64).reshape(-1)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    if lengths == 0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(a @ b) / lengths


def _top1(got: np.ndarray, expected: np.ndarray) -> float:
    return float(got.reshape(-1).argmax() == expected.reshape(-1).argmax())


def _top5(got: np.ndarray, expected: np.ndarray) -> float:
    count = min(5, expected.size)
    # Sorted the wrong way round and stably, so that of equal entries the first comes first, as argmax has it.
    best = [set(np.argsort(-array.reshape(-1).astype(np.float64), kind="stable")[:count]) for array in (got, expected)]
    return len(best[0] & best[1]) / count


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "psnr": psnr,
    "cosine": _cosine,
    "top1": _top1,
    "top5": _top5,
}
