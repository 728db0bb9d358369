"""The repository as files: what is in it, refused, and replaced; its configurations by Triton's own schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from runtime.errors import AccuracyError, EngineMismatch, InputError
from runtime.images import Limits
from runtime.manifest import EngineTensor
from serving.model_configs import Tuning
from serving.pbtxt import Word, pbtxt
from serving.repository import networks_of, write_repository
from tests.serving.plans import write_plan

LIMITS = Limits(pixels=4000, file_bytes=100_000)


def write(out, *engines, **tuning):
    return write_repository(out, list(engines), Tuning(**tuning), LIMITS)


def parsed(path):
    """A configuration by the protocol buffers that Triton itself reads it with."""
    model_config_pb2 = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="Triton's schema is in the serving environment: make test-serving"
    )
    from google.protobuf import text_format

    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_text_format():
    message = {"name": 'a"b\\', "kind": Word("KIND_GPU"), "dims": [1, -2], "no": None, "yes": True, "inner": {"x": 1.5}}
    text = 'name: "a\\"b\\\\"\nkind: KIND_GPU\ndims: 1\ndims: -2\nyes: true\ninner {\n  x: 1.5\n}\n'
    assert pbtxt(message) == text
    with pytest.raises(TypeError, match="object cannot be written"):
        pbtxt({"x": object()})


def test_files_of_two_checkpoints_and_two_gpus(tmp_path):
    engines = [write_plan(tmp_path / "e", capability=each) for each in ("9.0", "8.0")]
    other = write_plan(tmp_path / "e", "tiny-32", 32)
    models = write(tmp_path / "out", *engines, other)
    expected = [f"{name}{kind}" for name in ("tiny-16", "tiny-32") for kind in ("", "_decode", "_encode", "_picture")]
    assert models == expected
    assert sorted(os.listdir(tmp_path / "out")) == ["cat2dog.json", "models", "start.sh"]
    assert sorted(os.listdir(tmp_path / "out/models")) == sorted(expected)
    version = tmp_path / "out/models/tiny-16/1"
    assert sorted(os.listdir(version)) == ["model_sm80.plan", "model_sm90.plan"]
    assert (version / "model_sm90.plan").read_bytes() == engines[0].read_bytes()
    assert not list(tmp_path.glob(".tmp*"))


def test_the_networks_configuration(tmp_path):
    engines = [write_plan(tmp_path / "e", capability=each) for each in ("9.0", "10.0")]
    write(tmp_path / "out", *engines, instances=3, gather_ms=1.5, queue=7, timeout=2.0)
    config = parsed(tmp_path / "out/models/tiny-16/config.pbtxt")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 4)
    assert dict(config.cc_model_filenames) == {"9.0": "model_sm90.plan", "10.0": "model_sm100.plan"}
    assert config.default_model_filename == "model_sm100.plan"
    (given,), (made,) = config.input, config.output
    assert (given.name, given.data_type, list(given.dims)) == ("image", 2, [16, 16, 3])  # 2: TYPE_UINT8
    assert (made.name, made.data_type, list(made.dims)) == ("dog", 2, [16, 16, 3])
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, 1)  # KIND_GPU
    batching = config.dynamic_batching
    assert batching.max_queue_delay_microseconds == 1500
    assert batching.default_queue_policy.max_queue_size == 7
    assert batching.default_queue_policy.default_timeout_microseconds == 2_000_000
    graphs = config.optimization.cuda.graph_spec
    assert config.optimization.cuda.graphs and [each.batch_size for each in graphs] == [1, 2, 3, 4]
    assert list(graphs[0].input["image"].dim) == [16, 16, 3]
    assert [each.batch_size for each in config.model_warmup] == [1, 2, 3, 4]
    assert config.model_warmup[0].inputs["image"].random_data


def test_the_models_around_it(tmp_path):
    write(tmp_path / "out", write_plan(tmp_path / "e"), format="jpeg", quality=80)
    models = tmp_path / "out/models"
    decode, encode, picture = (
        parsed(models / f"tiny-16_{each}/config.pbtxt") for each in ("decode", "encode", "picture")
    )
    assert decode.parameters["resolution"].string_value == "16"
    assert decode.parameters["most_pixels"].string_value == "4000"
    assert encode.parameters["format"].string_value == "jpeg" and encode.parameters["quality"].string_value == "80"
    steps = picture.ensemble_scheduling.step
    assert [each.model_name for each in steps] == ["tiny-16_decode", "tiny-16", "tiny-16_encode"]
    assert dict(steps[1].input_map) == {"image": "pixels"} and dict(steps[1].output_map) == {"dog": "drawn"}
    assert (models / "tiny-16_decode/1/model.py").exists() and (models / "tiny-16_decode/1/runtime/images.py").exists()


def test_an_engine_for_one_picture_has_its_whole_shape(tmp_path):
    write(tmp_path / "out", write_plan(tmp_path / "e", batch=(1, 1, 1)))
    config = parsed(tmp_path / "out/models/tiny-16/config.pbtxt")
    assert config.max_batch_size == 0 and list(config.input[0].dims) == [1, 16, 16, 3]
    assert not config.HasField("dynamic_batching")


def test_a_network_of_something_else_stands_alone(tmp_path):
    tensors = (EngineTensor("x", "input", "float32", (-1, 3, 8, 8)), EngineTensor("y", "output", "float16", (-1, 10)))
    assert write(tmp_path / "out", write_plan(tmp_path / "e", "net", tensors=tensors)) == ["net"]
    config = parsed(tmp_path / "out/models/net/config.pbtxt")
    assert (config.input[0].data_type, config.output[0].data_type) == (11, 10)  # TYPE_FP32, TYPE_FP16


def test_plugins_travel_and_the_script_loads_them(tmp_path, monkeypatch):
    library = tmp_path / "libcat2dog_plugin_trt10.so"
    library.write_bytes(b"library")
    monkeypatch.setenv("CAT2DOG_PLUGIN", str(library))
    out = tmp_path / "out dir"
    write(out, write_plan(tmp_path / "e", form="plugin"))
    assert (out / "plugins" / library.name).read_bytes() == b"library"
    echo = tmp_path / "tritonserver"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    environment = {**os.environ, "TRITONSERVER": str(echo), "PYTHON": sys.executable}
    done = subprocess.run([out / "start.sh", "--id=x"], env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert f"--backend-config=tensorrt,plugins={out}/plugins/{library.name}" in words
    assert f"--model-repository={out}/models" in words
    assert "--http-address=127.0.0.1" in words and words[-1] == "--id=x"


def test_without_plugins_none_are_named(tmp_path):
    write(tmp_path / "out", write_plan(tmp_path / "e"))
    assert "plugins=" not in (tmp_path / "out/start.sh").read_text()
    done = subprocess.run(
        [tmp_path / "out/start.sh"],
        env={**os.environ, "TRITONSERVER": "no-such-server"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "error: no no-such-server" in done.stderr


def test_a_second_time_replaces_and_leaves_what_is_foreign(tmp_path):
    out = tmp_path / "out"
    write(out, write_plan(tmp_path / "e"), write_plan(tmp_path / "e", "tiny-32", 32))
    write(out, write_plan(tmp_path / "e"))
    assert "tiny-32" not in os.listdir(out / "models")
    (out / "models/mine").mkdir()
    with pytest.raises(InputError, match="holds 'mine', which `cat2dog triton-repo` did not write"):
        write(out, write_plan(tmp_path / "e"))
    assert (out / "models/mine").is_dir()
    (out / "models/mine").rmdir()
    (out / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match=r"holds 'notes.txt'"):
        write(out, write_plan(tmp_path / "e"))


@pytest.mark.parametrize("content", ["{", "[]", '{"models": 3}'])
def test_a_damaged_marker_is_left_alone(tmp_path, content):
    out = tmp_path / "out"
    write(out, write_plan(tmp_path / "e"))
    (out / "cat2dog.json").write_text(content)
    with pytest.raises(InputError, match=r"cat2dog.json is damaged"):
        write(out, write_plan(tmp_path / "e"))


def test_a_folder_of_something_else_and_a_file_are_left_alone(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("dear")
    with pytest.raises(InputError, match="did not write; give an empty or new folder"):
        write(tmp_path / "home", write_plan(tmp_path / "e"))
    with pytest.raises(InputError, match="is no folder"):
        write(tmp_path / "home/letter", write_plan(tmp_path / "e"))
    assert (tmp_path / "home/letter").read_text() == "dear"


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(out, write_plan(tmp_path / "e"))
    before = json.loads((out / "cat2dog.json").read_text())

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.repository.start_script", full)
    with pytest.raises(OSError, match="No space"):
        write(out, write_plan(tmp_path / "e", "tiny-32", 32))
    assert json.loads((out / "cat2dog.json").read_text()) == before
    assert not list(tmp_path.glob(".tmp*"))


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        ({"flavor": "tensorrt_rtx"}, InputError, "Triton's backend loads TensorRT's"),
        ({"gate": "pending"}, AccuracyError, "has not passed its accuracy gate yet"),
        ({"gate": "failed"}, AccuracyError, "was refused by the accuracy gate"),
        ({"batch": (2, 4, 4)}, InputError, "build with --batch 1-4"),
        ({"checkpoint": "_tiny"}, InputError, "cannot name a Triton model"),
    ],
)
def test_engines_that_triton_cannot_use_are_refused(tmp_path, given, error, reason):
    with pytest.raises(error, match=reason):
        networks_of([write_plan(tmp_path, **given)])


def test_an_altered_engine_is_refused(tmp_path):
    path = write_plan(tmp_path)
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(EngineMismatch, match="was altered"):
        networks_of([path])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"date": "2026-02-02"}, "are both tiny-16 for compute capability 9.0"),
        ({"capability": "8.0", "batch": (1, 8, 8)}, "other tensors or batches"),
        ({"capability": "8.0", "flavor_version": "10.10.0.31"}, "one Triton has one TensorRT"),
    ],
)
def test_engines_that_cannot_stand_beside_each_other_are_refused(tmp_path, other, reason):
    with pytest.raises(InputError, match=reason):
        networks_of([write_plan(tmp_path), write_plan(tmp_path, **other)])


@pytest.mark.parametrize(
    "given",
    [{"instances": 0}, {"gather_ms": -1.0}, {"queue": 0}, {"timeout": 0.0}, {"quality": 5}],
)
def test_impossible_tunings_are_refused(given):
    with pytest.raises(InputError, match=r"takes|expected"):
        Tuning(**given)
