"""The cat2dog function, without a server: pictures in, dogs out, one bad one never another's trouble."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from runtime.errors import GpuLost, InputError, ToolchainError
from runtime.images import Limits, read_image
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from runtime.runner import ImageRunner
from serving.dogs import Dogs
from serving.function import Answer, Ask, Function, Refusal
from tests.bench.inverter import write_inverter


def picture(seed=0, size=(40, 30), kind="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def ask(name="a", **values):
    return Ask(name, values)


@pytest.fixture
def dogs(tmp_path):
    runners = [
        ImageRunner(OnnxRuntimeRunner(write_inverter(tmp_path / f"{side}.onnx", side), threads=1)) for side in (16, 8)
    ]
    made = Dogs(runners, Limits(pixels=2000, file_bytes=50_000), batch=4)
    yield made
    made.close()


def pixels_of(answer):
    assert isinstance(answer, Answer), answer.reason
    return np.asarray(Image.open(io.BytesIO(answer.values["dog"])))


def test_it_is_a_function(dogs):
    assert isinstance(dogs, Function)
    dogs.warm_up()


def test_a_batch_of_both_resolutions_and_bad_ones(dogs):
    good, other = picture(1), picture(2, kind="JPEG")
    answers = dogs.answer(
        [
            ask(image=good),
            ask(image=good[:200]),
            ask(image=other, resolution=8),
            ask(image=b"GIF89a"),
            ask(image=other, resolution=9),
            ask(image=picture(3, (50, 41))),
            ask(image=other, resolution=16),
        ]
    )
    assert np.array_equal(pixels_of(answers[0]), 255 - read_image(good, 16))
    assert np.array_equal(pixels_of(answers[2]), 255 - read_image(other, 8))
    assert np.array_equal(pixels_of(answers[6]), 255 - read_image(other, 16))
    reasons = [each.reason for each in answers if isinstance(each, Refusal)]
    assert len(reasons) == 4 and all(each.status == 400 for each in answers if isinstance(each, Refusal))
    assert "damaged or truncated" in reasons[0] and "damaged" in reasons[1]
    assert reasons[2] == "resolution 9 is not served; expected one of 16, 8"
    assert "50 x 41 pixels" in reasons[3] and "shrink it first" in reasons[3]
    assert answers[0].log["batch"] == 2 and answers[2].log["batch"] == 1
    assert {"decode_ms", "network_ms", "encode_ms"} <= set(answers[0].log)


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats(dogs, name, kind):
    (answer,) = dogs.answer([ask(image=picture(1), format=name)])
    assert Image.open(io.BytesIO(answer.values["dog"])).format == kind


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_quality_makes_files_smaller(dogs, name):
    low, high = dogs.answer([ask(image=picture(1), format=name, quality=quality) for quality in (5, 95)])
    assert len(low.values["dog"]) < len(high.values["dog"])


@pytest.mark.parametrize("values", [{}, {"format": "png"}])
def test_quality_of_a_png_is_refused(dogs, values):
    (answer,) = dogs.answer([ask(image=picture(1), quality=50, **values)])
    assert answer.status == 400 and "a png loses nothing" in answer.reason


class Broken:
    """A runner that fails as it is told."""

    lanes = 1
    resolution = 8
    smallest_batch, largest_batch = 1, 2

    def __init__(self, error):
        self.error = error

    def run(self, images):
        raise self.error

    def close(self):
        pass


def test_a_model_that_fails_fails_its_own_requests_alone(tmp_path):
    good = ImageRunner(OnnxRuntimeRunner(write_inverter(tmp_path / "x.onnx", 16), threads=1))
    dogs = Dogs([good, Broken(ToolchainError("out of memory"))])
    answers = dogs.answer([ask(image=picture(1), resolution=8), ask(image=picture(1))])
    assert (answers[0].status, answers[0].reason) == (500, "the model could not run: out of memory")
    assert isinstance(answers[1], Answer)
    assert dogs.most_batch == 2


def test_a_lost_gpu_is_not_one_requests_fault():
    with pytest.raises(GpuLost):
        Dogs([Broken(GpuLost("illegal address"))]).answer([ask(image=picture(1))])


def test_what_cannot_be_served_is_said(tmp_path):
    runner = ImageRunner(OnnxRuntimeRunner(write_inverter(tmp_path / "x.onnx", 16), threads=1))
    with pytest.raises(InputError, match="no model is given"):
        Dogs([])
    with pytest.raises(InputError, match="two models of one resolution"):
        Dogs([runner, runner])
    with pytest.raises(InputError, match="batches of 65"):
        Dogs([runner], batch=65)
