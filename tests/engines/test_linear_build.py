"""An engine with fused linear layers, built with stand-ins for TensorRT, the GPU and the kernels: what goes where."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import onnx
import pytest

from engines import build as room
from engines.build import build, engine_key, find
from engines.form import choose_linear
from engines.kernels.problem import Unsupported
from runtime.errors import InputError, ToolchainError
from runtime.manifest import read_manifest
from runtime.plugins import needs_plugin
from tests.engines.linear_stand_ins import LinearStandIn
from tests.engines.pixels_stand_ins import PixelsStandIn
from tests.engines.test_plugin_build import H100, TENSORRT, house, request_of  # noqa: F401


@pytest.fixture
def layers(house, monkeypatch):  # noqa: F811
    """The stand-in house, with kernels of linear layers for 9.0 alone."""
    house.layers = LinearStandIn()

    def planner(capability, name):
        if capability != "9.0":
            raise Unsupported(f"kernels run on 9.0 alone, not {capability}")
        return house.layers

    monkeypatch.setitem(sys.modules, "engines.kernels.linear_library", SimpleNamespace(linear_planner=planner))
    house.pixels = PixelsStandIn()
    pixels = SimpleNamespace(pixels_planner=lambda capability, name: house.pixels)
    monkeypatch.setitem(sys.modules, "engines.kernels.pixels_plan", pixels)
    return house


@pytest.mark.parametrize("attention", ["plugin", "decomposed"])
def test_the_engine_and_its_manifest(layers, validation, tmp_path, attention):
    request = request_of(tmp_path, validation, attention=attention, linear="plugin")
    built = build(request)
    key = built.manifest.key
    assert (key.attention, key.options["linear"], key.kernels) == (attention, "plugin", ("kernels-1",))
    stored = read_manifest(built.path)
    assert len(stored.linear) == 10 and needs_plugin(stored)
    assert vars(stored.linear[0]) == {
        "node": "network.embed/MatMul",
        "form": "plugin",
        "why": "stand-in 64x64: the only one; folded: bias, statistics",
        "milliseconds": {"plugin": 0.25},
    }
    whole = "pixels of '{}': plugin: stand-in: the only one; folded: {}"
    assert stored.build.notes[:2] == (
        whole.format("image", "mul, add, patches of 8x8x3"),
        whole.format("dog", "patches of 8x8x3, mul, add, round, max, min"),
    )
    assert layers.requests[0]["plugins"] == ["/plugins/libcat2dog_8.6.0.so"]
    assert find(request).path == built.path
    plain = replace(request, linear="tensorrt")
    assert engine_key(plain, TENSORRT).key8 != key.key8 and "linear" not in engine_key(plain, TENSORRT).options


def test_no_layer_with_a_kernel(layers, validation, tmp_path):
    layers.layers.refuse = lambda problem: "none"
    built = build(request_of(tmp_path, validation, attention="decomposed", linear="plugin"))
    assert {(choice.form, choice.why) for choice in built.manifest.linear} == {("tensorrt", "none")}
    assert not layers.pixels.asked and not any("pixels" in note for note in built.manifest.build.notes)
    assert layers.requests[0]["plugins"] == []


def test_a_missing_library_is_said_with_both_ways_out(layers, validation, tmp_path, monkeypatch):
    def absent(version):
        raise InputError("the library is not here: make it")

    monkeypatch.setattr(sys.modules["runtime.plugins"], "find_plugin", absent)
    with pytest.raises(InputError, match=r"; or build with --attention decomposed --linear tensorrt$"):
        build(request_of(tmp_path, validation, attention="plugin", linear="plugin"))
    with pytest.raises(InputError, match=r"; or build with --linear tensorrt$"):
        build(request_of(tmp_path, validation, attention="decomposed", linear="plugin"))


@pytest.mark.parametrize(
    ("flavor", "precision", "gpu", "message"),
    [
        (TENSORRT, "fp32", H100, "its kernels are of half precision, not of FP32"),
        (replace(TENSORRT, name="tensorrt_rtx"), "fp16", H100, "tensorrt_rtx has no plugins"),
        (TENSORRT, "fp16", None, r"its kernels are chosen for the GPU they run on, .*"),
        (TENSORRT, "bf16", replace(H100, compute_capability="8.0"), "kernels run on 9.0 alone, not 8.0"),
    ],
)
def test_where_there_are_none(layers, flavor, precision, gpu, message):
    with pytest.raises(InputError, match=rf"^no plugin for linear layers: {message}; use --linear tensorrt$"):
        choose_linear("plugin", flavor, precision, gpu)
    assert choose_linear("tensorrt", flavor, precision, gpu) == "tensorrt"


def test_a_name_that_is_no_form(layers):
    with pytest.raises(InputError, match=r"^linear form 'cublas' is not one of plugin, tensorrt, auto$"):
        choose_linear("cublas", TENSORRT)


def refusing(monkeypatch, say):
    """A builder that says this, in place of a plan, of graphs with fused pixels; the graphs that it got."""
    graphs, build_plan = [], room.run_child

    def run_child(python, module, request, progress, verbose=False):
        nodes = onnx.load(request["onnx"], load_external_data=False).graph.node
        graphs.append({node.op_type for node in nodes})
        assert set(request["dispensable"]) >= {node.name for node in nodes if node.op_type == "FusedPixels"}
        if request["dispensable"]:
            raise ToolchainError(say)
        return build_plan(python, module, request, progress, verbose)

    monkeypatch.setattr(room, "run_child", run_child)
    return graphs


@pytest.mark.parametrize(
    "say",
    [
        "TensorRT 8.6.0 built no engine: Could not find any implementation for node dog/FusedPixels.",
        "TensorRT 8.6.0 built no engine: image/Cast_levels: no conversion",
        "engines.child was ended by SIGSEGV; nothing was filed",
    ],
)
def test_a_builder_that_refuses_fused_pixels_builds_without_them_and_says_so(
    layers, validation, tmp_path, monkeypatch, say
):
    graphs = refusing(monkeypatch, say)
    request, phases = request_of(tmp_path, validation, attention="plugin", linear="plugin"), []
    stored = read_manifest(build(request, lambda phase, fraction: phases.append(phase)).path)
    assert "FusedPixels" in graphs[0] and "FusedPixels" not in graphs[1] and "FusedLinear" in graphs[1]
    (note,) = [each for each in stored.build.notes if "pixels" in each]
    assert note == f"pixels: TensorRT's own layers after all, since it refused ours: {say}"
    assert "building again, with TensorRT's own layers for pixels" in phases
    assert {choice.form for choice in stored.linear} == {"plugin"}
    assert stored.linear[0].why == "stand-in 64x64: the only one; folded: bias, statistics"


@pytest.mark.parametrize("say", ["built no engine: out of workspace", "engines.child was ended by SIGKILL"])
def test_what_fails_for_another_reason_is_not_built_twice(layers, validation, tmp_path, monkeypatch, say):
    graphs = refusing(monkeypatch, say)
    with pytest.raises(ToolchainError, match=say):
        build(request_of(tmp_path, validation, attention="plugin", linear="plugin"))
    assert len(graphs) == 1
