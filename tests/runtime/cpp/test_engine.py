"""Engines, behind stand-ins for TensorRT and the CUDA driver: lines, a CUDA graph, and everything that is refused."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from runtime.manifest import (
    AttentionChoice,
    Build,
    EngineKey,
    Gate,
    Manifest,
    manifest_path,
    sealed,
    write_manifest,
)
from tests.runtime.cpp.conftest import ROOT
from zoo.resnet50 import pixels

pytestmark = pytest.mark.xdist_group("cpp_runner")
IMAGES = sorted((ROOT / "images").glob("*.jpg"))


def engine(folder, major, plan=b"FAKE", gate="passed", attention=(), **key):
    path = folder / "resnet50_fp16_none_b1-1_0.engine"
    path.write_bytes(plan)
    fields = {
        "gpu": "Fake GPU",
        "compute_capability": "9.0",
        "flavor": "tensorrt",
        "flavor_version": f"{major}.6.0",
        **key,
    }
    manifest = Manifest(
        engine=path.name,
        sha256=hashlib.sha256(plan).hexdigest(),
        size=len(plan),
        key=EngineKey("resnet50-random", "0" * 64, "1" * 64, "fp16", "none", **fields),
        gate=Gate(gate, "cosine", 0.999, "PyTorch FP32 eager, 4 samples", (0.9999,) if gate != "pending" else ()),
        build=Build(1.0, 1, "2026-01-01", "cat2dog build --recipe zoo.resnet50.recipe:resnet50"),
        attention=attention,
    )
    write_manifest(path, manifest)
    return path


def run(runner, fake, path, *arguments, images=IMAGES, **environment):
    given = ["--network", path, "--images", *images, "--library", fake, *arguments]
    return runner.run(*given, **{"CAT2DOG_LIBCUDA": str(fake), **environment})


def expected(index):
    """What the stand-in answers: logits, mean and variance are the crop's first bytes."""
    crop = pixels.read_crop(IMAGES[index], 0, index).reshape(-1)
    logits = crop[:1000].astype(np.float32) / np.float32(255)
    first, second = np.argsort(-logits, kind="stable")[:2]
    return (
        f"mean: {crop[0]:.6f} variance: {crop[1]:.6f} of image #{index + 1}",
        f"a class {first} and ",
        f"a class {second}",
    )


def test_pictures_through_an_engine(runner, fake, major, tmp_path):
    done = run(runner, fake, engine(tmp_path, major), "--json", "--rounds", 2)
    assert done.returncode == 0, done.stderr
    assert f'"TensorRT {major}.6.0, Fake GPU, CUDA graph"' in done.stdout.splitlines()[0]
    assert done.stdout.count('"image": ') == 2 * len(IMAGES)
    lines = run(runner, fake, engine(tmp_path, major)).stdout.splitlines()
    # The first picture runs before the graph is captured, the others are the graph's.
    for index in range(len(IMAGES)):
        first, one, other = expected(index)
        assert lines[2 * index] == first
        assert one in lines[2 * index + 1] and lines[2 * index + 1].endswith(other)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"flavor_version": "7.0.0"}, 4, "was built by tensorrt 7.0.0, but here is tensorrt"),
        ({"flavor": "tensorrt_rtx"}, 4, "was built by tensorrt_rtx"),
        ({"gpu": "Other GPU"}, 4, "was built for another GPU than Fake GPU (compute capability 9.0)"),
        ({"compute_capability": "8.0"}, 4, "was built for another GPU"),
        ({"targets": ("8.0",)}, 4, "was built for another GPU"),
        ({"gate": "failed"}, 3, "was refused by the accuracy gate"),
        ({"gate": "pending"}, 2, "has not passed its gate yet; `cat2dog accuracy --engine"),
        ({"plan": b"FAKE broken"}, 4, ": the plan is of another machine"),
        ({"plan": b"FAKE smaller"}, 2, "is no network of this family: it has a tensor 'logits' of another kind"),
        ({"attention": (AttentionChoice("n", "plugin"),)}, 2, "has fused kernels: give --plugins build/plugin/"),
    ],
)
def test_what_is_refused(runner, fake, major, tmp_path, change, code, words):
    done = run(runner, fake, engine(tmp_path, major, **change))
    assert (done.returncode, done.stderr.count("\n")) == (code, 1) and words in done.stderr, done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"hardware_compatibility": "ampere_plus"}, "gpu": "Other GPU", "compute_capability": "8.0"},
        {"options": {"hardware_compatibility": "same_compute_capability"}, "gpu": "Other GPU"},
        {"targets": ("8.0", "9.0"), "gpu": None, "compute_capability": None},
    ],
)
def test_an_engine_for_several_gpus(runner, fake, major, tmp_path, change):
    done = run(runner, fake, engine(tmp_path, major, **change), images=IMAGES[:1])
    assert done.returncode == 0, done.stderr


