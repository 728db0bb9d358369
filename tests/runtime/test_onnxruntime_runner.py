from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.errors import InputError, MissingExtra, ToolchainError
from runtime.gpu import find_gpus, no_gpu_reason
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from runtime.runner import ImageRunner, Runner


def save(path, nodes, inputs, outputs, initializers=(), **options):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path, **options)
    return path


@pytest.fixture
def inverter(tmp_path):
    """255 - image, over any batch, from weights in a file beside the graph."""
    weights = numpy_helper.from_array(np.full((1, 8, 8, 3), 255, np.int32), "white")
    shape = ["batch", 8, 8, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Sub", ["white", "wide"], ["inverted"]),
        helper.make_node("Cast", ["inverted"], ["dog"], to=TensorProto.UINT8),
    ]
    return save(
        tmp_path / "inverter.onnx",
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("dog", TensorProto.UINT8, shape)],
        [weights],
        save_as_external_data=True,
        location="inverter.onnx.data",
        size_threshold=0,
    )


def test_external_data_beside_the_file_is_found(inverter, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    with ImageRunner.from_runner(OnnxRuntimeRunner(inverter, threads=1)) as runner:
        np.testing.assert_array_equal(runner.run(images), 255 - images)


def test_specs(inverter):
    runner = OnnxRuntimeRunner(inverter)
    assert isinstance(runner, Runner)
    assert [str(spec) for spec in runner.inputs + runner.outputs] == ["image: uint8 [?,8,8,3]", "dog: uint8 [?,8,8,3]"]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "int64", "bool"])
def test_types_go_through_unchanged(name, tmp_path):
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 arrays need ml_dtypes")
    kind = TensorProto.FLOAT if name == "float32" else getattr(TensorProto, name.upper())
    info = [helper.make_tensor_value_info(tensor, kind, ["n", 3]) for tensor in ("x", "y")]
    path = save(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], info[:1], info[1:])
    runner = OnnxRuntimeRunner(path)
    given = np.array([[0, 1, 1], [1.5, -2, 3]]).astype(runner.inputs[0].numpy_dtype)[:, ::-1]
    result = runner.infer({"x": given})["y"]
    assert result.dtype.name == name
    np.testing.assert_array_equal(result, given)


def test_a_bad_feed(inverter):
    with pytest.raises(InputError, match="there is no input 'imag'; did you mean 'image'"):
        OnnxRuntimeRunner(inverter).infer({"imag": np.zeros(1)})


def test_a_failing_run_is_one_line(tmp_path):
    info = helper.make_tensor_value_info
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["a", "b"], ["c"])],
        [info("a", TensorProto.FLOAT, ["n"]), info("b", TensorProto.FLOAT, ["m"])],
        [info("c", TensorProto.FLOAT, ["k"])],
    )
    runner = OnnxRuntimeRunner(path)
    with pytest.raises(ToolchainError, match=r"ONNX Runtime failed: .*Add") as error:
        runner.infer({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)})
    assert error.type is ToolchainError and "\n" not in str(error.value)


def test_closed_twice_then_refused(inverter):
    runner = OnnxRuntimeRunner(inverter)
    runner.close()
    runner.close()
    with pytest.raises(ToolchainError, match="this ONNX Runtime runner is closed; make a new one"):
        runner.infer({})


def test_missing_external_data(inverter):
    (inverter.parent / "inverter.onnx.data").unlink()
    with pytest.raises(InputError, match=r"inverter\.onnx cannot be loaded: .*inverter\.onnx\.data") as e:
        OnnxRuntimeRunner(inverter)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", [b"", b"not ONNX at all", b"\x80\x04\x95"])
def test_not_onnx(content, tmp_path, capfd):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx is not an ONNX file \(.+\)") as error:
        OnnxRuntimeRunner(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"m\.onnx does not exist or is no file; expected an ONNX file: make it with"):
        OnnxRuntimeRunner(tmp_path / "m.onnx")


def test_unknown_provider(inverter):
    with pytest.raises(InputError, match=r"has no provider 'NoSuch' here; expected one of .*CPUExecutionProvider"):
        OnnxRuntimeRunner(inverter, providers=["NoSuch"])


def test_the_cuda_provider_without_its_package(inverter):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("the package for GPUs is installed")
    with pytest.raises(InputError) as error:
        OnnxRuntimeRunner(inverter, providers=["cuda"])
    listed = ", ".join(onnxruntime.get_available_providers())
    assert str(error.value) == (
        f"ONNX Runtime has no CUDA provider here, only {listed}; put the package for GPUs in place of the one for "
        "CPUs: pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cuda", r"ONNX Runtime's CUDA provider does not start here: it needs an NVIDIA GPU, CUDA \S+ and cuDNN 9, "),
        ("Other", r"inverter\.onnx cannot be loaded by ONNX Runtime: Unknown Provider Type: Other"),
    ],
)
def test_a_provider_that_does_not_start_is_not_replaced_by_the_cpu(inverter, monkeypatch, name, said, capsys):
    import onnxruntime

    if find_gpus():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "Other", "CPUExecutionProvider"]
    )
    with pytest.raises(InputError, match=said):
        OnnxRuntimeRunner(inverter, providers=[name])
    assert capsys.readouterr().out == ""


def test_bound_outputs_are_the_same(inverter):
    runner = OnnxRuntimeRunner(inverter, ["cpu"])
    runner._device = "cpu"  # as the CUDA provider is run, on the device that is here
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 6), np.uint8)[..., ::2]
    got = [runner.infer({"image": images})["dog"] for _ in range(2)]
    np.testing.assert_array_equal(got[0], 255 - images)
    assert got[0] is not got[1] and not np.shares_memory(*got)


@pytest.mark.gpu
def test_the_cuda_provider(inverter):
    if not find_gpus():
        pytest.skip(no_gpu_reason())
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("the package onnxruntime-gpu is not installed")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    with OnnxRuntimeRunner(inverter, providers=["cuda"]) as runner:
        for _ in range(3):
            np.testing.assert_array_equal(runner.infer({"image": images})["dog"], 255 - images)


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"running an ONNX file needs the package 'onnxruntime'.*pip install onnxr"):
        OnnxRuntimeRunner(tmp_path / "m.onnx")
