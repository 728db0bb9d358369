"""What an attention node is said to compute, and why some have no fused kernel."""

from __future__ import annotations

import pytest

from engines.attention import attention_nodes
from engines.batch import BatchProfile
from engines.fused_problem import attention_problem
from engines.kernels.problem import Unsupported
from tests.engines.graphs import graph_of


def problem_of(query="B,4,6,64", key="B,4,6,64", value="B,4,6,64", op="Attention", kind="float16", scale="0.125"):
    inputs = ", ".join(
        f"{kind}[{shape}] {name}" for name, shape in (("q", query), ("k", key), ("v", value)) if shape is not None
    )
    model = graph_of(
        f"g ({inputs}) => ({kind}[{query}] y)\n{{\ny = cat2dog.{op} <scale: float = {scale}> (q, k, v)\n}}"
    )
    return attention_problem(next(iter(model.graph)), model, BatchProfile(1, 2, 4), {"B"})


def test_sizes_scale_and_precision():
    problem = problem_of(key="B,4,9,64", value="B,4,9,64", kind="bfloat16", scale="0.3")
    assert (problem.precision, problem.heads, problem.head_size) == ("bf16", 4, 64)
    assert (problem.queries, problem.keys, problem.batch) == (6, 9, (1, 2, 4))
    assert problem.scale == pytest.approx(0.3, rel=1e-7) and (problem.layout, problem.output) == ("heads", "heads")


def test_attention_in_a_branch_has_no_fused_kernel():
    model = graph_of(
        "g (bool c, float16[B,4,6,64] q) => (float16[B,4,6,64] y)\n{\n"
        "y = If (c) <then_branch = t () => (a) {a = cat2dog.Attention <scale: float = 1.0> (q, q, q)},"
        " else_branch = e () => (b) {b = Identity (q)}>\n}"
    )
    (node,) = attention_nodes(model)
    with pytest.raises(Unsupported, match=r"^attention inside a branch or a loop has no fused kernel$"):
        attention_problem(node, model, BatchProfile(1, 2, 4), {"B"})


def every(shape):
    return dict.fromkeys(("query", "key", "value"), shape)


@pytest.mark.parametrize(
    ("first", "batch"), [("3", (3, 3, 3)), ("B", (1, 2, 4))], ids=["a number", "the graph's batch"]
)
def test_the_batch(first, batch):
    assert problem_of(**every(f"{first},4,6,64")).batch == batch


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"op": "MaskedAttention"}, "MaskedAttention has no fused kernel"),
        ({"op": "CausalAttention"}, "CausalAttention has no fused kernel"),
        ({"kind": "float"}, "attention that is not of FP16 or BF16 has no fused kernel"),
        ({"query": "B,4,N,64"}, "heads, tokens or head size are not known when the engine is built"),
        ({"value": "B,4,6,32"}, "head sizes of queries and values differ (64 and 32)"),
        ({"key": "B,2,6,64", "value": "B,2,6,64"}, "4 heads of queries, 2 of keys and 2 of values differ"),
        ({"query": "1,4,6,64"}, "batches of its inputs differ (1, B, B)"),
        (every("C,4,6,64"), "the batch is not known when the engine is built"),
    ],
)
def test_what_has_no_fused_kernel(changes, reason):
    with pytest.raises(Unsupported) as caught:
        problem_of(**changes)
    assert str(caught.value) == reason
