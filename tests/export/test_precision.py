"""The precision policy on small graphs made by hand: what becomes narrow, where casts stand, what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.opset import downgrade_to_17, torch_opset
from export.policy import Island, Policy, policy_for
from export.precision import apply_policy, drop_unused_initializers
from export.weights import fold_weight_transposes
from runtime.errors import InputError

FLOAT, HALF, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BOOL
WIDE_EXP = Policy("fp16", (Island("why", op="Exp"),))
ALL_NARROW = Policy("fp16")


def graph(nodes, outputs, weights=None, inputs=(("x", FLOAT, ["n", 4]),), opset=17):
    """A model of nodes `(op, inputs, outputs, attributes)`; every inner type is inferred."""
    made = [helper.make_node(op, ins, outs, name=outs[0], **attributes) for op, ins, outs, attributes in nodes]
    proto = helper.make_model(
        helper.make_graph(
            made, "g",
            [helper.make_tensor_value_info(*spec) for spec in inputs],
            [helper.make_tensor_value_info(*spec) for spec in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)], ir_version=8,
    )  # fmt: skip
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def finish(model):
    """The model as a proto whose declared types are those that shape inference finds."""
    drop_unused_initializers(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    declared = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    bare = onnx.ModelProto.FromString(proto.SerializeToString())
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph.value_info
    for value in inferred:
        assert declared.get(value.name) in (None, value.type.tensor_type.elem_type), value.name
    return proto


def casts(proto):
    return [(node.input[0], node.attribute[0].i) for node in proto.graph.node if node.op_type == "Cast"]


def run(proto, **feed):
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)


X = np.array([[1, -2, 3, -4]], np.float32)
Y = [("y", FLOAT, ["n", 4])]


def test_narrow_inside_wide_at_the_ends():
    model = graph([("Relu", ["x"], ["a"], {}), ("Neg", ["a"], ["y"], {})], Y)
    assert apply_policy(model, ALL_NARROW) == {"narrow": 2, "fp32": 0, "casts": 2}
    proto = finish(model)
    assert casts(proto) == [("x", HALF), ("y_fp16", FLOAT)]
    assert np.array_equal(run(proto, x=X)[0], -np.maximum(X, 0))


def test_an_output_that_is_also_used_inside():
    model = graph(
        [("Relu", ["x"], ["y"], {}), ("Exp", ["y"], ["e"], {}), ("Neg", ["y"], ["z"], {})],
        [*Y, ("e", FLOAT, ["n", 4]), ("z", FLOAT, ["n", 4])],
    )
    apply_policy(model, WIDE_EXP)
    proto = finish(model)
    assert [value.name for value in proto.graph.output] == ["y", "e", "z"]
    assert {value.type.tensor_type.elem_type for value in proto.graph.output} == {FLOAT}
    assert casts(proto).count(("y_fp16", FLOAT)) == 1, "the island and the caller share a cast"
    got = run(proto, x=X)
    assert np.allclose(got[1], np.exp(np.maximum(X, 0)), rtol=1e-6) and np.array_equal(got[2], -got[0])


def test_a_weight_that_both_sides_read_is_kept_in_both_types():
    model = graph(
        [("Add", ["x", "w"], ["a"], {}), ("Exp", ["a"], ["b"], {}), ("Mul", ["b", "w"], ["y"], {})],
        Y,
        {"w": np.full(4, 0.1, np.float32)},
    )
    apply_policy(model, Policy("fp16", (Island("why", op="Mul"),)))
    proto = finish(model)
    assert {(tensor.name, tensor.data_type) for tensor in proto.graph.initializer} == {("w", FLOAT), ("w.fp16", HALF)}


@pytest.mark.parametrize(("last", "type_of_move"), [("Exp", FLOAT), ("Neg", HALF)])
def test_what_only_moves_follows_its_neighbours(last, type_of_move):
    """Between two islands a Transpose stays FP32 and needs no cast; before a narrow node it moves half the bytes."""
    model = graph(
        [("Exp", ["x"], ["a"], {}), ("Transpose", ["a"], ["t"], {"perm": [1, 0]}), (last, ["t"], ["y"], {})],
        [("y", FLOAT, [4, "n"])],
    )
    apply_policy(model, WIDE_EXP)
    proto = finish(model)
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
    assert types["t"] == type_of_move
    assert len(casts(proto)) == (0 if last == "Exp" else 2)


def test_a_branch_keeps_fp32_and_what_it_captures_is_cast():
    captured = helper.make_node("Neg", ["a"], ["then"])
    other = helper.make_node("Identity", ["a"], ["else"])
    branches = [
        helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, FLOAT, ["n", 4])])
        for node, name in ((captured, "then"), (other, "else"))
    ]
    model = graph(
        [
            ("Relu", ["x"], ["a"], {}),
            ("If", ["c"], ["b"], {"then_branch": branches[0], "else_branch": branches[1]}),
            ("Neg", ["b"], ["y"], {}),
        ],
        Y,
        inputs=(("x", FLOAT, ["n", 4]), ("c", BOOL, [])),
    )
    apply_policy(model, ALL_NARROW)
    proto = finish(model)
    assert np.array_equal(run(proto, x=X, c=np.array(True))[0], np.maximum(X, 0))
    assert np.array_equal(run(proto, x=X, c=np.array(False))[0], -np.maximum(X, 0))


def test_scales_of_a_resize_stay_fp32():
    model = graph(
        [("Resize", ["x", "", "s"], ["y"], {"mode": "nearest"})],
        [("y", FLOAT, ["n", 1, 4, 4])],
        {"s": np.array([1, 1, 2, 2], np.float32)},
        (("x", FLOAT, ["n", 1, 2, 2]),),
    )
    apply_policy(model, ALL_NARROW)
    proto = finish(model)
    assert {tensor.name: tensor.data_type for tensor in proto.graph.initializer} == {"s": FLOAT}
    assert run(proto, x=np.ones((1, 1, 2, 2), np.float32))[0].shape == (1, 1, 4, 4)


def test_casts_of_the_model_go_to_the_narrow_type():
    model = graph(
        [("Cast", ["i"], ["f"], {"to": FLOAT}), ("Add", ["f", "x"], ["y"], {})],
        Y,
        inputs=(("x", FLOAT, ["n", 4]), ("i", TensorProto.INT64, ["n", 4])),
    )
    apply_policy(model, ALL_NARROW)
    proto = finish(model)
    assert casts(proto).count(("i", HALF)) == 1 and ("f", HALF) not in casts(proto)


def test_cast_like_follows_the_type_it_is_given():
    model = graph(
        [("Exp", ["x"], ["a"], {}), ("CastLike", ["i", "a"], ["c"], {}), ("Neg", ["c"], ["y"], {})],
        Y,
        inputs=(("x", FLOAT, ["n", 4]), ("i", TensorProto.INT64, ["n", 4])),
    )
    apply_policy(model, WIDE_EXP)
    assert np.array_equal(run(finish(model), x=X, i=np.array([[1, 2, 3, 4]]))[0], [[-1, -2, -3, -4]])


def test_an_operator_without_half_precision_stays_fp32():
    model = graph(
        [("Range", ["zero", "x", "one"], ["r"], {}), ("Neg", ["r"], ["y"], {})],
        [("y", FLOAT, ["m"])],
        {"zero": np.float32(0), "one": np.float32(1)},
        (("x", FLOAT, []),),
    )
    apply_policy(model, ALL_NARROW)
    assert np.array_equal(run(finish(model), x=np.array(3, np.float32))[0], [0, -1, -2])


def test_fp32_changes_nothing():
    model = graph([("Relu", ["x"], ["y"], {})], Y)
    before = ir.to_proto(model).SerializeToString()
    assert apply_policy(model, policy_for("fp32")) == {"narrow": 0, "fp32": 1, "casts": 0}
    assert ir.to_proto(model).SerializeToString() == before


def test_policies_say_what_they_keep():
    with pytest.raises(InputError, match=r"^precision 'fp8' is not one of fp32, fp16, bf16$"):
        policy_for("fp8")
    with pytest.raises(InputError, match=r"^precision 'int8' is not one of fp32, fp16, bf16$"):
        Policy("int8")
    with pytest.raises(InputError, match=r"^island 'all' names no module, op, kind or residual; "):
        Island("all")
    lines = policy_for("bf16").describe()
    assert len(lines) == 5 and lines[0].startswith("module=pixels_*: ") and lines[-1].startswith("residual=True: ")


def test_transposed_weights_are_folded_once_and_shared():
    w = np.arange(8, dtype=np.float32).reshape(2, 4)
    model = graph(
        [
            ("Transpose", ["w"], ["t"], {"perm": [1, 0]}),
            ("Transpose", ["w"], ["u"], {}),
            ("MatMul", ["x", "t"], ["a"], {}),
            ("MatMul", ["x", "u"], ["b"], {}),
            ("Add", ["a", "b"], ["y"], {}),
        ],
        [("y", FLOAT, ["n", 2])],
        {"w": w},
    )
    assert fold_weight_transposes(model) == 2
    proto = finish(model)
    assert [tensor.name for tensor in proto.graph.initializer] == ["w.t"]
    assert np.array_equal(run(proto, x=X)[0], 2 * X @ w.T)


def test_a_transposed_activation_is_left_alone():
    model = graph([("Transpose", ["x"], ["y"], {"perm": [1, 0]})], [("y", FLOAT, [4, "n"])])
    assert fold_weight_transposes(model) == 0


def test_opset_18_becomes_17_and_computes_the_same():
    nodes = [
        ("ReduceMean", ["x", "axes"], ["m"], {"keepdims": 1}),
        ("Split", ["x"], ["a", "b", "c"], {"axis": 1, "num_outputs": 3}),
        ("Concat", ["c", "m", "a", "b"], ["y"], {"axis": 1}),
    ]
    spec = dict(weights={"axes": np.array([1])}, outputs=[("y", FLOAT, ["n", 5])], opset=18)
    newer, older = graph(nodes, **spec), graph(nodes, **spec)
    downgrade_to_17(older)
    assert older.opset_imports[""] == 17
    assert np.array_equal(run(finish(older), x=X)[0], run(finish(newer), x=X)[0])


@pytest.mark.parametrize(
    ("node", "weights", "message"),
    [
        (
            ("Mish", ["x"], ["y"], {}),
            {},
            r"^the graph uses Mish, which opset 17 has not: export with --opset 18 or newer$",
        ),
        (
            ("Pad", ["x", "p", "", "a"], ["y"], {}),
            {"p": np.array([0, 0]), "a": np.array([1])},
            r"^the graph uses Pad with axes, which",
        ),
        (
            ("Resize", ["x", "", "s"], ["y"], {"antialias": 1, "mode": "linear"}),
            {"s": np.ones(2, np.float32)},
            r"^the graph uses Resize with axes or antialias, which",
        ),
    ],
    ids=["Mish", "Pad", "Resize"],
)
def test_what_opset_17_cannot_say_is_refused(node, weights, message):
    with pytest.raises(InputError, match=message):
        downgrade_to_17(graph([node], Y, weights, opset=18))


def test_axes_computed_at_run_time_are_refused():
    inputs = (("x", FLOAT, ["n", 4]), ("axes", TensorProto.INT64, [1]))
    model = graph([("ReduceMax", ["x", "axes"], ["y"], {})], Y, inputs=inputs, opset=18)
    with pytest.raises(InputError, match=r"^y: opset 17 cannot reduce over axes computed at run time: use --opset 18"):
        downgrade_to_17(model)


def test_opsets_to_ask_torch_for():
    assert [torch_opset(opset) for opset in (17, 18, 23)] == [18, 18, 23]
    with pytest.raises(
        InputError, match=r"^opset 24 is not supported; choose one from 17 \(TensorRT 8\.6 reads it\) to 23$"
    ):
        torch_opset(24)
