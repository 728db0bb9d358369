"""`cat2dog run --recipe`: answers of networks that make no pictures, in the recipe's own words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cli.main import main
from tests.zoo.convnext.made import tiny

RECIPE = "tests.zoo.convnext.made:tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the ONNX file is kept."""
    path = tmp_path_factory.mktemp("recipe")
    assert main(["export", "--recipe", RECIPE, "--precision", "fp16", "--build-dir", str(path)]) == 0
    return ["--build-dir", str(path)]


def told(capsys, words):
    capsys.readouterr()
    code = main(["run", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_validation_samples_are_answered_and_compared_where_that_is_asked_for(folder, capsys):
    code, result = told(capsys, ["--recipe", RECIPE, *folder, "--psnr"])
    assert code == 0 and result["recipe"] == "convnext-fastswish-32" and "fp16" in result["runner"]
    assert len(result["samples"]) == 16 and all(row["top5"] >= 0.8 and row["run_ms"] > 0 for row in result["samples"])
    recipe = tiny()
    assert result["samples"][3]["answer"] == recipe.words(recipe.reference(recipe.validation()))[3]
    assert all(row["top5"] is None for row in told(capsys, ["--recipe", RECIPE, *folder])[1]["samples"])


def test_pictures_are_read_at_the_networks_size(folder, capsys):
    code, result = told(capsys, ["--recipe", RECIPE, *folder, "--input-image", "images/img1.jpg", "images/img2.jpg"])
    assert code == 0 and [row["sample"] for row in result["samples"]] == ["images/img1.jpg", "images/img2.jpg"]
    assert result["samples"][0]["answer"].startswith("class ") and result["samples"][0]["top5"] >= 0.8
    assert main(["run", "--recipe", RECIPE, *folder, "--runner", "pytorch"]) == 0
    assert "class " in capsys.readouterr().out


def test_without_words_of_its_own_a_recipe_is_told_by_its_outputs(folder, capsys, monkeypatch):
    import cli.run_recipe as module

    outputs = {"logits": np.array([[1.0, 5.0, 2.0]], np.float32)}
    recipe = tiny()
    recipe.words = None
    assert module._words(recipe, outputs) == ["logits[1] = 5"]
    recipe.judge = ("cosine", 0.9)
    assert module._words(recipe, outputs) == ["logits [3]"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--recipe", RECIPE, "--output", "out.png"], 2, "--output is for pictures"),
        (["--recipe", RECIPE, "--model", "models/tiny-128"], 2, "not allowed with argument"),
        (["--recipe", RECIPE, "--input-image", "nowhere.jpg"], 2, "nowhere.jpg does not exist"),
        (["--recipe", RECIPE, "--runner", "pytorch", "--provider", "cpu"], 2, "--provider is for ONNX Runtime"),
        (["--recipe", "tests.zoo.convnext.made:nothing"], 2, "has no factory 'nothing'"),
        ([], 2, "give --input-image PATH"),
    ],
)
def test_wrong_usage_is_one_line(folder, capsys, words, code, said):
    assert main(["run", *words, *folder]) == code
    err = capsys.readouterr().err.strip()
    assert said in err and "\n" not in err


def test_answers_unlike_pytorchs_fail_with_what_to_do(folder, capsys, monkeypatch):
    import cli.run_recipe as module

    monkeypatch.setattr(module, "_scores", lambda recipe, feed, outputs, update: [0.2] * 16)
    assert main(["run", "--recipe", RECIPE, *folder, "--psnr"]) == 3
    assert "top5 0.2 is under the recipe's 0.8" in capsys.readouterr().err
