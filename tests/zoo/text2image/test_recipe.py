"""The denoiser as a recipe: what the pipeline gives it, and how it is judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runtime.errors import InputError
from tests.zoo.text2image.conftest import FAMILIES
from tests.zoo.text2image.denoisers import HEIGHT, WIDTH, opened
from zoo.text2image import recipe as recipes
from zoo.text2image.calls import Call, nested
from zoo.text2image.loading import open_pipeline
from zoo.text2image.recipe import denoiser_recipe

pytestmark = pytest.mark.xdist_group("text2image")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_recipe_says_what_the_pipeline_gives_and_how_to_judge_it(family):
    pipeline, recipe = opened(family)
    first = recipe.inputs[0]
    assert (first.dtype, first.shape) == ("float32", (-1, 4, HEIGHT // 2, WIDTH // 2))
    assert next(spec for spec in recipe.inputs if spec.name == "timestep").shape == (-1,)
    assert {spec.name for spec in recipe.inputs} >= {"timestep", "encoder_hidden_states"}
    assert recipe.name == f"tiny-{family}" and recipe.judge == ("cosine", 0.999) and recipe.flops() > 1e5
    feed = recipe.validation()
    assert {name: array.shape[1:] for name, array in feed.items()} == {s.name: s.shape[1:] for s in recipe.inputs}
    # From the first step to the last, and of more than one prompt.
    assert len(set(feed["timestep"].tolist())) == 4 and len(feed["timestep"]) == 8
    assert len(np.unique(feed["encoder_hidden_states"], axis=0)) == 2
    few = recipe.validation(2)["timestep"]
    assert len(few) == 2 and few[0] != few[1]
    with torch.inference_mode():
        assert np.isfinite(recipe.reference(recipe.validation(1))[f"denoised_{WIDTH}x{HEIGHT}"]).all()
    again = denoiser_recipe(pipeline, f"tiny {family}", WIDTH, HEIGHT)
    assert again.identity() == recipe.identity()
    other = denoiser_recipe(pipeline, f"tiny {family}", WIDTH, HEIGHT + 8)
    assert other.inputs != recipe.inputs


def test_calls_know_samples_from_constants_and_refuse_lists():
    import inspect

    def forward(sample, timestep, added=None, ids=None, return_dict=True): ...

    parameters = inspect.signature(forward)
    named = {"added": {"text_embeds": torch.zeros(2, 5)}, "ids": torch.zeros(7, 3), "return_dict": False}
    call = Call.of(parameters, (torch.zeros(2, 4, 8, 8), torch.tensor(3)), named)
    assert call.feed()["timestep"].tolist() == [3, 3]
    assert [spec.name for spec in call.specs()] == ["sample", "timestep", "text_embeds"]
    assert list(call.constants) == [("ids",)]
    assert nested(call.tensors)["added"]["text_embeds"].shape == (2, 5)
    with pytest.raises(InputError, match=r"a list of tensors as 'added\.residuals'"):
        Call.of(parameters, (torch.zeros(2), torch.tensor(3)), {"added": {"residuals": [torch.zeros(2)]}})


def test_a_denoiser_of_half_precision_is_no_reference():
    pipeline = open_pipeline(str(FAMILIES["unet"]()), "cpu", "bfloat16")
    with pytest.raises(InputError, match=r"torch\.bfloat16 on cpu was given; open it as float32 on the cpu"):
        denoiser_recipe(pipeline, "x")


def test_the_recipe_that_the_environment_names(monkeypatch):
    from export.recipe import load_recipe

    monkeypatch.delenv(recipes.PIPELINE_VARIABLE, raising=False)
    with pytest.raises(InputError, match="CAT2DOG_TEXT2IMAGE names no pipeline"):
        load_recipe("zoo.text2image.recipe:denoiser")
    monkeypatch.setenv(recipes.PIPELINE_VARIABLE, str(FAMILIES["unet"]()))
    monkeypatch.setenv(recipes.SIZE_VARIABLE, f"{WIDTH}x{HEIGHT}")
    recipe = load_recipe("zoo.text2image.recipe:denoiser")
    assert recipe.name == "stable-diffusion-unet-32x24"
    assert recipe.inputs[0].shape == (-1, 4, HEIGHT // 2, WIDTH // 2)
    monkeypatch.setenv(recipes.SIZE_VARIABLE, "32")
    with pytest.raises(InputError, match="size '32' was given; expected WIDTHxHEIGHT"):
        load_recipe("zoo.text2image.recipe:denoiser")
