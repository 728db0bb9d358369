"""The denoiser exported, put back as a runner, quantized, and built: whole pictures against PyTorch's."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.export import export
from runtime.errors import InputError
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from runtime.runner import TensorSpec, check_feed
from tests.zoo.text2image import tiny
from tests.zoo.text2image.conftest import FAMILIES
from zoo.text2image import quantized as quantization
from zoo.text2image import recipe as recipes
from zoo.text2image.calls import Call, nested
from zoo.text2image.compare import EQUAL, compared
from zoo.text2image.denoiser import RunnerDenoiser, open_denoiser, swap
from zoo.text2image.loading import open_pipeline
from zoo.text2image.painter import Painter
from zoo.text2image.parts import denoiser_name
from zoo.text2image.quantized import quantizable, quantized
from zoo.text2image.recipe import denoiser_recipe
from zoo.text2image.request import Request

pytestmark = pytest.mark.xdist_group("text2image")

WIDTH, HEIGHT = 32, 24
REQUESTS = [Request("a cat", steps=6, seed=seed, width=WIDTH, height=HEIGHT) for seed in range(2)]
SLOW = pytest.param("transformer", marks=pytest.mark.slow)


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="cat2dog-denoiser-")


@lru_cache(maxsize=2)
def opened(family: str):
    """A pipeline and the recipe of its denoiser."""
    pipeline = open_pipeline(str(FAMILIES[family]()), "cpu")
    return pipeline, denoiser_recipe(pipeline, f"tiny {family}", WIDTH, HEIGHT)


@lru_cache(maxsize=4)
def exported(family: str, precision: str) -> Path:
    return export(opened(family)[1], Path(_folder().name) / f"{family}_{precision}.onnx", precision).path


@lru_cache(maxsize=2)
def in_int8(family: str) -> Path:
    target = Path(_folder().name) / f"{family}_int8.onnx"
    return quantized(exported(family, "fp32"), target, opened(family)[1].validation())


class Recording:
    """A runner that is the module itself, and keeps the batches it was given; `most` bounds them."""

    def __init__(self, recipe, most=None):
        self._recipe = recipe
        self.inputs = tuple(
            TensorSpec(spec.name, spec.dtype, spec.shape, (1, *spec.shape[1:]), (most or 8, *spec.shape[1:]))
            for spec in recipe.inputs
        )
        self.outputs = tuple(recipe.outputs)
        self.batches = []

    def infer(self, feed):
        check_feed(self.inputs, feed)
        self.batches.append(len(next(iter(feed.values()))))
        return self._recipe.reference(feed)

    def close(self):
        pass


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


@pytest.mark.parametrize("family", ["unet", SLOW])
def test_in_int8_it_is_smaller_and_gives_similar_pictures(family):
    pipeline, recipe = opened(family)
    wide, narrow = compared(pipeline, REQUESTS, [exported(family, "fp32"), in_int8(family)])[1:]
    weights = sum(each.numel() for each in recipe.module().parameters()) * 4e-6
    assert wide.megabytes - narrow.megabytes > weights / 2  # what is not quantized is the position embedding
    assert 22 <= min(narrow.psnr_db) < min(wide.psnr_db)
    with OnnxRuntimeRunner(in_int8(family)) as runner:
        feed = recipe.validation()
        assert min(scores("cosine", runner.infer(feed), recipe.reference(feed))) > quantization.JUDGE[1]
    nodes = onnx.load(in_int8(family)).graph.node
    quantizers = [node for node in nodes if node.op_type == "DequantizeLinear"]
    assert len(quantizers) > 20
    made = {output for node in quantizers for output in node.output}
    for node in nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert (node.input[1] in made) == ("conv_in" not in node.name and "conv_out" not in node.name), node.name


def test_products_of_two_activations_and_the_ends_stay_as_they_are():
    import onnx_ir as ir

    from engines.batch import BatchProfile
    from engines.lowering import lower

    model = ir.load(lower(exported("unet", "fp32"), "decomposed", BatchProfile(1, 1, 2)).path)
    chosen = set(quantizable(model))
    products = [node for node in model.graph if node.op_type in ("MatMul", "Gemm", "Conv")]
    left = [node for node in products if node.name not in chosen]
    ends = [node for node in left if "conv_in" in node.name or "conv_out" in node.name]
    attention = [node for node in left if node not in ends]
    assert len(ends) == 2 and len(attention) == 2 * len([n for n in model.graph if n.op_type == "Softmax"]) > 0
    assert all(not value.is_initializer() for node in attention for value in node.inputs)


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
