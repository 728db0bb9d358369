"""INT8 beside FP16: the graphs are the same but for rounding, and what is timed, on a stand-in for TensorRT."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from bench import int8_engines
from bench.opset17 import write_opset17
from bench.qdq_block import block_model
from runtime import cuda
from runtime.errors import InputError
from tests.export.micro import run_onnx
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT
from tests.runtime.stand_ins import image_network


def test_a_block_with_and_without_rounding(tmp_path):
    x = np.random.default_rng(1).standard_normal((1, 9, 32)).astype(np.float32)
    got = []
    for quantized in (False, True):
        model = block_model(32, 9, 2, quantized)
        onnx.checker.check_model(model, full_check=True)
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count("MatMul") == 8 and kinds.count("QuantizeLinear") == (16 if quantized else 0)
        onnx.save(model, tmp_path / "block.onnx")
        got.append(run_onnx(tmp_path / "block.onnx", {"x": x})["y"])
    off = np.linalg.norm(got[1] - got[0]) / np.linalg.norm(got[0])
    assert 1e-4 < off < 0.05


def newer(kind="ReduceMean", computed=False):
    """A graph of opset 19, as Model Optimizer writes it: axes are an input."""
    axes = onnx.numpy_helper.from_array(np.array([-1], np.int64), "axes")
    nodes = [
        onnx.helper.make_node("Constant", [], ["last"], value=axes),
        onnx.helper.make_node("Identity", ["last"], ["computed"]),
        onnx.helper.make_node(kind, ["x", "computed" if computed else "last"], ["y"], "reduce", keepdims=1),
    ]
    if not computed:
        del nodes[1]
    ends = [onnx.helper.make_tensor_value_info(*each) for each in (("x", 1, [2, 3]), ("y", 1, [2, 1]))]
    graph = onnx.helper.make_graph(nodes, "newer", ends[:1], ends[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=8)


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceMax"])
def test_a_newer_graph_computes_the_same_in_the_words_of_opset_17(tmp_path, kind):
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    onnx.save(newer(kind), tmp_path / "newer.onnx")
    write_opset17(newer(kind), tmp_path / "older.onnx")
    older = onnx.load(tmp_path / "older.onnx")
    assert older.opset_import[0].version == 17 and list(older.graph.node[-1].input) == ["x"]
    wanted, got = (run_onnx(tmp_path / f"{name}.onnx", feed)["y"] for name in ("newer", "older"))
    np.testing.assert_array_equal(got, wanted)


def test_what_opset_17_does_not_know_is_refused(tmp_path):
    with pytest.raises(InputError, match="the axes of reduce are computed"):
        write_opset17(newer(computed=True), tmp_path / "older.onnx")
    model = newer()
    model.graph.node[-1].op_type = "Mish"  # of opset 18
    with pytest.raises(InputError, match=r"older\.onnx cannot be opset 17: .*Mish"):
        write_opset17(model, tmp_path / "older.onnx")


@pytest.fixture
def tensorrt(monkeypatch):
    """TensorRT 8.6's builder; its engines are the stand-in's. Building a graph named "refused" fails."""
    trt = FakeTensorRT(image_network(), "8.6")
    flags, parsed = [], []

    def parse(path):
        parsed.append(path)
        return True

    def build(network, config):
        flags.append(tuple(config.flags))
        return None if "refused" in parsed[-1] else b"plan"

    config = SimpleNamespace(flags=[], set_tactic_sources=lambda mask: None)
    config.set_flag = config.flags.append

    def new_config():
        config.flags.clear()
        return config

    trt.Builder = lambda log: SimpleNamespace(
        create_network=lambda flags: None, create_builder_config=new_config, build_serialized_network=build
    )
    trt.OnnxParser = lambda network, log: SimpleNamespace(parse_from_file=parse)
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
    trt.TacticSource = SimpleNamespace(JIT_CONVOLUTIONS=3, EDGE_MASK_CONVOLUTIONS=4)
    trt.ProfilingVerbosity = SimpleNamespace(DETAILED=2)
    trt.BuilderFlag = SimpleNamespace(FP16="fp16", INT8="int8")
    monkeypatch.setattr(int8_engines, "load_flavor", lambda name: trt)
    monkeypatch.setattr(int8_engines.EngineReplay, "layers", lambda self, trt: [{"type": "Myelin"}, {"type": "Myelin"}])
    api = FakeCuda()
    monkeypatch.setattr(cuda, "bindings", lambda: api)
    return SimpleNamespace(trt=trt, flags=flags, parsed=parsed, api=api)


def test_what_is_built_and_timed(tensorrt, tmp_path, capsys):
    given = block_model(8, 4, 1, quantized=True)
    for node in given.graph.node:
        if node.op_type == "ReduceMean":  # as opset 19 has it
            node.input.append("last")
            del node.attribute[:]
    given.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), "last"))
    given.opset_import[0].version = 19
    for name in ("given", "refused"):
        onnx.save(given, tmp_path / f"{name}.onnx")
    output = tmp_path / "int8.json"
    words = ["--onnx", str(tmp_path / "given.onnx"), str(tmp_path / "refused.onnx"), "--block", "8", "4", "1"]
    assert int8_engines.main([*words, "--output", str(output)]) == 0
    rows = json.loads(output.read_text())["graphs"]
    names = ["given", "refused", "block_8x4x1_fp16", "block_8x4x1_int8"]
    assert [row["graph"] for row in rows] == names
    assert tensorrt.flags == [("fp16", "int8"), ("fp16", "int8"), ("fp16",), ("fp16", "int8")]
    assert rows[0]["ms"] == 0.5 and rows[0]["layers"] == {"Myelin": 2}
    assert "ms" not in rows[1] and "built no engine of opset17_refused.onnx" in rows[1]["reason"]
    assert not tensorrt.api.alive, "something was not freed"
    assert "block_8x4x1_int8 int8 and fp16: 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --onnx or --block"),
        (["--block", "0", "4", "1"], "expected up to 8192, 65536 and 64"),
        (["--onnx", "none.onnx"], "none.onnx does not exist"),
    ],
)
def test_wrong_use(tensorrt, tmp_path, capsys, words, said):
    assert int8_engines.main([*words, "--output", str(tmp_path / "int8.json")]) == 2
    assert said in capsys.readouterr().err
    tensorrt.trt.__version__ = "10.3.0"
    assert int8_engines.main(["--block", "8", "4", "1", "--output", str(tmp_path / "int8.json")]) == 2
    assert "is strongly typed" in capsys.readouterr().err
