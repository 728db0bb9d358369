"""What a user has is not lost, and what they get is not stale."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from PIL import Image

from runtime.flavors import find_flavor

RTX = find_flavor("tensorrt_rtx")
pytestmark = pytest.mark.xdist_group("shop")
needs_rtx = pytest.mark.skipif(not RTX.can_build, reason=f"TensorRT-RTX cannot build here: {RTX.reason}")

RECIPE = """
from torch import nn
from export.recipe import ModuleRecipe
from runtime.runner import TensorSpec
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
    def forward(self, x):
        return {body}
def factory():
    specs = [TensorSpec("x", "float32", (-1, 8))], [TensorSpec("{output}", "float32", (-1, 8))]
    return ModuleRecipe("{name}", Net, *specs, judge=("cosine", {bar}))
"""


def recipe(shop, name, body="self.layer(x)", bar=0.99, output="y"):
    text = RECIPE.format(body=body, bar=bar, name=name, output=output)
    (shop.folder / f"{name}.py").write_text(text)
    return f"{name}:factory"


@pytest.mark.slow
def test_a_changed_forward_is_exported_again(shop):
    target = recipe(shop, "changing")
    for body in ("self.layer(x)", "self.layer(x).exp().sin() - x * x"):
        recipe(shop, "changing", body)
        done = shop.cat2dog("export", "--recipe", target, "--precision", "fp32", "--json")
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodes"]["fp32"] > 4


@needs_rtx
def test_a_changed_bar_judges_again(shop):
    words = ("build", "--recipe", recipe(shop, "barred", bar=1.5), "--precision", "fp16", "--flavor", "tensorrt_rtx")
    for _ in range(2):
        refused = shop.cat2dog(*words)
        assert refused.returncode == 3 and "expected at least 1.5" in refused.stderr
    recipe(shop, "barred", bar=0.9)
    done = shop.cat2dog(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["gate"]["threshold"] == 0.9


@pytest.mark.slow
@needs_rtx
def test_fp32_is_built_decomposed(shop):
    words = ("build", "--recipe", recipe(shop, "wide"), "--precision", "fp32", "--flavor", "tensorrt_rtx")
    assert shop.cat2dog(*words).returncode == 0
    done = shop.cat2dog(*words, "--attention", "native")
    assert done.returncode == 2
    assert done.stderr.startswith("error: native attention has no FP32 kernels")
    done = shop.cat2dog(*words, "--precision", "fp16", "--attention", "plugin")
    assert done.returncode == 2
    assert done.stderr == "error: no plugin attention: tensorrt_rtx has no plugins; use native\n"


def test_bf16_runs_without_a_gpu(shop):
    words = ("run", "--model", "models/tiny-128", "--input-image", "images/img1.jpg", "--output", "b.png")
    done = shop.cat2dog(*words, "--precision", "bf16", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "BF16 rounding" in answer["runner"] and 35 < answer["images"][0]["psnr_db"] < 60


def test_a_cat_is_not_overwritten_by_its_dog(shop, exported):
    folder = shop.folder / "keep"
    folder.mkdir()
    Image.new("RGB", (40, 40), "red").save(folder / "a.png")
    before = hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    for words in (
        ("--input-image", "keep", "--output", "keep"),
        ("--input-image", "keep/a.png", "--output", "keep/a.png"),
    ):
        done = shop.cat2dog("run", "--model", "models/tiny-128", *words)
        assert done.returncode == 2
        assert done.stderr == "error: the dog would be written over the cat keep/a.png: give another --output\n"
    assert hashlib.sha256((folder / "a.png").read_bytes()).hexdigest() == before


def test_somebody_elses_json_is_not_overwritten(shop):
    (shop.folder / "dog.json").write_text('{"my": "precious"}')
    done = shop.cat2dog("export", "--model", "models/tiny-128", "--output", "dog.onnx")
    assert done.returncode == 2
    assert "dog.json would be overwritten" in done.stderr
    assert json.loads((shop.folder / "dog.json").read_text()) == {"my": "precious"}
    assert not (shop.folder / "dog.onnx").exists()


def test_weights_that_are_not_numbers(shop):
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(shop.folder / "models/tiny-128", shop.folder / "models/nan")
    path = shop.folder / "models/nan/model.safetensors"
    weights = load_file(path)
    weights["head.weight"][0, 0] = torch.nan
    save_file(weights, path)
    done = shop.cat2dog("run", "--model", "models/nan", "--input-image", "images/img1.jpg", "--runner", "pytorch")
    assert done.returncode == 2
    assert "not finite" in done.stderr
    config = shop.folder / "models/tiny-128/config.json"
    done = shop.cat2dog("convert", "--weights", path, "--config", config, "--model", "models/nan2")
    assert done.returncode == 2
    assert "1 tensors hold NaN or infinite values, the first is head.weight" in done.stderr
    shutil.rmtree(shop.folder / "models/nan")


def test_names_are_shown_as_they_are(shop, exported):
    name = "x[bold] :cat: é[/y].jpg".replace("/", "")
    shutil.copy(shop.folder / "images/img1.jpg", shop.folder / name)
    words = ("run", "--model", "models/tiny-128", "--input-image", name, "--output", "n.png", "--no-psnr")
    done = shop.cat2dog(*words)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


def test_a_refused_run_leaves_no_folder(shop):
    done = shop.cat2dog("run", "--model", "models/nope", "--input-image", "images", "--output", "newdir")
    assert done.returncode == 2
    assert not (shop.folder / "newdir").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('boom')", "failed with RuntimeError: boom"),
        ("def factory(:", "failed with SyntaxError"),
        ("from torch import nope", "failed with ImportError"),
        ("def factory():\n    raise ValueError('no weights')", "failed with ValueError: no weights"),
        ("def factory(x):\n    pass", "failed with TypeError"),
        ("def factory():\n    import nowhere_at_all", "failed with ModuleNotFoundError"),
    ],
)
def test_a_recipe_that_fails_is_one_line(shop, text, said):
    (shop.folder / "failing.py").write_text(text + "\n")
    shutil.rmtree(shop.folder / "__pycache__", ignore_errors=True)
    done = shop.cat2dog("export", "--recipe", "failing:factory")
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init", "--model", "m/tiny-128", "--seed", str(10**22)), "seed"),
        (("build", "--model", "models/tiny-128", "--targets", "8²"), "target '8²'"),
        (("build", "--model", "models/tiny-128", "--workspace", "-5"), "workspace -5 MiB"),
        (("run", "--model", "models/tiny-128", "--input-image", ""), "the path is empty"),
        (("run", "--model", "models/tiny-128", "--input-image", "images", "--batch", "0-4"), "batch 0-4"),
        (("build", "--model", "models/tiny-128", "--build-dir", "images/img1.jpg/x"), "--build-dir"),
    ],
)
def test_odd_values_are_one_line(shop, words, said):
    done = shop.cat2dog(*words)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
