"""Pixels: the crop against an exact computation and against Pillow, the places drawn, files that are refused."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from runtime.errors import InputError
from zoo.resnet50 import pixels
from zoo.resnet50.pictures import SIZES, drawn


def keys(distance: Fraction) -> Fraction:
    """The cubic convolution kernel with a = -1/2 (Keys, 1981)."""
    d, a = abs(distance), Fraction(-1, 2)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else Fraction(0)


def exact(row: np.ndarray, position: int) -> list[tuple[int, Fraction]]:
    """Which of `row` make pixel `position` of the enlarged row, and by how much."""
    at = Fraction(2 * position + 1, 3) - Fraction(1, 2)
    first = at.numerator // at.denominator
    return [(min(max(k, 0), len(row) - 1), keys(at - k)) for k in range(first - 1, first + 3)]


def test_each_pixel_is_the_kernel_rounded_once():
    picture = drawn(5, (67, 90))
    top, left = 0, 135 - 100
    crop = pixels.cut(picture, top, left)
    generator = np.random.default_rng(0)
    corners = [(0, 0), (99, 99), (0, 99), (99, 0)]
    for y, x in [*corners, *generator.integers(0, 100, (60, 2)).tolist()]:
        for colour in range(3):
            total = sum(
                w * v * int(picture[r, c, colour])
                for r, w in exact(picture[:, 0], top + y)
                for c, v in exact(picture[0], left + x)
            )
            rounded = (total + Fraction(1, 2)).numerator // (total + Fraction(1, 2)).denominator
            assert crop[y, x, colour] == min(max(rounded, 0), 255), (y, x, colour)


def test_it_is_what_pillow_makes_but_for_its_rounding():
    # Sides that are even, of which Pillow's factor is 1.5 too; its border is made of fewer pixels. Between its two
    # directions Pillow rounds and cuts off what is no byte: nothing here comes near the ends.
    picture = drawn(8, (120, 160)) // 3 + 80
    whole = np.asarray(Image.fromarray(picture).resize((240, 180), Image.Resampling.BICUBIC), np.int16)
    crop = pixels.cut(picture, 40, 60).astype(np.int16)
    assert np.abs(crop - whole[40:140, 60:160]).max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_places_reach_every_edge_and_nothing_beyond(size):
    places = [pixels.place(size, 1, index) for index in range(3000)]
    for axis, side in enumerate(size):
        most = side * 3 // 2 - 100
        drawn_here = {place[axis] for place in places}
        assert min(drawn_here) >= 0 and max(drawn_here) <= most
        assert most > 100 or {0, most} <= drawn_here
    pixels.cut(drawn(0, size), *(side * 3 // 2 - 100 for side in size))


def test_splitmix64_is_the_published_one():
    # The first draws of seed 1234567, as other implementations of the generator print them.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for number, value in enumerate(published):
        assert pixels.draw(1234567, number, 1 << 32) == value >> 32
    assert pixels.draw(0, 0, 1) == 0


def jpeg(picture, **options):
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", **options)
    return encoded.getvalue()


def test_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pixels.decode(jpeg(drawn(1, (80, 120)), exif=exif)).shape == (80, 120, 3)


def test_pillow_decodes_alike(monkeypatch):
    data = jpeg(drawn(2), quality=70)
    expected = pixels.decode(data)
    monkeypatch.setattr(pixels.codecs, "_module", lambda name: None)
    assert np.array_equal(pixels.decode(data), expected)
    with pytest.raises(InputError, match="is damaged"):
        pixels.decode(data[:900])


def test_refused(tmp_path):
    with pytest.raises(InputError, match="is no JPEG"):
        pixels.decode(b"\x89PNG")
    with pytest.raises(InputError, match="66 x 200 pixels; expected at least 67 x 67"):
        pixels.place((200, 66), 0, 0)
    with pytest.raises(InputError, match="does not exist"):
        pixels.read_crop(tmp_path / "absent.jpg", 0, 0)
    with pytest.raises(InputError, match="holds no JPEG"):
        pixels.find_jpegs([tmp_path])
    (tmp_path / "small.jpg").write_bytes(jpeg(drawn(1, (66, 66))))
    with pytest.raises(InputError, match=r"small\.jpg: the picture is 66 x 66"):
        pixels.read_crop(tmp_path / "small.jpg", 0, 0)
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(pixels.MOST_BYTES + 1)
    with pytest.raises(InputError, match="more than 64 MiB"):
        pixels.read_file(tmp_path / "large.jpg")
