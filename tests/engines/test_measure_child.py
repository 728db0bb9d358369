"""The child that times candidates, on stand-ins for TensorRT and CUDA: what is loaded, replayed, reported and freed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engines import measure_child
from engines.measure_child import in_turns, measure
from runtime import cuda
from runtime.errors import GpuLost, ToolchainError
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT, Mode, Tensor

PROFILE = [(1, 8, 4), (2, 8, 4), (4, 8, 4)]


class Log:
    def __init__(self):
        self.errors = []

    def log(self, severity, message):
        self.errors.append(message)

    def last(self):
        return f": {self.errors[-1]}" if self.errors else ""


@pytest.fixture
def house(monkeypatch):
    """TensorRT 8.6 with one half-precision input and output; `fail` names candidates that cannot be built."""
    api = FakeCuda()
    monkeypatch.setattr(cuda, "bindings", lambda: api)
    tensors = [
        Tensor("x", Mode.INPUT, (-1, 8, 4), "HALF", profile=PROFILE),
        Tensor("y", Mode.OUTPUT, (2, 8, 4), "HALF"),
    ]
    trt = FakeTensorRT(tensors, "8.6")
    house = SimpleNamespace(api=api, trt=trt, fail=(), notes={}, asked=[], saved=[], plugins=[])

    def built(trt, request, log, progress):
        house.asked.append(request)
        if request["onnx"] in house.fail:
            raise ToolchainError("TensorRT built no engine: no tactic")
        return SimpleNamespace(plan=b"p" * 100, config=request["onnx"], notes=house.notes.get(request["onnx"], []))

    monkeypatch.setattr(measure_child, "load_flavor", lambda name: trt)
    monkeypatch.setattr(measure_child, "make_build_log", lambda trt, verbose: Log())
    monkeypatch.setattr(measure_child, "load_plugin", house.plugins.append)
    monkeypatch.setattr(measure_child, "built", built)
    monkeypatch.setattr(measure_child, "write_timing_cache", lambda request, config: house.saved.append(config))
    yield house
    house.trt.engine = None
    assert api.lost or not api.alive, "something was not freed"


def request(*names, **changes):
    candidates = [{"forms": name, "onnx": f"{name}.onnx", "layer_types": {}} for name in names]
    return {
        "flavor": "tensorrt", "precision": "fp16", "profile": {"batch": [1, 2, 4]}, "options": {}, "targets": [],
        "timing_cache": "timing.cache", "plugins": ["plugin.so"], "verbose": False, "cold_bytes": 450,
        "units": [{"name": "up", "candidates": candidates}], **changes,
    }  # fmt: skip


def test_candidates_are_built_and_timed(house):
    phases = []
    answer = measure(request("plugin", "tensorrt"), lambda **event: phases.append((event["step"], event["steps"])))
    copies, passes = 5, 2  # of 100 bytes to have 450; 0.5 ms a replay until a graph takes 1 ms
    assert answer["units"] == [[{"milliseconds": 0.5 / (copies * passes)}] * 2]
    assert phases == [(0, 2), (1, 2)] and house.plugins == ["plugin.so"] and house.trt.registered == [""]
    assert [each["onnx"] for each in house.asked] == house.saved == ["plugin.onnx", "tensorrt.onnx"]
    assert house.asked[0]["profile"] == {"batch": [1, 2, 4]} and house.asked[0]["timing_cache"] == "timing.cache"
    engine = house.trt.engine
    assert engine.contexts == 2 * copies
    assert engine.runs == 2 * (copies + copies + passes * copies), "once plainly, then in the two graphs"


def test_one_that_cannot_be_built_does_not_spoil_the_others(house):
    house.fail = ("plugin.onnx",)
    answer = measure(request("plugin", "tensorrt"), lambda **event: None)
    failed, timed = answer["units"][0]
    assert failed == {"error": "TensorRT built no engine: no tactic"} and timed["milliseconds"] > 0
    house.fail = ("plugin.onnx", "tensorrt.onnx")
    assert [list(each) for each in measure(request("plugin", "tensorrt"), lambda **event: None)["units"][0]] == [
        ["error"], ["error"],
    ]  # fmt: skip


def test_one_that_was_built_in_other_precisions_says_so(house):
    house.notes = {"tensorrt.onnx": ["it has no implementation", "built with every layer in FP32"]}
    ours, other = measure(request("plugin", "tensorrt"), lambda **event: None)["units"][0]
    assert "held" not in ours and other["held"] == "built with every layer in FP32" and other["milliseconds"] > 0


def test_one_that_cannot_be_run_is_reported(house):
    house.trt.engine.fail = True
    (result,) = measure(request("plugin"), lambda **event: None)["units"][0]
    assert result["error"].startswith("TensorRT could not run the candidate: it is")


def test_a_lost_gpu_ends_it_all(house, monkeypatch):
    def lost(*given):
        house.api.lost = True
        raise GpuLost("the GPU stopped working for this process")

    monkeypatch.setattr(measure_child, "_timer", lost)
    with pytest.raises(GpuLost):
        measure(request("plugin", "tensorrt"), lambda **event: None)


def test_turns_are_taken_and_medians_given(monkeypatch):
    order = []

    def timer(name, values):
        times = iter(values)

        def take():
            order.append(name)
            return next(times)

        return take

    monkeypatch.setattr(measure_child, "_WARM_UP", 1)
    monkeypatch.setattr(measure_child, "_ROUNDS", 3)
    assert in_turns([timer("a", [9, 1, 50, 2]), timer("b", [9, 3, 3, 4])]) == [2, 3]
    assert order == ["a", "b"] * 4


@pytest.mark.parametrize("attention", ["native", "decomposed"])
def test_what_is_cut_out_of_a_graph_is_built_by_a_real_tensorrt(rtx, tmp_path, attention):
    """Ahead of time, with TensorRT-RTX, in TensorRT's own form: that of ours is read by a TensorRT with plugins."""
    from engines.batch import BatchProfile
    from engines.child import built, make_build_log
    from engines.linear_choice import LinearChooser
    from engines.lowering import lower
    from runtime.flavors import load_flavor
    from tests.engines.linear_stand_ins import LinearStandIn
    from tests.export.micro import micro_export

    trt = load_flavor(rtx.name)
    sizes = []

    def build_first(asked):
        for unit in asked["units"]:
            asked_of_one = {**asked, **unit["candidates"][0]}
            made = built(trt, asked_of_one, make_build_log(trt, False), lambda **event: None)
            assert made.network.num_inputs == (1 if "embed" in unit["name"] else 2)
            sizes.append(memoryview(made.plan).nbytes)
        return {"units": [[{"milliseconds": 1.0} for _ in unit["candidates"]] for unit in asked["units"]]}

    common = {"precision": "fp16", "options": {}, "profile": {"batch": [1, 2, 4]}, "targets": ["8.6"]}
    asked = {**common, "timing_cache": None}
    chooser = LinearChooser(micro_export("fp16").path, tmp_path / "linear.json", asked, {}, build_first)
    lower(micro_export("fp16").path, attention, BatchProfile(1, 2, 4), linear=LinearStandIn(), choose=chooser.choose)
    # The head happens to be as wide as queries, keys and values, so it is measured with them.
    assert len(sizes) == 3 and min(sizes) > 0
