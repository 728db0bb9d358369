"""Variants, what of them is worth measuring, and the problems that no kernel covers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.variants import (
    TARGETS,
    Sm90Variant,
    TritonVariant,
    candidates,
    check_problem,
    variant_from_json,
    variant_to_json,
)
from tests.engines.kernels.problems import problems

PROBLEM = AttentionProblem("fp16", 20, 64, 256, 256, 0.125, (1, 4, 8))
TRITON = {"kind": "triton", "block_m": 64, "block_n": 64, "warps": 4, "stages": 2, "splits": 1, "prepare": False}
SM90 = variant_to_json(Sm90Variant(2, 128, 2, turns=True))
# Fields that came later, and what their kernels had before.
LATER = {"resident": 1, "overlap": False, "ahead": False, "sharers": 1, "turners": 1}


@given(problems(), st.sampled_from(TARGETS), st.integers(1, 200))
def test_candidates_are_different_and_of_their_gpu(problem, target, multiprocessors):
    found = list(candidates(problem, target, multiprocessors))
    assert len(set(found)) == len(found)
    hopper = target == "9.0" and problem.head_size in (64, 128)
    assert {type(variant) for variant in found} == ({TritonVariant, Sm90Variant} if hopper else {TritonVariant})
    for variant in found:
        assert variant_from_json(variant_to_json(variant)) == variant
        if not (problem.qk_norm is not None or problem.rope):
            assert not variant.prepare


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (TritonVariant(64, 128, 4, 2), "triton 64x128, 4 warps, 2 stages"),
        (TritonVariant(32, 64, 4, 3, 2, True), "triton 32x64, 4 warps, 3 stages, 2 splits, prepared"),
        (Sm90Variant(1, 64, 2, False), "sm90 64x64, 2 stages"),
        (
            Sm90Variant(3, 80, 2, True, 132, True, True),
            "sm90 192x80, 2 stages, 132 blocks, turns, even parts, prepared",
        ),
        (Sm90Variant(2, 48, 2, False, resident=2, overlap=True), "sm90 128x48, 2 stages, 2 resident, overlap"),
        (Sm90Variant(1, 64, 2, False, sharers=2), "sm90 64x64, 2 stages, keys shared"),
        (Sm90Variant(2, 64, 4, False, turners=2), "sm90 128x64, 4 stages, keys turned together"),
        (
            Sm90Variant(2, 128, 3, True, 132, overlap=True, ahead=True),
            "sm90 128x128, 3 stages, 132 blocks, turns, overlap, ahead",
        ),
    ],
)
def test_a_variant_in_words(variant, words):
    assert str(variant) == words


@pytest.mark.parametrize(
    "content",
    [
        {},
        {**TRITON, "kind": "cuda"},
        {**TRITON, "warp": 4},
        {name: value for name, value in TRITON.items() if name != "prepare"},
        {**TRITON, "warps": "4"},
        {**TRITON, "warps": 4.0},
        {**TRITON, "stages": True},
        {**TRITON, "prepare": 1},
        {**TRITON, "block_m": 0},
        {**TRITON, "block_m": 48},
        {**TRITON, "block_n": 1 << 20},
        {**TRITON, "warps": 3},
        {**TRITON, "stages": 0},
        {**TRITON, "splits": -1},
        {**SM90, "groups": 0},
        {**SM90, "groups": 4},
        {**SM90, "block_n": 72},
        {**SM90, "stages": 17},
        {**SM90, "blocks": -1},
        {**SM90, "parts": True},
        {**SM90, "ahead": True},
        {**SM90, "overlap": 1},
        {**SM90, "overlap": True, "stages": 1},
        {**SM90, "resident": 0},
        {**SM90, "sharers": 3},
        {**SM90, "sharers": 2, "blocks": 132},
        {**SM90, "turners": 2, "prepare": True},
        {**SM90, "turners": 2, "sharers": 2},
        {**SM90, "resident": 3},
        {**SM90, "groups": 1, "resident": 5},
        {**SM90, "groups": 3, "resident": 2},
        {name: value for name, value in SM90.items() if name != "prepare"},
    ],
)
def test_what_is_no_variant(content):
    with pytest.raises(ValueError, match=r"is no kernel variant|^a variant's .* is -?\d+, expected"):
        variant_from_json(content)


def test_a_variant_of_an_older_table():
    """One block a multiprocessor, nothing overlapped: what its kernel was."""
    older = {name: value for name, value in SM90.items() if name not in set(LATER)}
    assert variant_from_json(older) == Sm90Variant(2, 128, 2, turns=True, **LATER)
    assert variant_to_json(variant_from_json(older)) == SM90


def test_blocks_share_a_multiprocessor_where_rows_of_keys_are_short_and_tiles_many():
    def shared(batch, tokens, size=64):
        problem = replace(PROBLEM, head_size=size, queries=tokens, keys=tokens, batch=(batch, batch, batch))
        return {v for v in candidates(problem, "9.0", 132) if isinstance(v, Sm90Variant) and v.resident > 1}

    assert shared(4, 1024) and shared(4, 1024, 128)
    assert not shared(1, 256) and not shared(4, 4096, 128) and not shared(1, 8192)
    for variant in shared(4, 1024):
        assert variant.blocks in (0, 132 * variant.resident) and not variant.parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp32"}, "fused kernels are of FP16 and BF16, not fp32"),
        ({"head_size": 24}, "head size 24 is not a multiple of 8 from 32 to 128"),
        ({"head_size": 33}, "head size 33 is not a multiple of 8 from 32 to 128"),
        ({"head_size": 136}, "head size 136 is not a multiple of 8 from 32 to 128"),
        ({"scale": -0.125}, "scale -0.125 is not positive"),
        ({"scale": 0.0}, "scale 0.0 is not positive"),
        ({"scale": float("nan")}, "scale nan is not positive"),
        ({"scale": float("inf")}, "scale inf is not positive, or no number that FP32 holds"),
        ({"scale": 1e39}, "scale 1e+39 is not positive, or no number that FP32 holds"),
        ({"qk_norm": -1e-6}, "epsilon -1e-06 of the QK-norm is negative"),
        ({"qk_norm": float("nan")}, "epsilon nan of the QK-norm"),
        ({"heads": 65536, "queries": 1, "keys": 1}, "65536 heads or batch 8 are more than 65535"),
        ({"batch": (1, 1, 65536)}, "20 heads or batch 65536 are more than 65535"),
        ({"queries": 1 << 20, "keys": 1 << 20}, "1048576 tokens of 20 heads are too many for one index"),
        ({"queries": 0, "keys": 0}, "0 queries, 0 keys"),
        ({"heads": 0}, "0 heads"),
        ({"batch": (0, 1, 2)}, "batch (0, 1, 2): each is at least 1"),
        ({"batch": (1, 8, 4)}, "batch (1, 8, 4): each is at least 1, and the batch in order"),
    ],
)
def test_problems_that_no_kernel_covers(changes, message):
    with pytest.raises(Unsupported) as refused:
        check_problem(replace(PROBLEM, **changes))
    assert message in str(refused.value)


@pytest.mark.parametrize("changes", [{}, {"head_size": 32}, {"head_size": 128}, {"precision": "bf16", "qk_norm": 0.0}])
def test_problems_that_are_covered(changes):
    check_problem(replace(PROBLEM, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"layout": "rows"}, {"output": "packed"}, {"keys": 77}, {"layout": "heads", "keys": 77, "rope": True}],
)
def test_what_is_no_problem(changes):
    with pytest.raises(ValueError):
        replace(PROBLEM, **changes)
