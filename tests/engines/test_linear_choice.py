"""`--linear auto` with stand-ins for TensorRT, the GPU and the kernels, and with times that a test makes up."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import onnx
import pytest

from engines import build as room
from engines.batch import BatchProfile
from engines.build import build, engine_key, find
from engines.form import choose_linear
from engines.linear_report import linear_lines
from runtime.errors import InputError, ToolchainError
from runtime.manifest import read_manifest
from tests.engines.test_linear_build import layers  # noqa: F401
from tests.engines.test_plugin_build import H100, TENSORRT, house, request_of  # noqa: F401


class Timer:
    """Answers for the child that measures: `time(name, forms)` gives milliseconds, or a text that says what failed."""

    def __init__(self, build_child):
        self.build_child, self.requests, self.time = build_child, [], lambda name, forms: 1.0

    def __call__(self, python, module, request, progress, verbose=False):
        if module != "engines.measure_child":
            return self.build_child(python, module, request, progress, verbose)
        json.dumps(request)
        self.requests.append(request)
        units = []
        for unit in request["units"]:
            results = []
            for candidate in unit["candidates"]:
                onnx.load(candidate["onnx"], load_external_data=True)
                got = self.time(unit["name"], tuple(candidate["forms"].split()))
                results.append({"error": got} if isinstance(got, str) else {"milliseconds": got})
            units.append(results)
        return {"units": units, "version": "8.6.0"}


@pytest.fixture
def timer(layers, monkeypatch):  # noqa: F811
    timer = Timer(room.run_child)
    timer.house = layers
    monkeypatch.setattr(room, "run_child", timer)
    return timer


def per_layer(name, forms):
    """Kernels of ours are slow in the layer that leads out of an MLP, and fast elsewhere."""
    parts = name.split(", ")
    fast = {part: "tensorrt" if ".down/" in part else "plugin" for part in parts}
    return sum(1.0 if form == fast[part] else 2.0 for part, form in zip(parts, forms, strict=True))


def auto(tmp_path, validation, **changes):
    return request_of(tmp_path, validation, attention="plugin", linear="auto", **changes)


def forms_of(built):
    return {
        choice.node.removeprefix("network.").removesuffix("/MatMul"): choice.form for choice in built.manifest.linear
    }


def test_each_distinct_unit_is_measured_once_in_every_form(timer, validation, tmp_path):
    timer.time = per_layer
    built = build(auto(tmp_path, validation))
    (asked,) = timer.requests
    assert [unit["name"].replace("/MatMul", "").replace("network.", "") for unit in asked["units"]] == [
        "embed, blocks.0.attention.qkv",
        "blocks.0.attention.out, blocks.0.mlp.up",
        "blocks.0.mlp.down, blocks.1.attention.qkv",
        "blocks.1.mlp.down, head",
    ]
    pairs = ["tensorrt tensorrt", "plugin plugin", "plugin tensorrt", "tensorrt plugin"]
    assert all([each["forms"] for each in unit["candidates"]] == pairs for unit in asked["units"])
    assert asked["plugins"] == ["/plugins/libcat2dog_8.6.0.so"] and asked["profile"] == {"batch": [1, 2, 4]}
    assert asked["timing_cache"].endswith("_tensorrt8.6.0/timing.cache") and asked["options"] == {}
    assert 0 < asked["cold_bytes"] < 1 << 20, "a network whose weights stay in the L2 is measured with warm ones"
    assert not list(request_of(tmp_path).onnx.parent.glob(".tmp-*"))
    assert built.manifest.key.options["linear"] == "auto"
    forms = forms_of(built)
    assert {name for name, form in forms.items() if form == "tensorrt"} == {"blocks.0.mlp.down", "blocks.1.mlp.down"}
    lowered = [node.op_type for node in onnx.load(timer.house.requests[0]["onnx"], load_external_data=False).graph.node]
    assert lowered.count("FusedLinear") == 8 and lowered.count("MatMul") == 2


def test_the_manifest_and_the_report_say_what_was_measured(timer, validation, tmp_path):
    timer.time = per_layer
    built = build(auto(tmp_path, validation))
    stored = read_manifest(built.path).linear
    chosen = {choice.node: choice for choice in stored}["network.blocks.1.mlp.down/MatMul"]
    assert (chosen.form, chosen.milliseconds) == ("tensorrt", {"plugin": 3.0, "tensorrt": 2.0})
    assert chosen.why == (
        "measured: 64 tokens, 256 to 64, residual, statistics, batch 2, fp16 together with 64 tokens, layer norm, "
        "64 to 192, batch 2, fp16"
    )
    lines = linear_lines(built.manifest.key, stored)
    assert len(lines) == 8 and sum(int(line.split()[0]) for line in lines) == 10
    assert lines[2].startswith("2 x plugin, 2.0000 ms (TensorRT's own 3.0000): stand-in 64x64: the only one; folded: ")
    assert f"1 x TensorRT's own, 2.0000 ms (plugin 3.0000): {chosen.why}" in lines


def test_a_second_build_measures_nothing(timer, validation, tmp_path):
    timer.time = per_layer
    request = auto(tmp_path, validation)
    first = build(request)
    assert find(request).path == first.path and not build(request).fresh
    again = build(replace(request, force=True))
    assert again.fresh and forms_of(again) == forms_of(first) and len(timer.requests) == 1
    build(replace(request, workspace_mib=64))
    assert len(timer.requests) == 2, "other options make other engines"


def test_times_are_of_a_version_and_of_the_code_that_took_them(timer, validation, tmp_path, monkeypatch):
    build(auto(tmp_path, validation))
    build(auto(tmp_path, validation, flavor=replace(TENSORRT, version="8.6.0.7")))
    assert len(timer.requests) == 2, "both versions share a folder"
    monkeypatch.setattr(room, "_TIMING", room._TIMING[1:])
    build(auto(tmp_path, validation, force=True))
    assert len(timer.requests) == 3


def test_times_of_other_forms_are_measured_again(timer, validation, tmp_path):
    built = build(auto(tmp_path, validation))
    (times,) = (tmp_path / "engines").rglob("linear.json")
    known = json.loads(times.read_bytes())
    times.write_text(json.dumps({key: {"fast": 0.1, "": 0.2} for key in known}))
    again = build(auto(tmp_path, validation, force=True))
    assert len(timer.requests) == 2 and json.loads(times.read_bytes()) == known and forms_of(again) == forms_of(built)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"x": {"plugin": "fast"}}', b"\xff" * 9])
def test_damaged_times_are_measured_again(timer, validation, tmp_path, damage):
    build(auto(tmp_path, validation))
    (times,) = (tmp_path / "engines").rglob("linear.json")
    times.write_bytes(damage)
    build(auto(tmp_path, validation, force=True))
    assert len(timer.requests) == 2 and json.loads(times.read_bytes())


def test_layers_that_depend_on_each_other_are_chosen_together(timer, validation, tmp_path):
    """Of two that are slower when only one of them is fused, none is."""
    best = {("plugin", "plugin"): 1.5, ("tensorrt", "tensorrt"): 1.0}
    timer.time = lambda name, forms: best.get(forms, 9.0)
    built = build(auto(tmp_path, validation))
    assert set(forms_of(built).values()) == {"tensorrt"}
    assert built.manifest.linear[0].milliseconds == {"plugin": 1.5, "tensorrt": 1.0}


def test_what_fails_in_one_form_is_chosen_among_the_others(timer, validation, tmp_path):
    timer.time = lambda name, forms: "no tactic" if forms[0] == "plugin" else per_layer(name, forms)
    built = build(auto(tmp_path, validation))
    assert forms_of(built)["embed"] == "tensorrt" and forms_of(built)["blocks.0.attention.qkv"] == "plugin"
    assert "measured but for plugin plugin: no tactic; plugin tensorrt: no tactic: " in built.manifest.linear[0].why
    timer.time = lambda name, forms: 1.0 if set(forms) == {"plugin"} else 2.0
    again = build(auto(tmp_path, validation, force=True))
    assert forms_of(again)["embed"] == "plugin", "what failed once, for want of memory say, is tried again"


def test_what_cannot_be_measured_follows_the_tuning_table_and_says_so(timer, validation, tmp_path):
    timer.time = lambda name, forms: "no tactic"
    built = build(auto(tmp_path, validation))
    assert set(forms_of(built).values()) == {"plugin"}, "the stand-in's kernels have times of this GPU"
    first = built.manifest.linear[0]
    assert "not measured (tensorrt tensorrt: no tactic; " in first.why
    assert "): its kernels are tuned on this GPU: 64 tokens" in first.why and first.milliseconds == {"plugin": 0.25}
    build(auto(tmp_path, validation, force=True))
    assert len(timer.requests) == 2, "what failed is tried again"


def test_forms_that_were_timed_in_other_precisions_are_noted(timer, validation, tmp_path, monkeypatch):
    def held(*given):
        answer = timer(*given)
        for unit in answer.get("units", ()):
            unit[0]["held"] = "built with every layer in FP32"
        return answer

    monkeypatch.setattr(room, "run_child", held)
    notes = build(auto(tmp_path, validation)).manifest.build.notes
    assert "linear layers: 4 of these forms were built with every layer in FP32" in notes


def test_a_child_that_dies_is_said_with_the_ways_out(timer, validation, tmp_path, monkeypatch):
    def die(python, module, request, progress, verbose=False):
        raise ToolchainError(f"{module} was ended by SIGSEGV; nothing was filed")

    monkeypatch.setattr(room, "run_child", die)
    with pytest.raises(
        ToolchainError, match=r"^measuring linear layers: .* SIGSEGV.*; or build with --linear tensorrt"
    ):
        build(auto(tmp_path, validation))
    assert not list(request_of(tmp_path).onnx.parent.glob(".tmp-*"))


def test_where_nothing_is_to_be_chosen(timer, validation, tmp_path):
    for changes in ({"flavor": replace(TENSORRT, name="tensorrt_rtx")}, {"precision": "fp32"}):
        flavor, precision = changes.get("flavor", TENSORRT), changes.get("precision", "fp16")
        assert choose_linear("auto", flavor, precision, H100) == "tensorrt"
    assert choose_linear("auto", TENSORRT, "fp16", None) == "tensorrt"
    assert choose_linear("auto", TENSORRT, "fp16", replace(H100, compute_capability="8.0")) == "tensorrt"
    assert choose_linear("auto", TENSORRT, "fp16", H100) == "auto"
    plain = request_of(tmp_path, attention="decomposed", flavor=replace(TENSORRT, name="tensorrt_rtx"))
    keys = {engine_key(replace(plain, linear=form), plain.flavor).key8 for form in ("auto", "tensorrt")}
    assert len(keys) == 1, "where auto has no choice it is the same engine"
    key = engine_key(replace(plain, linear="auto"), plain.flavor)
    assert linear_lines(key, ()) == ["TensorRT's own: tensorrt_rtx has no plugins"]
    asked = engine_key(request_of(tmp_path, linear="tensorrt"), TENSORRT)
    assert linear_lines(asked, ()) == ["TensorRT's own: as asked"]


def test_a_fixed_batch_is_checked_as_one_sample_with_the_same_choice(timer, validation, tmp_path, monkeypatch):
    lowered = []
    check = room.check_range
    monkeypatch.setattr(room, "check_range", lambda path, *given: lowered.append(path) or check(path, *given))
    timer.time = per_layer
    built = build(auto(tmp_path, validation, batch=BatchProfile(4, 4, 4)))
    assert len(timer.requests) == 1 and timer.requests[0]["profile"] == {"batch": [4, 4, 4]}
    nodes = [node.op_type for node in onnx.load(lowered[0], load_external_data=False).graph.node]
    assert ".plugin_b1-1_" in lowered[0].name and nodes.count("FusedLinear") == 8
    assert [*forms_of(built).values()].count("plugin") == 8


def test_a_library_that_is_missing_is_said_before_anything_is_measured(timer, validation, tmp_path, monkeypatch):
    def absent(version):
        raise InputError("the library is not here: make it")

    monkeypatch.setattr(sys.modules["runtime.plugins"], "find_plugin", absent)
    with pytest.raises(InputError, match=r"^the library is not here: make it; or build with --linear tensorrt"):
        build(auto(tmp_path, validation))
    assert not timer.requests
