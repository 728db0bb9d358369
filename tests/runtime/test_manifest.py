from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import EngineMismatch
from runtime.manifest import (
    MAX_BYTES,
    AttentionChoice,
    Build,
    EngineKey,
    EngineTensor,
    Gate,
    Manifest,
    manifest_path,
    read_manifest,
    sealed,
    write_manifest,
)

KEY = EngineKey(
    checkpoint="500m-256",
    onnx_sha256="a" * 64,
    weights_sha256="b" * 64,
    precision="fp16",
    attention="native",
    flavor="tensorrt_rtx",
    flavor_version="1.7.1.116",
    batch=(1, 4, 8),
    targets=("8.0", "12.0"),
    options={"optimization_level": 3, "strongly_typed": True, "workspace": None, "note": "x", "ratio": 0.5},
)
MANIFEST = Manifest(
    engine="500m-256_fp16_native_b1-8_0123abcd.engine",
    sha256="c" * 64,
    size=12345,
    key=KEY,
    gate=Gate("pending", "psnr", 30.0, "PyTorch fp32", proxy_scores=(51.5, math.inf)),
    build=Build(12.5, 1 << 30, "2026-11-23T10:00:00+00:00", "cat2dog build --model models/500m-256", {"numpy": "2.4"}),
    tensors=(EngineTensor("image", "input", "uint8", (-1, 256, 256, 3)),),
    attention=(AttentionChoice("/blocks.0/attention", "native", "fastest", {"native": 0.1, "decomposed": 0.2}),),
)


def stored(**changes) -> dict:
    return {**json.loads(MANIFEST.to_json()), **changes}


def problem(content: object) -> str:
    with pytest.raises(ValueError) as error:
        Manifest.from_json(content if isinstance(content, str) else json.dumps(content))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_round_trip(tmp_path):
    engine = tmp_path / "x.engine"
    assert write_manifest(engine, MANIFEST) == manifest_path(engine) == tmp_path / "x.json"
    assert read_manifest(engine) == MANIFEST
    assert json.loads((tmp_path / "x.json").read_text())["schema"] == 2


def test_key8_is_the_canonical_hash_and_changes_with_every_field():
    # Fixed on purpose: file names on users' disks depend on it.
    assert replace(KEY, options={}).key8 == "5c699458"
    others = {
        "checkpoint": "1b-256",
        "onnx_sha256": "0" * 64,
        "weights_sha256": "0" * 64,
        "precision": "bf16",
        "attention": "plugin",
        "flavor": "tensorrt",
        "flavor_version": "1.7.2",
        "batch": (1, 1, 8),
        "gpu": "NVIDIA H200",
        "compute_capability": "9.0",
        "targets": ("8.0",),
        "kernels": ("d" * 64,),
        "options": {},
    }
    assert others.keys() == {name for name in KEY.__dataclass_fields__}
    assert len({KEY.key8} | {replace(KEY, **{name: value}).key8 for name, value in others.items()}) == len(others) + 1


def test_a_manifest_of_before_there_was_a_choice_of_linear_layers():
    content = stored()
    del content["linear"]
    assert Manifest.from_json(json.dumps(content)).linear == ()


def test_key8_does_not_depend_on_the_order_of_options():
    assert replace(KEY, options={"a": 1, "b": 2}).key8 == replace(KEY, options={"b": 2, "a": 1}).key8


