"""An engine of the form plugin, built with stand-ins for TensorRT, the GPU and the kernels: what goes where."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines import build as room
from engines.batch import BatchProfile
from engines.build import BuildRequest, build, engine_key, find
from engines.lowering import lower
from engines.proxy import proxy_gate
from runtime.errors import InputError
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from runtime.manifest import read_manifest
from tests.engines.stand_ins import StandInPlanner
from tests.export.micro import micro_export

TENSORRT = Flavor("tensorrt", "8.6.0", "python3.10", can_build=True, can_run=True)
H100 = Gpu(0, "NVIDIA H100", "9.0", 80 << 30, "13.0")


@pytest.fixture
def house(monkeypatch):
    """What stands in for the machine; `requests` are those that the child got, `library.tag` identifies the kernels."""
    planner = StandInPlanner()
    library = SimpleNamespace(
        tag="kernels-1",
        available=lambda capability: "",
        planner=lambda capability, name: planner if (capability, name) == ("9.0", "NVIDIA H100") else None,
        identity=lambda: library.tag,
    )
    requests = []

    def run_child(python, module, request, progress, verbose=False):
        requests.append(request)
        Path(request["plan"]).write_bytes(b"a plan")
        return {"seconds": 1.0, "peak_memory_bytes": 1, "tensors": [], "versions": {"tensorrt": "8.6.0"}, "notes": []}

    def run_gate(path, validation, flavor, progress, verbose=False):
        manifest = read_manifest(path)
        return replace(manifest, gate=replace(manifest.gate, state="passed", scores=(60.0,)))

    monkeypatch.setitem(sys.modules, "engines.kernels.library", library)
    plugins = SimpleNamespace(find_plugin=lambda version: Path(f"/plugins/libcat2dog_{version}.so"))
    monkeypatch.setitem(sys.modules, "runtime.plugins", plugins)
    monkeypatch.setattr(room, "find_gpus", lambda: [H100])
    monkeypatch.setattr(room, "run_child", run_child)
    monkeypatch.setattr(room, "run_gate", run_gate)
    return SimpleNamespace(planner=planner, library=library, requests=requests)


def request_of(tmp_path, validation=None, **changes):
    request = BuildRequest(
        onnx=micro_export("fp16").path,
        checkpoint="micro-64",
        precision="fp16",
        validation=validation,
        batch=BatchProfile(1, 2, 4),
        flavor=TENSORRT,
        root=tmp_path / "engines",
    )
    return replace(request, **changes)


@pytest.mark.parametrize("attention", ["auto", "plugin"])
def test_the_engine_and_its_manifest(house, validation, tmp_path, attention):
    built = build(request_of(tmp_path, validation, attention=attention))
    assert built.path.parent.name == "NVIDIA-H100_sm90_tensorrt8.6.0"
    assert built.path.name.startswith("micro-64_fp16_plugin_b1-4_")
    key = built.manifest.key
    assert (key.attention, key.kernels, key.compute_capability) == ("plugin", ("kernels-1",), "9.0")
    assert [vars(choice) for choice in read_manifest(built.path).attention] == [
        {
            "node": f"network.blocks.{index}.attention/Attention",
            "form": "plugin",
            "why": "stand-in 64x64: the only one; folded: packed to tokens, RMSNorm, RoPE",
            "milliseconds": {"plugin": 0.125},
        }
        for index in range(2)
    ]
    assert {problem.batch for problem in house.planner.asked} == {(1, 2, 4)}
    (asked,) = house.requests
    assert asked["plugins"] == ["/plugins/libcat2dog_8.6.0.so"] and ".plugin_b1-4_" in asked["onnx"]
    json.dumps(asked)


@pytest.mark.parametrize(
    ("changes", "refuse", "forms"),
    [
        ({"attention": "decomposed"}, "", {"decomposed"}),
        ({"attention": "plugin"}, "none", {"decomposed"}),
        ({"attention": "plugin", "flavor": replace(TENSORRT, version="10.14.0")}, "none", {"native"}),
    ],
    ids=["another form", "no kernel", "no kernel but native"],
)
def test_no_library_is_loaded_where_nothing_needs_it(house, validation, tmp_path, monkeypatch, changes, refuse, forms):
    monkeypatch.setitem(sys.modules, "runtime.plugins", None)
    house.planner.refuse = lambda problem: refuse
    built = build(request_of(tmp_path, validation, **changes))
    assert {choice.form for choice in built.manifest.attention} == forms
    assert {choice.why for choice in built.manifest.attention} == {refuse or "as asked"}
    assert house.requests[0]["plugins"] == []


@pytest.mark.parametrize("attention", ["auto", "plugin"])
@pytest.mark.parametrize("missing", ["the library", "a kernel"])
def test_what_is_missing_is_said_and_nothing_is_filed(house, validation, tmp_path, monkeypatch, missing, attention):
    def absent(*given):
        raise InputError(f"{missing} is not here: make it")

    if missing == "the library":
        monkeypatch.setattr(sys.modules["runtime.plugins"], "find_plugin", absent)
        message = rf"^{missing} is not here: make it; or build with --attention decomposed$"
    else:
        monkeypatch.setattr(house.planner, "refuse", absent)
        message = rf"^{missing} is not here: make it$"
    request = request_of(tmp_path, validation, attention=attention)
    with pytest.raises(InputError, match=message):
        build(request)
    left = [path for path in request.root.rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= {".lock"} and not house.requests
    assert find(request) is None


def test_the_key_reads_every_file_that_decides():
    own = {path.name for path in Path(room.__file__).parent.glob("*.py")}
    # They find, run, judge and file engines, or check what the others wrote.
    idle = {"answer", "batch", "bf16", "build", "fold_check", "fused_body", "fused_problems", "gate_child", "process"}
    idle |= {"overflow", "proxy", "store", "validation", "__init__", "checkable", "excerpt", "rounding"}
    idle |= {"fused_linear_body", "fused_linear_check", "linear_report", "linear_times", "elsewhere"}
    idle |= {"runner_child", "fused_pixels_body", "timing_cache", "lease", "remote_store", "shared_build"}
    idle |= {"pixels_refused"}
    assert {name for name in room._DECIDING if "/" not in name} == own - {f"{name}.py" for name in idle}


def test_the_kernels_are_in_the_key(house, tmp_path):
    request = request_of(tmp_path)
    before = engine_key(request, TENSORRT)
    house.library.tag = "kernels-2"
    assert engine_key(request, TENSORRT).key8 != before.key8
    plain = replace(request, attention="decomposed")
    assert engine_key(plain, TENSORRT).kernels == ()
    assert find(request) is None


def test_a_plugin_engine_is_not_built_ahead_of_time(house, tmp_path):
    with pytest.raises(InputError, match=r"^no plugin attention: .*without --targets; use decomposed$"):
        find(request_of(tmp_path, attention="plugin", targets=("9.0",)))


@pytest.mark.parametrize(("precision", "least"), [("fp16", 45), ("bf16", 40)])
def test_the_proxy_gate_runs_fused_nodes(validation, precision, least):
    lowered = lower(micro_export(precision).path, "plugin", BatchProfile(1, 2, 4), StandInPlanner())
    gate = proxy_gate(lowered.path, validation, 4, "no GPU here")
    assert gate.state == "pending" and min(gate.proxy_scores) >= least
    assert not list(lowered.path.parent.glob(".tmp-*"))
