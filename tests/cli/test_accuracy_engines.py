"""`cat2dog accuracy --determinism` and `--engine`, as a user without a GPU meets them, and on stand-ins."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cli import accuracy_command, accuracy_determinism
from cli.accuracy_engines import given_engines
from cli.main import main, parse
from runtime.errors import InputError
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from runtime.manifest import Gate, write_manifest
from tests.accuracy.test_determinism import FEED, Doubler
from tests.runtime.test_manifest import MANIFEST

pytestmark = pytest.mark.xdist_group("shop")

RECIPE = SimpleNamespace(name="500m-256", validation=lambda: FEED)
QUIET = lambda what, fraction: None  # noqa: E731


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An engine file with a manifest whose gate passed; a GPU; and a stand-in for what runs it."""
    path = tmp_path / MANIFEST.engine
    path.write_bytes(b"plan")
    write_manifest(path, replace(MANIFEST, gate=Gate("passed", "psnr", 30.0, "PyTorch", scores=(50.0,))))
    flavor = Flavor("tensorrt_rtx", "1.7.1.116", sys.executable, can_build=True, can_run=True)
    monkeypatch.setattr("runtime.gpu.find_gpus", lambda: [Gpu(0, "NVIDIA A100", "8.0", 80 << 30, "13.0")])
    monkeypatch.setattr("runtime.flavors.find_flavor", lambda name: flavor)
    monkeypatch.setattr("runtime.engine_file.check_engine", lambda *given: None)
    monkeypatch.setattr("runtime.tensorrt_runner.TensorRTRunner", lambda path, lanes=2: Doubler(most=4))
    return path


def asked(engine, *words):
    return parse(["accuracy", "--model", "models/500m-256", "--engine", str(engine), *words])


def test_an_engine_given_is_the_one_that_is_judged(engine):
    (path,) = given_engines(asked(engine), RECIPE, QUIET)
    with accuracy_command._house_runner(path, path.name) as runner:
        assert np.array_equal(runner.infer({"x": FEED["x"][:1]})["y"], 2 * FEED["x"][:1])
    assert runner.name == engine.name


def test_an_engine_twice(engine):
    facts = accuracy_determinism._measure(asked(engine, "--determinism"), RECIPE, QUIET)
    assert facts["what"] == "tensorrt_rtx 1.7.1.116 (one engine, loaded twice)" and facts["precision"] == "fp16"
    assert facts["builds"]["equal"] == facts["builds"]["comparisons"] == 3 and facts["batch"] == 4
    facts = accuracy_determinism._measure(asked(engine, str(engine), "--determinism"), RECIPE, QUIET)
    assert facts["what"].endswith("(2 engines)")


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        (SimpleNamespace(name="1b-512"), (), "is an engine of 500m-256, not of 1b-512: give its --model"),
        (RECIPE, ("--precision", "bf16"), "is of fp16: give --precision fp16"),
    ],
)
def test_an_engine_of_something_else(engine, recipe, words, message):
    with pytest.raises(InputError, match=message):
        given_engines(asked(engine, *words), recipe, QUIET)


def test_an_engine_that_cannot_run_here(engine, monkeypatch):
    monkeypatch.setattr("runtime.gpu.find_gpus", lambda: [])
    with pytest.raises(InputError, match="cannot run here: "):
        given_engines(asked(engine), RECIPE, QUIET)


def test_onnx_runtime_twice(shop, exported):
    words = ("accuracy", "--model", "models/tiny-128", "--determinism", "2", "--output", "same")
    done = shop.cat2dog(*words)
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in done.stdout and "two sessions" in done.stdout and "same/determinism.json" in done.stdout
    facts = json.loads((shop.folder / "same/determinism.json").read_text())
    assert facts["again"]["comparisons"] == 5 and facts["positions"]["comparisons"] == 5 * 3 and facts["batch"] == 4
    assert facts["again"]["equal"] == 5 and facts["builds"]["largest"] <= 1
    assert facts["machine"]["command"] == "cat2dog " + " ".join(words) and facts["machine"]["versions"]["onnxruntime"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--determinism", "1"), "--determinism 1 repeats nothing: give at least 2"),
        (("--determinism", "--search"), "ask one at a time"),
        (("--engine", "none.engine", "--determinism"), "none.engine"),
        (("--engine", "none.engine"), "none.engine"),
    ],
)
def test_what_cannot_be_asked(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cli.compose.exported", lambda *given: pytest.fail("minutes were spent before it was said"))
    model = Path(__file__).resolve().parents[2] / "models/tiny-128"
    given = ["accuracy", "--model", str(model), *words, "--build-dir", str(tmp_path), "--attention", "decomposed"]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.strip().splitlines()) == 1
