"""The text-to-image function by itself: fields become requests, steps become answers, faults become refusals."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is in the extra text2image")

from PIL import Image

from runtime.errors import GpuLost, InputError, ToolchainError
from runtime.images import Limits, encode_image
from serving.function import Ask, Refusal, StreamFunction, checked
from serving.text2image_function import TextToImage
from tests.zoo.text2image import tiny
from zoo.text2image.caption import Captioner
from zoo.text2image.loading import open_pipeline
from zoo.text2image.painter import Painter
from zoo.text2image.request import Request
from zoo.text2image.upscale import Upscaler

pytestmark = pytest.mark.xdist_group("text2image")
SMALL = {"steps": 4, "width": 32, "height": 24}


@pytest.fixture(scope="module")
def painter():
    return Painter(open_pipeline(str(tiny.stable_diffusion()), "cpu"), Upscaler(tiny.upscaler(), "cpu"))


@pytest.fixture(scope="module")
def function(painter):
    return TextToImage(painter, Captioner(tiny.captioner(), "cpu"), upscales=True)


def ask(function, **values):
    """The answers' values, after the checks of the fields."""
    asked = Ask("one", checked(function.inputs, {**SMALL, **values}))
    return [answer.values for answer in function.stream(asked)]


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def picture(seed=0, size=(40, 60)):
    return encode_image(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8), ".png")


def refused(function, **values):
    with pytest.raises(Refusal) as told:
        ask(function, **values)
    return told.value.status, told.value.reason


def test_a_prompts_bytes_become_a_pictures_bytes(function, painter):
    assert isinstance(function, StreamFunction) and (function.name, function.instances) == ("text2image", 1)
    (answer,) = ask(function, prompt="a cat, ein Käse".encode(), seed=3, guidance=2.5, negative_prompt="dogs")
    expected = painter.paint(
        Request("a cat, ein Käse", "dogs", steps=4, guidance=2.5, seed=3, width=32, height=24)
    ).picture
    assert np.array_equal(pixels(answer["image"]), expected) and answer["image"].startswith(b"\x89PNG")
    assert (answer["step"], answer["steps"], answer["flagged"]) == (4, 4, False)
    assert answer["prompt"] == "a cat, ein Käse" and set(answer) == {field.name for field in function.outputs}


def test_pictures_on_the_way_come_as_answers(function):
    answers = ask(function, prompt="a cat", steps=5, every=2, format="jpeg", quality=80)
    assert [(each["step"], each["steps"]) for each in answers] == [(2, 5), (4, 5), (5, 5)]
    assert all(each["image"].startswith(b"\xff\xd8\xff") for each in answers)


def test_each_field_reaches_the_painter(function):
    plain = ask(function, prompt="a cat")[0]["image"]
    for change in (
        {"latent_centre": 1.0, "latent_until": 1.0},
        {"latent_clamp": 1.0},
        {"latent_contrast": 2.0},
        {"image": picture()},
        {"upscale": True},
    ):
        assert ask(function, prompt="a cat", **change)[0]["image"] != plain, change
    assert ask(function, prompt="a cat", latent_centre=1.0, latent_until=0.0)[0]["image"] == plain
    assert ask(function, prompt="a cat", image=picture(), strength=0.5)[0]["steps"] == 2
    assert pixels(ask(function, prompt="a cat", upscale=True)[0]["image"]).shape == (48, 64, 3)


def test_a_picture_may_stand_for_the_prompt(function):
    (told,) = ask(function, prompt_image=picture())
    (both,) = ask(function, prompt_image=picture(), prompt="oil on canvas")
    assert told["prompt"] and both["prompt"] == f"{told['prompt']}, oil on canvas"
    assert ask(function, prompt=told["prompt"])[0]["image"] == told["image"]


