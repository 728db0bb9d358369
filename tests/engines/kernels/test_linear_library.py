"""From a GPU to the kernels of its linear layers, with a stand-in table and compiler."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.kernels import images, library
from engines.kernels.linear_key import LinearKey
from engines.kernels.linear_library import linear_planner
from engines.kernels.linear_problem import LinearProblem, Turning
from engines.kernels.linear_variants import LinearVariant, linear_candidates
from engines.kernels.problem import Unsupported
from engines.kernels.tables import Entry, Table, Timing

QKV = LinearProblem("fp16", 256, 128, 384, norm="layer", epsilon=1e-6, turning=Turning(2, 64, 1e-6, True))
VARIANT = LinearVariant(1, 1, 64, 3)


@pytest.fixture
def plan(kept, compilers, monkeypatch, tmp_path):
    """The planner of an H100 that was tuned for QKV alone; first with a variant of heads that do not fit."""
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(library, "SHIPPED", shipped)
    timings = (Timing(VARIANT, 8.0, 7.0, 9.0, ("00",), 1e-4),)
    versions = images.compiler_versions()
    entries = (Entry(LinearKey.of(QKV), timings),)
    Table("NVIDIA H100", "9.0", 132, "580", versions, "today", "cat2dog tune", entries).write(shipped / "h100.json")
    return linear_planner("9.0", "NVIDIA H100")


def test_a_measured_problem_gets_its_variant_and_time(plan):
    kernel = plan(QKV)
    assert (kernel.variant, kernel.why, kernel.milliseconds) == (str(VARIANT), "tuned on NVIDIA H100", 0.008)


@pytest.mark.parametrize("less", [{"norm": None, "epsilon": 0.0}, {"turning": None}, {"bias": False}])
def test_the_same_product_with_less_folded_in_takes_the_same_variant(plan, less):
    kernel = plan(replace(QKV, **less))
    assert kernel.variant == str(VARIANT) and kernel.milliseconds is None
    assert kernel.why == f"tuned on NVIDIA H100; nearest measured problem: {LinearKey.of(QKV)}"


@pytest.mark.parametrize("other", [{"rows": 512}, {"inner": 256}, {"precision": "bf16"}, {"batch": (2, 2, 2)}])
def test_another_product_is_estimated(plan, other):
    problem = replace(QKV, **other)
    assert plan(problem).why == "never measured: the estimated fastest"
    # Not in a form that no table has yet.
    assert plan(problem).variant == str(replace(next(linear_candidates(problem, "9.0", 132)), brief=False))


def test_a_variant_that_does_not_fit_is_passed_over(plan):
    # 64 columns of a group do not hold a head of 128.
    problem = replace(QKV, turning=Turning(1, 128, 1e-6, True))
    assert plan(problem).variant != str(VARIANT)


def test_other_gpus_have_none(kept):
    with pytest.raises(Unsupported, match=r"compute capability 9\.0 alone, not 8\.9$"):
        linear_planner("8.9", "NVIDIA RTX 4090")
