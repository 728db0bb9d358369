"""Each kind of output by its metric: pictures, embeddings, logits; what cannot be judged is said."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from runtime.errors import InputError
from runtime.judge import METRICS, scores

LOGITS = np.array([[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]], np.float32)


def score(metric, got, expected):
    (each,) = scores(metric, {"y": np.asarray(got)}, {"y": np.asarray(expected)})
    return each


@pytest.mark.parametrize(
    ("order", "top1", "top5"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 1.0, 1.0),
        ([0, 4, 3, 2, 1, 9, 8, 7, 6, 5], 1.0, 1.0),  # the same five in another order
        ([1, 0, 2, 3, 4, 5, 6, 7, 8, 9], 0.0, 1.0),
        ([0, 1, 2, 3, 5, 4, 6, 7, 8, 9], 1.0, 0.8),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], 0.0, 0.0),
    ],
)
def test_top_k_agreement(order, top1, top5):
    got = np.empty_like(LOGITS)
    got[0, order] = LOGITS[0]
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        assert score("top1", got.astype(dtype), LOGITS) == top1
        assert score("top5", got.astype(dtype), LOGITS) == top5


def test_equal_logits_and_few_classes():
    assert score("top5", np.zeros((1, 10), np.float32), np.zeros((1, 10), np.float32)) == 1.0
    assert score("top5", np.zeros((1, 10), np.float32), LOGITS[:, ::-1]) == 0.0  # the first five against the last
    assert score("top5", LOGITS[:, :3], LOGITS[:, 2::-1]) == 1.0
    many = np.random.default_rng(0).standard_normal((1, 1000)).astype(np.float32)
    assert score("top5", many.astype(np.float16), many) == 1.0
    assert score("top5", many + 0.5 * many[:, ::-1], many) < 1.0


def test_cosine_is_of_direction():
    x = np.array([[3.0, 4.0]])
    assert score("cosine", 7 * x, x) == pytest.approx(1) and score("cosine", -x, x) == pytest.approx(-1)
    assert score("cosine", [[4.0, -3.0]], x) == pytest.approx(0)
    assert score("cosine", [[0.0, 0.0]], x) == 0 and score("cosine", [[0.0, 0.0]], [[0.0, 0.0]]) == 1


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "psnr"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_agrees_with_nothing(metric, bad):
    got = LOGITS.copy()
    got[0, 7] = bad
    assert score(metric, got, LOGITS) == -math.inf


def test_one_score_a_sample_and_the_worst_output_counts():
    got = {"a": np.stack([LOGITS[0], LOGITS[0, ::-1]]), "b": np.stack([LOGITS[0], LOGITS[0]])}
    expected = {name: np.stack([LOGITS[0], LOGITS[0]]) for name in got}
    assert scores("top5", got, expected) == [1.0, 0.0]


def test_what_cannot_be_judged():
    with pytest.raises(InputError, match="metric 'top3' is not one of psnr, cosine, top1, top5"):
        score("top3", LOGITS, LOGITS)
    with pytest.raises(InputError, match="outputs z are missing; there are y"):
        scores("top5", {"y": LOGITS}, {"z": LOGITS})
    with pytest.raises(InputError, match=r"output 'y' has shape \[1, 3\], the reference \[1, 10\]"):
        score("top5", LOGITS[:, :3], LOGITS)
