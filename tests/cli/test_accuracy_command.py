"""`cat2dog accuracy`, as a user meets it: the verdict, what is filed, and Polygraphy's own word on it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli import accuracy_command
from cli.main import parse
from runtime.errors import AccuracyError, ToolchainError
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from tests.cli.overflowing_model import OVERFLOWING

pytestmark = pytest.mark.xdist_group("shop")

MODELS = '''
import numpy as np
import torch
from torch import nn

from export.recipe import ModuleRecipe
from runtime.runner import TensorSpec


def recipe(judge):
    def build():
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(8, 10))

    return ModuleRecipe("little", build, [TensorSpec("image", "float32", (-1, 3, 16, 16))],
                        [TensorSpec("logits", "float32", (-1, 10))], judge=judge, samples=3)


def sound():
    return recipe(("top1", 1.0))


def strict():
    return recipe(("cosine", 1.0))
''' + OVERFLOWING  # fmt: skip


def polygraphy(shop, command: str) -> subprocess.CompletedProcess[str]:
    """A command that was printed, run by the environment's own Polygraphy."""
    words = shlex.split(command)
    assert words[0] == "polygraphy"
    words[0] = str(Path(sys.executable).with_name("polygraphy"))
    return subprocess.run(words, cwd=shop.folder, env=shop.environment(), capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def models(shop):
    (shop.folder / "accuracy_models.py").write_text(MODELS)


def test_a_recipe_of_ones_own(shop, models):
    words = ("--recipe", "accuracy_models:sound", "--attention", "decomposed", "--json")
    done = shop.cat2dog("accuracy", *words)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["verdict"] == "passed" and facts["metric"] == "top1" and facts["threshold"] == 1.0
    names = ["onnx", "lowered-decomposed", "rounded-decomposed"]
    assert [each["name"] for each in facts["candidates"]] == [f"onnxruntime-{name}" for name in names]
    for each in facts["candidates"]:
        assert each["scores"] == [1.0] * 3
        assert 0 < each["outputs"]["logits"]["relative_error"] < 1e-2 and each["outputs"]["logits"]["psnr_db"] is None
    assert any(note.startswith("no engine was run") for note in facts["notes"])
    assert [block["name"] for block in facts["divergence"]["blocks"]] == ["0", "1", "2", "3", "4"]
    assert facts["divergence"]["suspect"] is None
    folder = shop.folder / facts["folder"]
    assert json.loads((folder / "report.json").read_text()) == facts
    assert {path.name for path in folder.iterdir()} == {
        "inputs.json", "golden.json", "outputs.json", "compare.py", "report.json", "divergence.png",
    }  # fmt: skip
    assert not [path for path in (shop.folder / "build/onnx").iterdir() if path.name.startswith(".tmp")]


def test_a_verdict_that_fails_and_polygraphy_agrees(shop, models):
    words = ("--recipe", "accuracy_models:strict", "--attention", "decomposed")
    done = shop.cat2dog("accuracy", *words)
    assert done.returncode == 3, done.stdout
    assert "verdict: failed" in done.stdout and "error against depth" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (
        "onnxruntime-onnx has cosine 0.9999" in line and "; expected at least 1:" in line and "no block jumps" in line
    )
    (command, _) = [line.removeprefix("again: ") for line in done.stdout.splitlines() if line.startswith("again: ")]
    again = polygraphy(shop, command)
    assert again.returncode == 1, again.stdout[-2000:]
    assert "logits: cosine 0.9999" in again.stdout and "expected at least 1" in again.stdout


@pytest.mark.slow
def test_an_overflow_that_onnx_runtime_hides(shop, models):
    done = shop.cat2dog("accuracy", "--recipe", "accuracy_models:overflowing", "--json")
    assert done.returncode == 3, done.stdout
    facts = json.loads(done.stdout)
    assert facts["candidates"][2]["passed"] is False
    divergence = facts["divergence"]
    assert divergence["suspect"] == "1" and divergence["op"].startswith("1/Mul"), divergence["why"]
    guilty = next(op for op in divergence["ops"] if op["name"] == divergence["op"])
    assert guilty["not_finite"] > 0 and 256 < guilty["input_largest"] < 65504
    assert "NaN or infinite from inputs up to" in done.stderr and "FP16 ends at 65504" in done.stderr


def test_bf16_is_judged_with_its_rounding(shop, models):
    words = ("--recipe", "accuracy_models:sound", "--precision", "bf16", "--attention", "decomposed", "--no-blocks")
    done = shop.cat2dog("accuracy", *words, "--output", "wide", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["folder"] == "wide" and facts["divergence"] is None
    assert all(1e-4 < each["outputs"]["logits"]["relative_error"] < 5e-2 for each in facts["candidates"])
    assert facts["commands"] == []  # ONNX Runtime has no BF16 on a CPU: plain Polygraphy cannot run these files


def test_fp32_compares_the_lowered_graph_with_the_exported_one(shop, models):
    words = ("--recipe", "accuracy_models:sound", "--precision", "fp32", "--json")
    done = shop.cat2dog("accuracy", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["divergence"]["suspect"] is None


def test_the_words_of_the_gate_are_understood():
    """What the refusal of an engine tells one to type is what this command takes."""
    args = parse(["accuracy", "--model", "models/500m-256", "--precision", "bf16"])
    assert args.model == Path("models/500m-256") and args.precision == "bf16"


@pytest.mark.parametrize(
    ("error", "refused", "said"),
    [
        (AccuracyError("engine e was refused by the accuracy gate with 12 dB: find the diverging layer with ..."), True,
         "engine e was refused by the accuracy gate with 12 dB"),
        (ToolchainError("the builder ran out of memory"), False, "no engine was run: the builder ran out of memory"),
    ],
)  # fmt: skip
def test_an_engine_that_is_refused_fails_the_verdict_and_one_that_is_not_built_does_not(
    monkeypatch, error, refused, said
):
    def find(request):
        raise error

    monkeypatch.setattr("runtime.gpu.find_gpus", lambda: [Gpu(0, "NVIDIA H100", "9.0", 80 << 30, "13.0")])
    flavor = Flavor("tensorrt", "10.14.0", sys.executable, can_build=True, can_run=True)
    monkeypatch.setattr("runtime.flavors.find_flavors", lambda: [flavor])
    monkeypatch.setattr("engines.build.find", find)
    monkeypatch.setattr("cli.compose.build_request", lambda *given: None)
    args = parse(["accuracy", "--model", "models/tiny-128"])
    assert accuracy_command._engine(args, None, None, lambda what, fraction: None) == ([], said, refused)
    facts = {"candidates": [], "notes": [said], "metric": "psnr", "threshold": 30.0, "divergence": None}
    if refused:
        assert accuracy_command._failure(facts).startswith(f"{said}; expected at least 30: ")
