"""The denoiser exported, and put back as a runner: whole pictures against PyTorch's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.export import export
from runtime.errors import InputError
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.zoo.text2image import tiny
from tests.zoo.text2image.conftest import FAMILIES
from tests.zoo.text2image.denoisers import HEIGHT, REQUESTS, WIDTH, Recording, exported, opened
from zoo.text2image.compare import EQUAL, compared
from zoo.text2image.denoiser import RunnerDenoiser, open_denoiser, swap
from zoo.text2image.loading import open_pipeline
from zoo.text2image.painter import Painter
from zoo.text2image.parts import denoiser_name
from zoo.text2image.recipe import denoiser_recipe
from zoo.text2image.request import Request

pytestmark = pytest.mark.xdist_group("text2image")
SLOW = pytest.param("transformer", marks=pytest.mark.slow)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_runner_that_is_pytorch_gives_pytorchs_pictures(family):
    pipeline, recipe = opened(family)
    own = [Painter(pipeline).paint(request).picture for request in REQUESTS]
    for most, batches in ((None, {2}), (1, {1})):  # guidance asks for two samples at once
        runner = Recording(recipe, most)
        replaced = swap(pipeline, runner)
        try:
            assert not list(getattr(pipeline, denoiser_name(pipeline)).parameters())
            painter = Painter(pipeline)
            assert painter.own_size == (WIDTH, HEIGHT)
            got = [painter.paint(request).picture for request in REQUESTS]
            image = Request("a cat", steps=4, strength=0.5, image=own[0], width=WIDTH, height=HEIGHT)
            assert painter.paint(image).total == 2  # image to image runs on it as well
        finally:
            setattr(pipeline, denoiser_name(pipeline), replaced)
        assert set(runner.batches) == batches
        assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(got, own, strict=True))


def test_a_size_that_the_network_is_not_built_for_is_refused():
    pipeline, recipe = opened("unet")
    replaced = swap(pipeline, Recording(recipe))
    try:
        with pytest.raises(
            InputError, match="a picture of 32 x 32 was asked for, and the denoiser is built for 32 x 24"
        ):
            Painter(pipeline).paint(Request("a cat", steps=1, width=WIDTH, height=HEIGHT + 8))
        pipeline.unet.picture_size = None  # a network that does not say
        with pytest.raises(InputError, match=r"'sample' has shape .*built for one size of pictures"):
            Painter(pipeline).paint(Request("a cat", steps=1, width=WIDTH, height=HEIGHT + 8))
        assert Painter(pipeline).paint(REQUESTS[0]).final
    finally:
        pipeline.unet = replaced


def test_a_network_of_another_denoiser_is_refused():
    pipeline, recipe = opened("unet")
    with pytest.raises(InputError, match="takes 'hidden_states', which this pipeline's UNet2DConditionModel does not"):
        RunnerDenoiser(Recording(opened("transformer")[1]), pipeline.unet)
    runner = Recording(recipe)
    runner.inputs = runner.inputs[:-1]
    lacking = RunnerDenoiser(runner, pipeline.unet)
    feed = {spec.name: torch.zeros(2, *spec.shape[1:]) for spec in recipe.inputs}
    with pytest.raises(InputError, match="the network takes no 'encoder_hidden_states', which the pipeline gives"):
        lacking(**feed)
    runner.outputs = runner.outputs * 2
    with pytest.raises(InputError, match="the network has 2 outputs; a denoiser has one"):
        RunnerDenoiser(runner, pipeline.unet)
    with pytest.raises(InputError, match="neither an engine nor an ONNX file"):
        open_denoiser("model.bin")


@pytest.mark.parametrize("family", ["unet", SLOW])
def test_exported_it_gives_the_same_pictures(family):
    pipeline, recipe = opened(family)
    path = exported(family, "fp32")
    with OnnxRuntimeRunner(path) as runner:
        feed = recipe.validation()
        assert min(scores("cosine", runner.infer(feed), recipe.reference(feed))) > 0.99999
    own, (row,) = (rows := compared(pipeline, REQUESTS, [path]))[0], rows[1:]
    assert own.psnr_db == (EQUAL, EQUAL) and own.denoiser == "PyTorch float32"
    assert row.denoiser == path.name and min(row.psnr_db) >= 60
    assert abs(row.megabytes / own.megabytes - 1) < 0.5
    assert isinstance(getattr(pipeline, denoiser_name(pipeline)), type(recipe.module().network))  # put back


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_in_fp16_it_gives_nearly_the_same_pictures(family):
    pipeline, _ = opened(family)
    row = compared(pipeline, REQUESTS, [exported(family, "fp16")])[1]
    assert min(row.psnr_db) >= 45


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny.stable_diffusion_xl, tiny.flux], ids=["sdxl", "flux"])
def test_other_families_are_exported_the_same_way(make, tmp_path):
    pipeline = open_pipeline(str(make()), "cpu")
    recipe = denoiser_recipe(pipeline, make.__name__, WIDTH, 16)
    names = {spec.name for spec in recipe.inputs}
    # SDXL's are told within a dictionary; where Flux's patches lie depends on the size alone.
    assert names > ({"text_embeds", "time_ids"} if make is tiny.stable_diffusion_xl else {"guidance"})
    assert "img_ids" not in names
    requests = [replace(request, height=16) for request in REQUESTS]
    row = compared(pipeline, requests, [export(recipe, tmp_path / "denoiser.onnx", "fp32").path])[1]
    assert min(row.psnr_db) >= 60


@pytest.mark.slow
def test_packed_latents_of_another_shape_of_as_many_pixels_are_refused():
    pipeline = open_pipeline(str(tiny.flux()), "cpu")
    recipe = denoiser_recipe(pipeline, "flux", 32, 16)
    swap(pipeline, Recording(recipe))
    painter = Painter(pipeline)
    assert painter.paint(Request("a cat", steps=1)).picture.shape == (16, 32, 3)
    with pytest.raises(InputError, match="a picture of 16 x 32 was asked for, and the denoiser is built for 32 x 16"):
        painter.paint(Request("a cat", steps=1, width=16, height=32))