@pytest.mark.parametrize(
    ("values", "status", "says"),
    [
        ({}, 400, "there is no prompt, or an empty one; say what to paint"),
        ({"prompt": b"\xff"}, 400, "prompt is not UTF-8"),
        ({"prompt": "a" * 4097}, 413, "prompt has 4097 bytes; at most 4096 are taken"),
        ({"prompt": "a", "width": 33}, 400, "width 33 was given; this pipeline takes multiples of 8"),
        ({"prompt": "a", "width": 2000}, 400, "width is 2000; expected 16 to 1024"),
        ({"prompt": "a", "steps": 101}, 400, "steps is 101; expected 1 to 100"),
        ({"prompt": "a", "guidance": float("nan")}, 400, "expected a finite number"),
        ({"prompt": "a", "seed": -1}, 400, "seed is -1"),
        ({"prompt": "a", "image": b"no picture"}, 400, "the image is not an image"),
        ({"prompt": "a", "image": picture()[:200]}, 400, "damaged or truncated"),
        ({"prompt": "a", "image": picture(), "strength": 0.0}, 400, "strength 0 was given"),
        ({"prompt": "a", "image": picture(), "strength": 0.1}, 400, "leaves none to do"),
        ({"prompt": "a", "quality": 50}, 400, "quality is for jpeg and webp"),
        ({"prompt": "a", "format": "exe"}, 400, "expected one of png, jpeg, webp"),
        ({"prompt": "a", "sampler": "x"}, 400, "there is no field 'sampler'"),
    ],
)
def test_bad_requests_are_refused(function, values, status, says):
    told, reason = refused(function, **values)
    assert told == status and says in reason and "\n" not in reason


def test_a_large_picture_is_refused_by_its_header(painter):
    function = TextToImage(painter, limits=Limits(pixels=1000, file_bytes=10_000))
    assert "2400 pixels" in refused(function, prompt="a", image=picture())[1].replace("60 x 40", "2400")
    status, _ = refused(function, prompt="a", image=b"\x89PNG" + bytes(10_000))
    assert status == 413


def test_fields_of_models_that_are_not_there_are_not_offered(painter):
    function = TextToImage(painter, most_steps=7, most_side=64)
    fields = {field.name: field for field in function.inputs}
    assert not fields["prompt"].optional and not {"prompt_image", "upscale"} & set(fields)
    assert (fields["steps"].most, fields["width"].most) == (7, 64)
    assert "there is no field 'upscale'" in refused(function, prompt="a", upscale=True)[1]
    assert "prompt is missing: what to paint" in refused(function)[1]
    for limits in ({"most_steps": 0}, {"most_side": 8}, {"most_side": 10_000}):
        with pytest.raises(InputError, match="were asked for; expected"):
            TextToImage(painter, **limits)


def test_faults_of_the_pipeline_are_its_own_and_a_lost_gpu_goes_on(painter, monkeypatch):
    function = TextToImage(painter)

    def fails(error):
        def steps(request):
            raise error
            yield

        monkeypatch.setattr(painter, "steps", steps)

    fails(ToolchainError("the pipeline failed: no memory"))
    assert refused(function, prompt="a") == (500, "the pipeline failed: no memory")
    fails(GpuLost("gone"))
    with pytest.raises(GpuLost):
        ask(function, prompt="a")


def test_who_leaves_the_stream_ends_the_denoising(function, painter):
    from zoo.text2image.calls import recorded

    with recorded(painter.pipeline) as calls:
        stream = function.stream(Ask("one", {"prompt": "a cat", "steps": 100, "every": 1}))
        next(stream)
        stream.close()
    assert len(calls) < 20


def test_it_warms_up_unless_it_is_told_not_to(painter, monkeypatch):
    from serving.text2image_server import warm_up_wanted

    warmed = []
    monkeypatch.setattr(painter, "warm_up", lambda: warmed.append(True))
    TextToImage(painter, warm=False).warm_up()
    assert not warmed
    TextToImage(painter).warm_up()
    assert warmed
    for word, wanted in (("0", False), ("no", False), ("True", True), ("", True)):
        monkeypatch.setenv("WARMUP_MODEL", word)
        assert warm_up_wanted() is wanted
    monkeypatch.setenv("WARMUP_MODEL", "maybe")
    with pytest.raises(InputError, match="WARMUP_MODEL=maybe is set; expected 1 or 0"):
        warm_up_wanted()
