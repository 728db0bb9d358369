"""Pictures of prompts: what changes them, the pictures on the way, leaving early, faults."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from runtime.errors import InputError, ToolchainError
from runtime.metrics import psnr
from tests.zoo.text2image import tiny
from tests.zoo.text2image.tiny_parts import SIDE
from zoo.text2image import latents
from zoo.text2image.calls import recorded
from zoo.text2image.caption import Captioner
from zoo.text2image.handed import Handed
from zoo.text2image.loading import open_pipeline
from zoo.text2image.painter import Painter
from zoo.text2image.request import Request
from zoo.text2image.upscale import MOST_PIXELS, Upscaler

# One process imports diffusers.
pytestmark = pytest.mark.xdist_group("text2image")

CAT = Request("a cat", steps=4, width=32, height=24)


def test_one_request_gives_one_picture(painter):
    first, second = painter.paint(CAT), painter.paint(CAT)
    assert first.picture.shape == (24, 32, 3) and first.picture.dtype == np.uint8
    assert np.array_equal(first.picture, second.picture) and first.picture.std() > 5
    assert (first.number, first.total, first.final, first.flagged) == (4, 4, True, False) and first.seconds > 0


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a dog"}, {"seed": 1}, {"steps": 5}, {"guidance": 2.0}, {"negative_prompt": "dogs"}],
    ids=lambda change: next(iter(change)),
)
def test_each_option_changes_the_picture(painter, change):
    assert psnr(painter.paint(CAT).picture, painter.paint(replace(CAT, **change)).picture) < 60


def test_what_is_not_asked_is_the_pipelines_own(painter):
    assert painter.own_size == (SIDE, SIDE)
    step = painter.paint(Request("a cat", steps=1))
    assert step.picture.shape == (SIDE, SIDE, 3)


def test_pictures_on_the_way_and_the_last_are_what_the_pipeline_would_show(painter):
    told = []
    steps = list(painter.steps(replace(CAT, steps=5, every=2), lambda done, total: told.append((done, total))))
    assert [(step.number, step.final) for step in steps] == [(2, False), (4, False), (5, True)]
    assert told == [(number, 5) for number in range(1, 6)]
    assert all(step.total == 5 and step.picture.shape == (24, 32, 3) for step in steps)
    assert len({step.picture.tobytes() for step in steps}) == 3
    assert np.array_equal(steps[-1].picture, painter.paint(replace(CAT, steps=5)).picture)
    made = painter.pipeline(
        "a cat",
        num_inference_steps=5,
        width=32,
        height=24,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    with torch.no_grad():
        assert np.array_equal(latents.decoded(painter.pipeline, made.images, 24, 32)[0][0], steps[-1].picture)


def test_who_leaves_early_ends_the_denoising(painter):
    with recorded(painter.pipeline) as calls:
        steps = painter.steps(replace(CAT, steps=200, every=1))
        next(steps)
        steps.close()
    assert len(calls) < 20
    assert painter.paint(CAT).final  # the turn was given back


def test_who_leaves_while_another_paints_does_not_wait_for_it(unet_painter):
    handed = Handed()
    worker = threading.Thread(target=unet_painter._work, args=(CAT, handed, lambda done, total: None))
    with unet_painter._turn:
        worker.start()
        handed.leave()
        worker.join(10)
        assert not worker.is_alive()


def test_several_callers_take_turns(painter):
    requests = [replace(CAT, seed=seed) for seed in range(4)]
    alone = [painter.paint(request).picture for request in requests]
    with ThreadPoolExecutor(4) as threads:
        together = [step.picture for step in threads.map(painter.paint, requests)]
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_picture_to_begin_with(painter):
    halves = np.zeros((60, 100, 3), np.uint8)
    halves[:, 50:] = 255

    def painted(strength, image=halves, seed=0):
        step = painter.paint(replace(CAT, steps=10, image=image, strength=strength, seed=seed))
        assert step.picture.shape == (24, 32, 3) and step.total == round(10 * strength)
        return step.picture

    # The less it is left, the more it decides.
    assert (
        psnr(painted(0.1), painted(0.1, halves[::-1, ::-1])) < psnr(painted(1.0), painted(1.0, halves[::-1, ::-1])) - 3
    )
    assert psnr(painted(0.1), painted(0.1, seed=1)) < 60


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 36}, "width 36 was given; this pipeline takes multiples of 8"),
        ({"upscale": True}, "no model that enlarges is loaded; give --upscaler"),
        ({"image": np.zeros((8, 8, 3), np.uint8), "strength": 0.2}, "strength 0.2 of 4 steps leaves none to do"),
    ],
)
def test_what_the_pipeline_cannot_do_is_refused(painter, change, says):
    with pytest.raises(InputError, match=says):
        painter.paint(replace(CAT, **change))


def test_a_pipeline_that_takes_no_negative_prompt_is_not_asked_to(unet_painter, monkeypatch):
    class Poor(type(unet_painter.pipeline)):
        def __call__(self, prompt, num_inference_steps=4, width=None, height=None, generator=None, output_type=None):
            return super().__call__(
                prompt,
                num_inference_steps=num_inference_steps,
                width=width,
                height=height,
                generator=generator,
                output_type=output_type,
            )

    monkeypatch.setattr(unet_painter.pipeline, "__class__", Poor)
    for change, name in (
        ({"negative_prompt": "dogs"}, "negative_prompt"),
        ({"guidance": 3.0}, "guidance_scale"),
        ({"every": 1}, "callback_on_step_end"),
    ):
        with pytest.raises(InputError, match=f"Poor takes no {name}; leave that option out"):
            unet_painter.paint(replace(CAT, **change))
    assert unet_painter.paint(CAT).final


def test_faults_are_one_line_and_the_next_request_is_answered(unet_painter, monkeypatch):
    expected = unet_painter.paint(CAT).picture

    def broken(*_, **__):
        raise RuntimeError("out of\nmemory")

    with monkeypatch.context() as patch:
        patch.setattr(unet_painter.pipeline.unet, "forward", broken)
        with pytest.raises(ToolchainError, match="the pipeline failed: out of memory"):
            unet_painter.paint(CAT)
    with monkeypatch.context() as patch:
        patch.setattr(unet_painter.pipeline.vae, "decode", lambda z, **_: (torch.full((1, 3, 24, 32), torch.nan),))
        with pytest.raises(ToolchainError, match="gave not-a-number: give --dtype float32"):
            unet_painter.paint(CAT)
    assert np.array_equal(unet_painter.paint(CAT).picture, expected)


def test_a_picture_is_enlarged_and_stays_itself(unet_painter):
    painter = Painter(unet_painter.pipeline, Upscaler(tiny.upscaler(), "cpu"))
    small, large = painter.paint(CAT).picture, painter.paint(replace(CAT, upscale=True)).picture
    assert large.shape == (48, 64, 3)
    # Random weights enlarge badly, but what they are given shows: where it is the same, so is the answer.
    other = painter.paint(replace(CAT, upscale=True, seed=1)).picture
    assert np.array_equal(large, Upscaler(tiny.upscaler(), "cpu").enlarged(small)) and not np.array_equal(large, other)


@pytest.mark.parametrize("size", [(8, 8), (13, 21), (24, 32)])
def test_any_size_is_enlarged(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert Upscaler(tiny.upscaler(), "cpu").enlarged(image).shape == (2 * size[0], 2 * size[1], 3)


def test_too_large_a_picture_is_not_enlarged():
    with pytest.raises(InputError, match=f"pixels are too many to enlarge; at most {MOST_PIXELS}"):
        Upscaler(tiny.upscaler(), "cpu").enlarged(np.zeros((1025, 1024, 3), np.uint8))


def test_a_picture_is_told_in_words():
    captioner = Captioner(tiny.captioner(), "cpu")
    said = {captioner.caption(np.full((40, 50, 3), grey, np.uint8)) for grey in (0, 255)}
    assert all(set(words.split()) <= {"a", "photo", "of", "cat", "dog", "on", "the", "mat"} for words in said)
    grey = np.full((40, 50, 3), 128, np.uint8)
    assert captioner.caption(grey) == captioner.caption(grey)


def test_a_closed_painter_has_let_go(tmp_path):
    painter = Painter(open_pipeline(str(tiny.stable_diffusion())))
    painter.warm_up()
    painter.close()
    painter.close()
    assert painter.pipeline is None


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny.stable_diffusion_xl, tiny.flux], ids=["sdxl", "flux"])
def test_other_families_paint_and_show_the_way(make):
    painter = Painter(open_pipeline(str(make()), "cpu"))
    steps = list(painter.steps(replace(CAT, every=1)))
    assert [step.number for step in steps] == [1, 2, 3, 4] and all(step.picture.std() > 5 for step in steps)
    made = painter.pipeline(
        "a cat",
        num_inference_steps=4,
        width=32,
        height=24,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    with torch.no_grad():
        assert np.array_equal(latents.decoded(painter.pipeline, made.images, 24, 32)[0][0], steps[-1].picture)
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    assert painter.paint(replace(CAT, image=image, strength=0.5)).total == 2
