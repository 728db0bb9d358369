"""The runner's own logic against a small stand-in for TensorRT; marked gpu, the same on real CUDA memory and graphs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime import cuda, gpu, tensorrt_runner
from runtime.errors import EngineMismatch, InputError, ToolchainError
from runtime.gpu import Gpu
from runtime.manifest import Build, EngineKey, Gate, Manifest, write_manifest
from runtime.runner import ImageRunner, Runner
from runtime.tensorrt_runner import TensorRTRunner
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT, Format, Location, Mode, Tensor

KEY = EngineKey(
    checkpoint="tiny-128",
    onnx_sha256="a" * 64,
    weights_sha256="b" * 64,
    precision="fp16",
    attention="native",
    flavor="tensorrt",
    flavor_version="1.0",
    batch=(1, 4, 8),
    gpu="NVIDIA L4",
    compute_capability="8.9",
)
STYLES = ("8.6", "10", "rtx")


def image_network(**options):
    dynamic = (-1, 8, 8, 3)
    profile = [(1, 8, 8, 3), (4, 8, 8, 3), (8, 8, 8, 3)]
    return [
        Tensor("dog", Mode.OUTPUT, dynamic),  # an output first: positions must not matter
        Tensor("image", Mode.INPUT, dynamic, profile=profile, **options),
    ]


def file_engine(folder: Path, plan: bytes = b"plan", key: EngineKey = KEY) -> Path:
    path = folder / "x.engine"
    path.write_bytes(plan)
    build = Build(1.0, 1, "2026-11-23", "cat2dog build --model models/tiny-128")
    gate = Gate("passed", "psnr", 30.0, "PyTorch fp32", (50.0,))
    write_manifest(path, Manifest(path.name, hashlib.sha256(plan).hexdigest(), len(plan), key, gate, build))
    return path


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def api(request, monkeypatch):
    """CUDA, fake or real; either way the machine has one L4 as far as the engine is concerned."""
    if request.param == "real":
        if not gpu.find_gpus():
            pytest.skip(gpu.no_gpu_reason())
        api = cuda.bindings()
    else:
        api = FakeCuda()
        monkeypatch.setattr(cuda, "bindings", lambda: api)
    monkeypatch.setattr(gpu, "find_gpus", lambda: [Gpu(0, "NVIDIA L4", "8.9", 1 << 30, "13.0")])
    return api


@pytest.fixture
def load(tmp_path, monkeypatch, api):
    """A runner of these tensors under a TensorRT of that style; closed at the end."""
    made = []

    def make(tensors, style="10", plan=b"plan", key=KEY, **options):
        trt = FakeTensorRT(tensors, style)
        monkeypatch.setattr(tensorrt_runner, "load_flavor", lambda name: trt)
        runner = TensorRTRunner(file_engine(tmp_path, plan, key), **options)
        made.append(runner)
        return runner, trt.engine

    yield make
    for runner in made:
        runner.close()
    if isinstance(api, FakeCuda):
        assert not api.alive, "something was not freed"


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((count, seed)).integers(0, 256, (count, 8, 8, 3), np.uint8)


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
    monkeypatch.setattr(tensorrt_runner, "_MOST_SHAPES", 2)
    runner, engine = load(image_network())
    for count in (1, 2, 1, 3, 1, 2):
        np.testing.assert_array_equal(runner.infer({"image": images(count)})["dog"], images(count))
    assert len(runner._shapes) == 2
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


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_threads_take_turns(load, cuda_graph):
    runner, engine = load(image_network(), cuda_graph=cuda_graph)
    engine.seconds = 0.001  # long enough for the other threads to come by
    wrong = []

    def work(seed):
        for turn in range(10):
            given = images(1 + (seed + turn) % 4, seed)
            if not np.array_equal(runner.infer({"image": given})["dog"], given):
                wrong.append((seed, turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert engine.most_at_once == 1


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
    "DataType": list(tensorrt_runner._DTYPES),
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
    ],
}


def test_the_names_used_exist_in_tensorrt_rtx():
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed in this Python")
    # In a child, so that its libraries do not stay in this process.
    program = """if True:
        import functools, json, sys
        from runtime.flavors import load_flavor
        trt = load_flavor("tensorrt_rtx")
        missing = []
        for group, names in json.loads(sys.argv[1]).items():
            owner = functools.reduce(getattr, filter(None, group.split(".")), trt)
            missing += [f"{group}.{name}" for name in names if not hasattr(owner, name)]
        from runtime.tensorrt_runner import _make_log, _load_plugins
        log = _make_log(trt)
        log.log(trt.ILogger.Severity.WARNING, "not kept")
        log.log(trt.ILogger.Severity.ERROR, "kept")
        _load_plugins(trt, log, [])
        runtime = trt.Runtime(log)
        last = log.last()
        refused = runtime.deserialize_cuda_engine(b"not a plan") is None
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
