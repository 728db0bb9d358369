"""ConvNeXt through the toolchain's own commands."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cli.main import main
from export.recipe import load_recipe
from runtime.errors import InputError
from tests.zoo.convnext.made import SMALL
from zoo.convnext.checkpoint import save
from zoo.convnext.config import FULL, macs
from zoo.convnext.model import seeded

TINY = "tests.zoo.convnext.made:tiny"


def test_variants_are_recipes_of_the_full_network():
    for name in ("gelu", "relu", "hardswish", "fastswish"):
        recipe = load_recipe(f"zoo.convnext.recipe:{name}")
        assert recipe.name == f"convnext-{name}-224" and recipe.inputs[0].shape == (-1, 224, 224, 3)
    assert load_recipe("zoo.convnext.recipe:gelu").flops() == 2 * macs(FULL)


def test_a_trained_checkpoint_is_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("CAT2DOG_CONVNEXT", raising=False)
    with pytest.raises(InputError, match="CAT2DOG_CONVNEXT names no checkpoint"):
        load_recipe("zoo.convnext.recipe:trained")
    save(tmp_path / "mine.safetensors", seeded(SMALL, 5))
    monkeypatch.setenv("CAT2DOG_CONVNEXT", str(tmp_path / "mine.safetensors"))
    recipe = load_recipe("zoo.convnext.recipe:trained")
    feed = recipe.validation(3)
    assert recipe.name == "convnext-mine" and feed["image"].shape == (3, 32, 32, 3)
    assert np.isfinite(recipe.reference(feed)["logits"]).all()


def test_it_is_exported_built_and_judged_by_the_toolchains_own_commands(tmp_path, capsys):
    common = ["--recipe", TINY, "--precision", "fp16", "--build-dir", str(tmp_path)]
    assert main(["export", *common]) == 0
    assert main(["build", *common, "--batch", "1-4", "--flavor", "tensorrt_rtx", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.split("\n{", 1)[-1].join(["{", ""]))
    assert told["gate"]["state"] == "pending" and min(told["gate"]["proxy_scores"]) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_full_network_goes_through_them_too(tmp_path, precision):
    common = ["--recipe", "zoo.convnext.recipe:gelu", "--precision", precision, "--build-dir", str(tmp_path)]
    assert main(["build", *common, "--batch", "1-64", "--flavor", "tensorrt_rtx"]) == 0
    pytest.importorskip("polygraphy", reason="cat2dog accuracy needs it")
    assert main(["accuracy", *common]) == 0
