"""The recipe through the toolchain: export in every precision, ONNX Runtime against PyTorch, a real build."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.proxy import runnable
from export.export import export
from runtime.flavors import TENSORRT_RTX, find_flavor
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from zoo.resnet50 import recipe as recipes
from zoo.resnet50.pixels import read_crop
from zoo.resnet50.recipe import resnet50

ROOT = Path(__file__).resolve().parents[3]


def test_what_it_says_of_itself(network, monkeypatch):
    monkeypatch.delenv(recipes.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(recipes, "seeded", lambda: network)
    recipe = resnet50()
    assert (recipe.name, recipe.judge) == ("resnet50-random", ("cosine", 0.995))
    feed = recipe.validation(2)
    assert feed["crop"].shape == (2, 100, 100, 3)
    assert np.array_equal(feed["crop"], recipe.validation(2)["crop"])
    # 4.09 G multiplications and additions, in the convolutions and the last layer.
    assert recipe.flops() == 2 * 4_089_184_256
    answers = recipe.reference(feed)
    assert {name: array.shape for name, array in answers.items()} == {
        "logits": (2, 1000),
        "embedding": (2, 2048),
        "statistics": (2, 2),
    }
    photo = ROOT / "images/img1.jpg"
    assert np.array_equal(recipe.picture(photo, 3), read_crop(photo, 0, 3))
    said = recipe.words(answers)
    assert len(said) == 2 and said[1].startswith("mean: 0.") and "of image #2; image #2 is " in said[1]
    monkeypatch.setenv(recipes.WEIGHTS_VARIABLE, "some.safetensors")
    assert resnet50().name == "resnet50"


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("fp16", 0.9999), ("bf16", 0.998)])
def test_the_graph_answers_as_pytorch_does(precision, least, tmp_path):
    recipe = resnet50()
    exported = export(recipe, tmp_path / f"x_{precision}.onnx", precision)
    feed = recipe.validation(6)
    with runnable(exported.path) as path, OnnxRuntimeRunner(path) as runner:
        got = runner.infer(feed)
    expected = recipe.reference(feed)
    assert min(scores("cosine", got, expected)) >= least
    # Mean and variance have an axis of their own: their direction hides no scale.
    assert np.allclose(
        got["statistics"], expected["statistics"], rtol={"fp32": 1e-4, "fp16": 5e-3, "bf16": 3e-2}[precision]
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_take_it(tmp_path):
    flavor = find_flavor(TENSORRT_RTX)
    if not flavor.can_build:
        pytest.skip(f"needs TensorRT-RTX to build: {flavor.reason}")
    command = [sys.executable, "-m", "cli", "build", "--recipe", "zoo.resnet50.recipe:resnet50", "--precision", "fp16"]
    command += ["--batch", "1-4", "--build-dir", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert built["gate"]["state"] == "pending" and min(built["gate"]["proxy_scores"]) > 0.9999
    assert built["size"] < 60e6