def test_altered_files(runner, fake, major, tmp_path):
    path = engine(tmp_path, major)
    path.write_bytes(b"FAKF")
    done = run(runner, fake, path)
    assert done.returncode == 4 and "was altered: its sha256 begins with" in done.stderr
    path.write_bytes(b"FAKE and more")
    assert "has 13 bytes, but 4 were built" in run(runner, fake, path).stderr
    engine(tmp_path, major)
    manifest = manifest_path(path)
    text = manifest.read_text()
    manifest.write_text(text.replace("Fake GPU", "Fake GPV"))
    done = run(runner, fake, path)
    assert done.returncode == 4 and "it was altered: its seal is of another text" in done.stderr
    manifest.write_text("{}")
    assert "it has no seal" in run(runner, fake, path).stderr
    manifest.write_bytes(b" " * (2 << 20))
    done = run(runner, fake, path)
    assert done.returncode == 4 and "more than the 1048576 allowed" in done.stderr
    manifest.unlink()
    done = run(runner, fake, path)
    assert done.returncode == 4 and "has no manifest" in done.stderr


def test_an_error_is_one_line_whatever_the_manifest_says(runner, fake, major, tmp_path):
    path = engine(tmp_path, major)
    manifest = manifest_path(path)
    rest = manifest.read_text().partition('",\n')[2].replace("cat2dog build", r"cat2dog\n\u001b[2J\u007f build")
    manifest.write_text(sealed("{\n" + rest))
    path.write_bytes(b"FAKF")
    done = run(runner, fake, path)
    assert done.returncode == 4 and done.stderr.endswith(
        "`cat2dog??[2J? build --recipe zoo.resnet50.recipe:resnet50`\n"
    )


def test_another_tensorrt_than_the_headers(runner, fake, major, tmp_path):
    done = run(runner, fake, engine(tmp_path, major), FAKE_TENSORRT_VERSION="120000")
    assert done.returncode == 2 and "this is TensorRT 12.0.0, but the runner was built for version" in done.stderr


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("cuInit", "starting CUDA failed: CUDA error 2, as the test wants it"),
        ("cuMemAlloc", "taking GPU memory failed"),
        ("cuGraphInstantiate", "making a CUDA graph failed"),
        ("cuStreamSynchronize", "running the engine failed"),
    ],
)
def test_a_gpu_that_fails(runner, fake, major, tmp_path, call, words):
    """Nothing is left behind either: the leak check is on."""
    done = run(runner, fake, engine(tmp_path, major), FAKE_GPU=f"fail:{call}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and words in done.stderr, done.stderr


def test_no_driver_and_no_tensorrt(runner, fake, major, tmp_path):
    path = engine(tmp_path, major)
    done = run(runner, fake, path, CAT2DOG_LIBCUDA="/absent.so")
    assert done.returncode == 2 and "the CUDA driver cannot be loaded" in done.stderr
    given = ["--network", path, "--images", *IMAGES, "--library", "/absent.so"]
    done = runner.run(*given, CAT2DOG_LIBCUDA=str(fake))
    assert done.returncode == 2 and "TensorRT " in done.stderr and "give --library FILE" in done.stderr


def test_every_state_of_the_gate_is_known():
    """The C++ side has a list of its own."""
    from runtime.manifest import GATE_STATES, SCHEMA

    assert set(GATE_STATES) == {"passed", "failed", "pending"} and SCHEMA == 2
    assert {field.name for field in dataclasses.fields(Manifest)} >= {"attention", "linear", "gate", "key"}
