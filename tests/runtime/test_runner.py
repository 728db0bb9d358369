from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.runner import ImageRunner, Runner, TensorSpec, check_feed, element_count

IMAGE = TensorSpec("image", "uint8", (-1, 8, 8, 3))
SCALE = TensorSpec("scale", "float16", (4,))


class Inverter:
    """255 - x, on batches within a profile; keeps the batch sizes it saw."""

    def __init__(self, smallest: int = 1, largest: int | None = None, batch: int = -1):
        bounds = ((smallest, 8, 8, 3), (largest, 8, 8, 3)) if largest else (None, None)
        self.inputs = (TensorSpec("photo", "uint8", (batch, 8, 8, 3), *bounds),)
        self.outputs = (TensorSpec("drawing", "uint8", (batch, 8, 8, 3)),)
        self.batches: list[int] = []
        self.closed = False

    def infer(self, feed):
        check_feed(self.inputs, feed)
        self.batches.append(len(feed["photo"]))
        return {"drawing": 255 - feed["photo"]}

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)


def test_a_good_feed_passes():
    check_feed([IMAGE, SCALE], {"scale": np.zeros(4, np.float16), "image": images(3)})


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"imgae": 0}, "there is no input 'imgae'; did you mean 'image'?"),
        ({"zzz": 0}, "there is no input 'zzz'; expected 'image', 'scale'"),
        ({}, "input 'image', 'scale' is missing; expected 'image', 'scale'"),
        ({"image": [1], "scale": 0}, "input 'image' is a list; expected a numpy array, uint8"),
        (
            {"image": np.zeros((1, 8, 8, 3)), "scale": 0},
            "input 'image' is float64; expected uint8: convert it with .astype",
        ),
        (
            {"image": np.zeros((1, 8, 9, 3), np.uint8), "scale": 0},
            "input 'image' has shape [1, 8, 9, 3]; expected [?,8,8,3]",
        ),
        ({"image": np.zeros((8, 8, 3), np.uint8), "scale": 0}, "input 'image' has shape [8, 8, 3]; expected [?,8,8,3]"),
        (
            {"image": np.zeros((0, 8, 8, 3), np.uint8), "scale": 0},
            "input 'image' has shape [0, 8, 8, 3]; axis 0 takes at least 1: the nearest is 1",
        ),
    ],
)
def test_a_bad_feed_is_one_line(feed, message):
    with pytest.raises(InputError) as error:
        check_feed([IMAGE, SCALE], feed)
    assert str(error.value) == message


@pytest.mark.parametrize(("count", "nearest"), [(1, 2), (9, 4)])
def test_a_shape_outside_the_profile(count, nearest):
    spec = TensorSpec("x", "uint8", (-1,), (2,), (4,))
    with pytest.raises(InputError) as error:
        check_feed([spec], {"x": np.zeros(count, np.uint8)})
    assert str(error.value) == f"input 'x' has shape [{count}]; axis 0 takes 2 to 4: the nearest is {nearest}"


def test_spec():
    assert str(IMAGE) == "image: uint8 [?,8,8,3]"
    assert SCALE.numpy_dtype == np.float16
    assert element_count((2, 3)) == 6 and element_count(()) == 1
    with pytest.raises(InputError, match=r"shape \[-1, 3\] has a dynamic size"):
        element_count((-1, 3))


@pytest.mark.parametrize(
    ("runner", "count", "batches"),
    [
        (Inverter(), 5, [5]),
        (Inverter(1, 4), 10, [4, 4, 2]),
        (Inverter(2, 4), 5, [4, 2]),
        (Inverter(2, 4), 1, [2]),
        (Inverter(batch=1), 3, [1, 1, 1]),
        (Inverter(batch=4), 6, [4, 4]),
    ],
)
def test_batches_are_cut_and_filled(runner, count, batches):
    with ImageRunner.from_runner(runner) as image_runner:
        assert image_runner.resolution == 8
        result = image_runner.run(images(count))
    np.testing.assert_array_equal(result, 255 - images(count))
    assert runner.batches == batches
    assert runner.closed


def test_a_view_is_taken():
    result = ImageRunner(Inverter()).run(images(2)[:, ::-1])
    np.testing.assert_array_equal(result, 255 - images(2)[:, ::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), "input 'photo' is float32; expected uint8"),
        (np.zeros((8, 8, 3), np.uint8), r"input 'photo' has shape \[8, 8, 3\]; expected \[\?,8,8,3\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"input 'photo' has shape \[0, 8, 8, 3\]; axis 0 takes at least 1"),
    ],
)
def test_run_checks_its_images(array, message):
    with pytest.raises(InputError, match=message):
        ImageRunner(Inverter()).run(array)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((), (IMAGE,), r"it has 0 inputs \(none\); expected one, uint8 \[B,R,R,3\]"),
        ((IMAGE, SCALE), (IMAGE,), r"it has 2 inputs \(image: uint8 \[\?,8,8,3\]; scale: float16 \[4\]\)"),
        ((IMAGE,), (IMAGE, IMAGE), "it has 2 outputs"),
        ((SCALE,), (IMAGE,), r"its input is 'scale: float16 \[4\]'; expected uint8 \[B,R,R,3\] with a fixed R"),
        ((TensorSpec("x", "uint8", (1, -1, -1, 3)),), (IMAGE,), "with a fixed R"),
        ((TensorSpec("x", "uint8", (1, 3, 8, 8)),), (IMAGE,), "with a fixed R"),
        ((TensorSpec("x", "uint8", (1, 16, 16, 3)),), (IMAGE,), r"takes 'x: uint8 \[1,16,16,3\]' but gives 'image"),
    ],
)
def test_what_is_no_image_network(inputs, outputs, message):
    runner = Inverter()
    runner.inputs, runner.outputs = inputs, outputs
    with pytest.raises(InputError, match="not an image network.*" + message):
        ImageRunner.from_runner(runner)
    assert runner.closed


def test_the_protocol():
    assert isinstance(Inverter(), Runner)
