"""How far queries and keys are followed back where types, shapes or readers are not as usual."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engines.batch import BatchProfile
from engines.fused_attention import FusedLowering
from tests.engines.graphs import graph_of
from tests.engines.stand_ins import StandInPlanner

H, N, D = 2, 3, 32
ANGLES = np.arange(N * D // 2, dtype=np.float32).reshape(N, D // 2)
COS, SIN = (np.concatenate([table, table], 1) for table in (np.cos(ANGLES), np.sin(ANGLES)))


def rope(x, y):
    return (
        f"{y}1, {y}2 = Split <axis = -1> ({x})\n{y}n = Neg ({y}2)\n{y}t = Concat <axis = -1> ({y}n, {y}1)\n"
        f"{y}a = Mul ({x}, cos)\n{y}b = Mul ({y}t, sin)\n{y} = Add ({y}a, {y}b)\n"
    )


def norm(x, y):
    return (
        f"{y}w = Cast <to = 1> ({x})\n{y}s = Mul ({y}w, {y}w)\n{y}m = ReduceMean <axes = [-1], keepdims = 1> ({y}s)\n"
        f"{y}p = Add ({y}m, epsilon)\n{y}r = Sqrt ({y}p)\n{y}u = Div ({y}w, {y}r)\n{y} = Mul ({y}u, gain)\n"
    )


def lowered(body, q, k=f"B,{H},{N},{D}", kind="float16", outputs=(f"float16[B,{H},{N},{D}] y",)):
    """The problem that was asked for, what was said, and the model."""
    given = {"cos": COS.astype("f2"), "sin": SIN.astype("f2"), "gain": np.ones(D, "f4"), "epsilon": np.float32(1e-5)}
    inputs = f"{kind}[{q}] q, {kind}[{k}] k, float16[B,{H},{N},{D}] v"
    attend = "y = cat2dog.Attention <scale: float = 1.0> (qq, kk, v)"
    model = graph_of(f"g ({inputs}) => ({', '.join(outputs)})\n{{\n{body}{attend}\n}}", **given)
    (node,) = (node for node in model.graph if node.op_type == "Attention")
    node.outputs[0].type, node.outputs[0].shape = node.inputs[2].type, node.inputs[2].shape
    planner = StandInPlanner()
    done = FusedLowering(planner, BatchProfile(1, 1, 2), {"B"}).lower(node, model)
    return planner.asked[0], done.why, model


def test_a_table_that_stretches_one_token_is_not_folded():
    problem, why, model = lowered(rope("q", "qq") + rope("k", "kk"), f"B,{H},1,{D}", f"B,{H},1,{D}")
    assert (problem.rope, problem.queries, problem.layout) == (False, N, "heads")
    assert why.endswith("not folded: what is computed from other types or shapes than FP16 of all tokens")
    assert [node.op_type for node in model.graph][-1] == "FusedAttention" and "cos" in model.graph.initializers


@pytest.mark.parametrize("folded", [False, True])
def test_a_norm_of_what_was_never_of_the_precision_is_not_folded(folded):
    """FP32 queries that are rounded after the norm, and such as were rounded before it."""
    kind = "float16" if folded else "float"
    body = norm("q", "qw") + norm("k", "kw") + "qq = Cast <to = 10> (qw)\nkk = Cast <to = 10> (kw)\n"
    problem, why, _ = lowered(body, f"B,{H},{N},{D}", kind=kind)
    assert (problem.qk_norm is not None) == folded
    assert ("other types or shapes" in why) != folded


def test_a_rope_whose_norm_cannot_be_folded_is_folded():
    body = norm("q", "qw") + norm("k", "kw") + "qr = Cast <to = 10> (qw)\nkr = Cast <to = 10> (kw)\n"
    problem, why, _ = lowered(body + rope("qr", "qq") + rope("kr", "kk"), f"B,{H},{N},{D}", kind="float")
    assert problem.rope and problem.qk_norm is None
    assert "folded: heads to heads, RoPE; not folded: what is computed from" in why


def test_what_is_also_an_output_stays():
    """The turned queries are read by the caller too: they are computed for him, and again in the kernel."""
    outputs = (f"float16[B,{H},{N},{D}] y", f"float16[B,{H},{N},{D}] qq")
    problem, _, model = lowered(rope("q", "qq") + rope("k", "kk"), f"B,{H},{N},{D}", outputs=outputs)
    assert problem.rope and [value.name for value in model.graph.outputs] == ["y", "qq"]
    (fused,) = (node for node in model.graph if node.op_type == "FusedAttention")
    assert [value.name for value in fused.inputs[:3]] == ["q", "k", "v"]
    assert len([node for node in model.graph if node.op_type == "Neg"]) == 1
    assert all(value.dtype == ir.DataType.FLOAT for value in fused.inputs[3:])
