"""Attention problems that hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

from engines.kernels.problem import AttentionProblem

LENGTHS = st.one_of(st.integers(1, 400), st.sampled_from([1, 17, 256, 1023, 1024, 4096]))


@st.composite
def problems(draw) -> AttentionProblem:
    """Of every head size, layout, norm and batch that kernels cover."""
    queries = draw(LENGTHS)
    layout = draw(st.sampled_from(["packed", "tokens", "heads"]))
    rope = draw(st.booleans())
    keys = queries if rope or layout == "packed" else draw(st.one_of(st.just(queries), LENGTHS))
    batch = sorted(draw(st.lists(st.integers(1, 9), min_size=3, max_size=3)))
    return AttentionProblem(
        draw(st.sampled_from(["fp16", "bf16"])),
        draw(st.integers(1, 24)),
        draw(st.one_of(st.integers(4, 16).map(lambda n: 8 * n), st.sampled_from([64, 128]))),
        queries,
        keys,
        0.125,
        (batch[0], batch[1], batch[2]),
        layout,
        draw(st.sampled_from(["tokens", "heads"])),
        draw(st.sampled_from([None, 1e-6, 0.0])),
        rope,
    )