@pytest.mark.parametrize("field", [field for field in stored() if field != "linear"])
def test_every_field_is_needed(field):
    content = stored()
    del content[field]
    assert problem(content) == f"manifest lacks '{field}'"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "manifest is a list, expected an object"),
        (stored(schema=1), "its schema is 1, this version reads 2"),
        (stored(schema=True), "manifest.schema is a boolean, expected a whole number"),
        (stored(size=-1), "manifest.size is out of range, expected 0 to 2**63-1"),
        (stored(size=1.5), "manifest.size is a number, expected a whole number"),
        (stored(sha256="C" * 64), f"manifest.sha256 is '{'C' * 64}', expected 64 hex digits"),
        (stored(extra=1), "manifest has an unknown field 'extra'"),
        (stored(key8="00000000"), "its key8 is '00000000', but its key gives"),
        (stored(tensors={}), "manifest.tensors is an object, expected a list"),
        (stored(tensors=[{"name": "x"}]), "manifest.tensors[0] lacks 'mode'"),
        (
            stored(key={**stored()["key"], "batch": [4, 1, 8]}),
            "manifest.key.batch is [4, 1, 8], expected [min, opt, max]",
        ),
        (stored(key={**stored()["key"], "precision": "fp8"}), "manifest.key.precision is 'fp8', expected one of fp32,"),
        (stored(key={**stored()["key"], "targets": []}), "manifest.key names neither targets nor a gpu"),
        (stored(key={**stored()["key"], "targets": ["sm80"]}), "manifest.key.targets[0] is 'sm80', expected a compute"),
        (stored(gate={**stored()["gate"], "state": "good"}), "manifest.gate.state is 'good', expected one of passed,"),
        (
            stored(gate={**stored()["gate"], "scores": ["nan"]}),
            "manifest.gate.scores[0] is a text, expected a number",
        ),
        (stored(build={**stored()["build"], "command": "a\nb"}), "manifest.build.command has a control character"),
        (stored(build={**stored()["build"], "date": "\ud800"}), "manifest.build.date is not valid Unicode"),
        (stored(build={**stored()["build"], "date": "x" * 5000}), "manifest.build.date has 5000 characters"),
        ('{"schema": 1, "schema": 1}', "it gives a field twice"),
        ('{"schema": NaN}', "it holds NaN, which is not JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        ("", "Expecting value"),
        (" " * (MAX_BYTES + 1), f"it is larger than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_refused(content, message):
    assert problem(content).startswith(message)


@pytest.mark.parametrize(
    "name",
    ["../x.engine", "/etc/x.engine", "a/b.engine", "a\\b.engine", ".x.engine", "x", "x.engine/", "", "x.engine\0"],
)
def test_engine_is_a_plain_file_name(name):
    assert "manifest.engine" in problem(stored(engine=name))


def test_an_unsound_manifest_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.size is out of range"):
        write_manifest(tmp_path / "x.engine", replace(MANIFEST, size=-5))
    assert not list(tmp_path.iterdir())


def test_missing_and_damaged_files_say_how_to_rebuild(tmp_path):
    engine = tmp_path / "500m-256_fp16_native_b1_0123abcd.engine"
    advice = "build it again: `cat2dog build --model models/500m-256 --precision fp16`"
    with pytest.raises(EngineMismatch) as error:
        read_manifest(engine)
    assert str(error.value) == f"{engine} has no manifest {engine.stem}.json beside it; {advice}"
    manifest_path(engine).write_bytes(b"\xff\xfe")
    with pytest.raises(EngineMismatch, match=r"manifest .* is damaged: .*utf-8.*; build it again: "):
        read_manifest(engine)
    manifest_path(engine).write_text(MANIFEST.to_json())
    with pytest.raises(EngineMismatch, match=r"is damaged: it has no seal, as older versions wrote it; "):
        read_manifest(engine)
    manifest_path(engine).write_text(sealed(MANIFEST.to_json())[:-40])
    with pytest.raises(EngineMismatch) as error:
        read_manifest(engine)
    assert "\n" not in str(error.value) and str(error.value).endswith(advice)
    with pytest.raises(EngineMismatch, match=r"build it again with `cat2dog build`$"):
        read_manifest(tmp_path / "other.engine")


def test_an_endless_manifest_is_not_read_whole(tmp_path):
    os.symlink("/dev/zero", tmp_path / "x.json")
    with pytest.raises(EngineMismatch, match="it is larger than 1048576 bytes"):
        read_manifest(tmp_path / "x.engine")


def test_every_flipped_bit_of_the_file_is_seen(tmp_path):
    path = write_manifest(tmp_path / "x.engine", MANIFEST)
    sound = path.read_bytes()
    assert sound.startswith(b'{\n  "seal": "') and json.loads(sound)["engine"] == MANIFEST.engine
    for index in range(len(sound)):
        path.write_bytes(sound[:index] + bytes([sound[index] ^ (1 << index % 8)]) + sound[index + 1 :])
        with pytest.raises(EngineMismatch, match=r"is damaged: .*; build it again"):
            read_manifest(tmp_path / "x.engine")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def sound_or_value_error(text: str) -> None:
    try:
        manifest = Manifest.from_json(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert Manifest.from_json(manifest.to_json()) == manifest


@given(json_values)
def test_any_json_is_a_value_error(value):
    sound_or_value_error(json.dumps(value))


@given(st.text())
def test_any_text_is_a_value_error(text):
    sound_or_value_error(text)


def paths_of(value, path=()):
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in pairs:
        yield from paths_of(entry, (*path, name))


@given(st.sampled_from(list(paths_of(stored()))[1:]), json_values)
def test_any_value_anywhere_is_refused_or_kept(path, value):
    content = stored()
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    sound_or_value_error(json.dumps(content))


@given(st.data())
def test_any_changed_byte_is_refused_or_kept(data):
    text = bytearray(MANIFEST.to_json().encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 127))
    sound_or_value_error(text.decode())
