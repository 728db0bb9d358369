"""The runner's own logic against a small stand-in for TensorRT; marked gpu, the same on real CUDA memory and graphs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime import cuda, gpu, lane, loaded_engine
from runtime.errors import EngineMismatch, InputError, ToolchainError
from runtime.runner import ImageRunner, Runner
from runtime.tensorrt_runner import TensorRTRunner
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT, Format, Location, Mode, Tensor
from tests.runtime.stand_ins import KEY, file_engine, image_network, images, runner_lanes

STYLES = ("8.6", "10", "rtx")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_images_through_every_version(load, style, cuda_graph):
    runner, _ = load(image_network(), style, cuda_graph=cuda_graph)
    assert isinstance(runner, Runner)
    assert [str(spec) for spec in runner.inputs + runner.outputs] == ["image: uint8 [?,8,8,3]", "dog: uint8 [?,8,8,3]"]
    with ImageRunner.from_runner(runner) as image_runner:
        assert (image_runner.resolution, image_runner.smallest_batch, image_runner.largest_batch) == (8, 1, 8)
        for seed in range(4):
            for count in (1, 8, 3, 19):
                np.testing.assert_array_equal(image_runner.run(images(count, seed)), images(count, seed))


def test_one_graph_a_shape_after_one_plain_run(load, api):
    runner, engine = load(image_network())
    for count in (2, 2, 2, 5, 5, 2):
        np.testing.assert_array_equal(runner.infer({"image": images(count, count)})["dog"], images(count, count))
    assert engine.runs == 4  # for each of two shapes: one plain run, one capture
    assert engine.contexts == 3  # one to measure, one a shape
    if isinstance(api, FakeCuda):
        assert (api.captures, api.launches) == (2, 4)


def test_without_graphs_every_run_is_plain(load, api):
    runner, engine = load(image_network(), cuda_graph=False)
    for _ in range(3):
        runner.infer({"image": images(2)})
    assert engine.runs == 3
    if isinstance(api, FakeCuda):
        assert api.captures == 0


def test_a_plan_that_cannot_be_captured_runs_plainly(load):
    runner, engine = load(image_network(), "rtx")
    engine.capturable = False
    for _ in range(3):
        runner.infer({"image": images(2)})
    assert engine.runs == 3


def test_old_shapes_are_let_go(load, monkeypatch):
    monkeypatch.setattr(lane, "MOST_SHAPES", 2)
    runner, engine = load(image_network())
    for count in (1, 2, 1, 3, 1, 2):
        np.testing.assert_array_equal(runner.infer({"image": images(count)})["dog"], images(count))
    assert [len(each._replays) for each in runner_lanes(runner)] == [0, 2]
    assert engine.contexts == 1 + 4  # 2 was let go for 3, and came back


def test_several_inputs_of_several_types(load):
    tensors = [
        Tensor("a", Mode.INPUT, (2, 3), "FLOAT"),
        Tensor("b", Mode.INPUT, (-1,), "HALF", profile=[(1,), (2,), (4,)]),
        Tensor("out_a", Mode.OUTPUT, (2, 3), "FLOAT"),
        Tensor("out_b", Mode.OUTPUT, (-1,), "HALF"),
    ]
    runner, _ = load(tensors)
    feed = {"b": np.array([1, 2, 3], np.float16), "a": np.arange(6, dtype=np.float32).reshape(3, 2).T}
    for _ in range(3):
        result = runner.infer(feed)
        np.testing.assert_array_equal(result["out_a"], feed["a"])
        np.testing.assert_array_equal(result["out_b"], feed["b"])
    assert result["out_b"].dtype == np.float16


def test_bfloat16(load):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 arrays need ml_dtypes")
    runner, _ = load([Tensor("x", Mode.INPUT, (5,), "BF16"), Tensor("y", Mode.OUTPUT, (5,), "BF16")])
    given = np.arange(5).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(runner.infer({"x": given})["y"], given)


def test_results_belong_to_the_caller(load):
    runner, _ = load(image_network())
    first = runner.infer({"image": images(2, 1)})["dog"]
    runner.infer({"image": images(2, 2)})
    runner.close()
    np.testing.assert_array_equal(first, images(2, 1))


def test_a_bad_feed(load):
    runner, _ = load(image_network())
    with pytest.raises(
        InputError, match=r"input 'image' has shape \[9, 8, 8, 3\]; axis 0 takes 1 to 8: the nearest is 8"
    ):
        runner.infer({"image": images(9)})


def test_closed_twice_then_refused(load):
    runner, _ = load(image_network())
    runner.infer({"image": images(1)})
    runner.close()
    runner.close()
    with pytest.raises(ToolchainError, match="this TensorRT runner is closed; make a new one"):
        runner.infer({"image": images(1)})


def test_a_failing_run_gives_tensorrts_reason(load):
    runner, engine = load(image_network())
    runner.infer({"image": images(1)})
    engine.fail = True
    for _ in range(2):  # while capturing, then plainly
        with pytest.raises(ToolchainError) as error:
            runner.infer({"image": images(1)})
        assert str(error.value) == "TensorRT could not run the engine: it is broken"
    engine.fail = False
    np.testing.assert_array_equal(runner.infer({"image": images(1)})["dog"], images(1))


def test_shapes_that_do_not_go_together(load):
    runner, engine = load(image_network())
    engine.inconsistent = True
    with pytest.raises(InputError) as error:
        runner.infer({"image": images(2)})
    assert str(error.value) == "TensorRT refused the input shapes [[2, 8, 8, 3]]: a and b differ"


def test_a_runtime_that_does_not_start(load, monkeypatch):
    monkeypatch.setattr(FakeTensorRT, "starts", False)
    with pytest.raises(ToolchainError) as error:
        load(image_network())
    assert str(error.value) == "TensorRT 1.0 could not start on this GPU: CUDA initialization failure"


def test_a_plan_tensorrt_refuses(load):
    with pytest.raises(EngineMismatch) as error:
        load(image_network(), plan=b"bad")
    assert str(error.value).endswith(
        "x.engine: magic tag does not match; build it again: `cat2dog build --model models/tiny-128`"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "FP8"}, "tensor 'image' has type FP8; expected one of FLOAT, HALF, BF16"),
        ({"location": Location.HOST}, "tensor 'image' is a shape tensor in host memory"),
        ({"form": Format.CHW4}, "tensor 'image' is not stored row by row"),
    ],
)
def test_tensors_it_cannot_feed(load, options, message):
    with pytest.raises(InputError, match=message):
        load(image_network(**options))


def test_a_gpu_that_is_full(load, api):
    if not isinstance(api, FakeCuda):
        pytest.skip("a real GPU is not filled for a test")
    api.memory = 5000
    with pytest.raises(ToolchainError, match="the GPU is out of memory"):
        load([Tensor("x", Mode.INPUT, (6000,)), Tensor("y", Mode.OUTPUT, (6000,))])
    assert not api.alive


def test_plugins(load, tmp_path):
    (tmp_path / "libplugin.so").write_bytes(b"no library")
    with pytest.raises(InputError, match=r"plugin library .*libplugin\.so cannot be loaded: .*"):
        load(image_network(), plugins=[tmp_path / "libplugin.so"])


def test_the_engine_is_checked_before_the_gpu_is_touched(load, api, monkeypatch):
    def touched(index):
        raise AssertionError("the GPU was touched")

    monkeypatch.setattr(cuda, "set_device", touched)
    for key in (
        replace(KEY, flavor_version="0.9"),
        replace(KEY, gpu="NVIDIA A10", compute_capability="8.6"),
        replace(KEY, targets=("12.0",)),
    ):
        with pytest.raises(EngineMismatch, match="was built "):
            load(image_network(), key=key)
    with pytest.raises(EngineMismatch, match=r"was built by tensorrt 1\.0, but here is tensorrt_rtx 1\.0"):
        load(image_network(), flavor="tensorrt_rtx")
    with pytest.raises(InputError, match=r"there is no GPU 3; expected one of 0 \(NVIDIA L4\)"):
        load(image_network(), device=3)


def test_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "find_gpus", lambda: [])
    monkeypatch.setattr(gpu, "no_gpu_reason", lambda: "no NVIDIA driver is installed")
    with pytest.raises(ToolchainError) as error:
        TensorRTRunner(file_engine(tmp_path))
    assert error.value.exit_code == 1
    assert str(error.value) == (
        "running an engine needs an NVIDIA GPU: no NVIDIA driver is installed; "
        "run the ONNX file in ONNX Runtime instead"
    )
    with pytest.raises(InputError, match=r"none\.engine does not exist"):
        TensorRTRunner(tmp_path / "none.engine", flavor="tensorrt")


# What the runner asks of the module, of its own API where the versions differ left out.
NAMES = {
    "": ["ILogger", "Runtime", "TensorIOMode", "TensorLocation", "TensorFormat", "init_libnvinfer_plugins"],
    "ILogger.Severity": ["ERROR", "INTERNAL_ERROR"],
    "Runtime": ["deserialize_cuda_engine"],
    "TensorIOMode": ["INPUT"],
    "TensorLocation": ["DEVICE"],
    "TensorFormat": ["LINEAR"],
    "DataType": list(loaded_engine.DTYPES),
    "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
    "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
    "IRuntimeConfig": ["dynamic_shapes_kernel_specialization_strategy", "set_execution_context_allocation_strategy"],
    "ICudaEngine": [
        "num_io_tensors",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_location",
        "get_tensor_format",
        "get_tensor_shape",
        "get_tensor_profile_shape",
        "device_memory_size_v2",
        "create_execution_context",
        "create_runtime_config",
    ],
    "IExecutionContext": [
        "set_device_memory",
        "set_input_shape",
        "infer_shapes",
        "get_tensor_shape",
        "get_max_output_size",
        "set_tensor_address",
        "execute_async_v3",
        "is_stream_capturable",
        "active_optimization_profile",
        "set_optimization_profile_async",
    ],
}


def test_the_names_used_exist_in_tensorrt_rtx():
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed in this Python")
    # In a child, so that its libraries do not stay in this process.
    program = """if True:
        import functools, json, mmap, sys, tempfile
        from runtime.flavors import load_flavor
        trt = load_flavor("tensorrt_rtx")
        missing = []
        for group, names in json.loads(sys.argv[1]).items():
            owner = functools.reduce(getattr, filter(None, group.split(".")), trt)
            missing += [f"{group}.{name}" for name in names if not hasattr(owner, name)]
        from runtime.loaded_engine import make_log
        from runtime.tensorrt_runner import _load_plugins
        log = make_log(trt)
        log.log(trt.ILogger.Severity.WARNING, "not kept")
        log.log(trt.ILogger.Severity.ERROR, "kept")
        _load_plugins(trt, log, [])
        runtime = trt.Runtime(log)
        last = log.last()
        with tempfile.TemporaryFile() as file:
            file.write(b"not a plan" * 1000)
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as plan:
                refused = runtime.deserialize_cuda_engine(plan) is None
        print(json.dumps([missing, last, refused, log.last() != ""]))
    """
    root = Path(runtime.__file__).parent.parent
    command = [sys.executable, "-c", program, json.dumps(NAMES)]
    child = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    missing, last, refused, reason = json.loads(child.stdout.splitlines()[-1])
    assert missing == []
    assert refused and reason
    assert last.startswith(": ")
