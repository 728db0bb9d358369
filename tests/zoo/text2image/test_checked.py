"""A pipeline with a safety checker, which also sees the pictures on the way; and one of half precision."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from runtime.metrics import psnr
from tests.zoo.text2image import tiny
from tests.zoo.text2image.test_painter import CAT
from zoo.text2image.loading import open_pipeline
from zoo.text2image.painter import Painter

pytestmark = pytest.mark.xdist_group("text2image")


@pytest.fixture(scope="module")
def checked_folder(tmp_path_factory):
    """Stable Diffusion with a checker to which everything is like what is not to be shown."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    tower = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=tower, vision_config=vision, projection_dim=16))
    checker.concept_embeds_weights = torch.nn.Parameter(torch.full((17,), -2.0), requires_grad=False)
    plain = open_pipeline(str(tiny.stable_diffusion()), "cpu")
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    components = {**plain.components, "safety_checker": checker, "feature_extractor": extractor}
    folder = tmp_path_factory.mktemp("checked")
    StableDiffusionPipeline(**components).save_pretrained(folder)
    return folder


def test_what_the_checker_flags_is_black_also_on_the_way(checked_folder):
    painter = Painter(open_pipeline(str(checked_folder), "cpu"))
    steps = list(painter.steps(replace(CAT, every=1)))
    assert len(steps) == 4 and all(step.flagged and not step.picture.any() for step in steps)
    painter.pipeline.safety_checker.concept_embeds_weights.data.fill_(2.0)
    steps = list(painter.steps(replace(CAT, every=1)))
    assert not any(step.flagged for step in steps) and all(step.picture.any() for step in steps)
    plain = Painter(open_pipeline(str(tiny.stable_diffusion()), "cpu")).paint(CAT)
    assert np.array_equal(steps[-1].picture, plain.picture)


def test_a_checker_that_is_left_out_of_the_folder_is_missed(checked_folder, tmp_path):
    from runtime.errors import InputError

    folder = shutil.copytree(checked_folder, tmp_path / "pipeline")
    shutil.rmtree(folder / "safety_checker")
    with pytest.raises(InputError, match="safety_checker is missing"):
        open_pipeline(str(folder))


def test_in_half_precision_it_paints_nearly_the_same():
    wide = Painter(open_pipeline(str(tiny.stable_diffusion()), "cpu"))
    narrow = Painter(open_pipeline(str(tiny.stable_diffusion()), "cpu", "bfloat16"))
    assert str(narrow.pipeline.unet.dtype) == "torch.bfloat16"
    steps = list(narrow.steps(replace(CAT, every=2)))
    assert 20 < psnr(steps[-1].picture, wide.paint(CAT).picture) < 70
    assert steps[0].picture.shape == steps[-1].picture.shape


def test_a_network_of_float32_denoises_for_a_pipeline_of_half_precision():
    from tests.zoo.text2image.denoisers import Recording
    from zoo.text2image.denoiser import swap
    from zoo.text2image.recipe import denoiser_recipe

    recipe = denoiser_recipe(open_pipeline(str(tiny.stable_diffusion()), "cpu"), "wide", CAT.width, CAT.height)
    narrow = open_pipeline(str(tiny.stable_diffusion()), "cpu", "bfloat16")
    runner = Recording(recipe)
    swap(narrow, runner)
    wide = Painter(open_pipeline(str(tiny.stable_diffusion()), "cpu")).paint(CAT).picture
    assert 20 < psnr(Painter(narrow).paint(CAT).picture, wide) < 70 and runner.batches
