"""The faster codecs: the same pixels as Pillow's, the same faults, and nothing of it where they are not installed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from runtime import codecs
from runtime.errors import InputError
from runtime.images import encode_image, read_image
from runtime.metrics import psnr
from tests.cli.conftest import ROOT

pytest.importorskip("simplejpeg", reason="simplejpeg is not installed: pip install 'cat2dog[codecs]'")
pytest.importorskip("fpng", reason="fpng is not installed: pip install 'cat2dog[codecs]'")

PHOTO = Image.open(ROOT / "images/img4.jpg").convert("RGB")


def jpeg(picture=PHOTO, **options):
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", **{"quality": 90, **options})
    return encoded.getvalue()


@pytest.fixture
def by_pillow(monkeypatch):
    """Calls a function with Pillow alone."""

    def call(work, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(codecs, "_module", lambda name: None)
            return work(*arguments)

    return call


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


CASES = {
    "4:2:0": jpeg(subsampling=2),
    "4:2:2": jpeg(subsampling=1),
    "4:4:4": jpeg(subsampling=0),
    "progressive": jpeg(progressive=True),
    "greyscale": jpeg(PHOTO.convert("L")),
    "CMYK": jpeg(PHOTO.convert("CMYK")),
    "restarts": jpeg(restart_marker_blocks=1),
    "one pixel": jpeg(PHOTO.crop((0, 0, 1, 1))),
    "odd": jpeg(PHOTO.crop((0, 0, 239, 113))),
    **{f"orientation {number}": jpeg(**turned(number)) for number in range(1, 9)},
}


@pytest.mark.parametrize("side", [16, 113, 256, 640, 1023])
@pytest.mark.parametrize("name", CASES)
def test_a_jpeg_has_pillows_pixels(name, side, by_pillow):
    assert np.array_equal(read_image(CASES[name], side), by_pillow(read_image, CASES[name], side))


def test_it_is_simplejpeg_that_reads():
    assert codecs.in_use() == {"JPEG": "simplejpeg", "PNG": "fpng"}
    assert codecs.decode_jpeg(CASES["4:2:0"], PHOTO.size, 1).shape == (640, 800, 3)
    assert codecs.decode_jpeg(CASES["odd"], (239, 113), 4).shape == (29, 60, 3)


def test_another_size_than_the_header_pillow_read_is_left_to_pillow():
    assert codecs.decode_jpeg(CASES["odd"], (240, 113), 1) is None


def test_a_picture_of_the_right_size_is_not_resampled():
    exact = PHOTO.crop((0, 0, 256, 256))
    data = jpeg(exact)
    assert np.array_equal(read_image(data, 256), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("side", [32, 64, 128])
def test_shrinking_in_the_decoder_is_close_to_decoding_whole(side):
    whole = Image.open(io.BytesIO(CASES["4:2:0"]))
    box = (80, 0, 720, 640)
    expected = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC, box=box))
    assert psnr(read_image(CASES["4:2:0"], side), expected) > 45


def outcome(data, side):
    try:
        return read_image(data, side).tobytes()
    except InputError as fault:
        return str(fault)


def test_damaged_files_have_the_same_outcome(by_pillow):
    """Truncated at every twentieth place, and with bytes changed: what one refuses, the other refuses alike."""
    whole = jpeg(PHOTO.resize((64, 48)))
    rng = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(2, len(whole), len(whole) // 20)]
    for _ in range(150):
        changed = bytearray(whole)
        for place in rng.integers(2, len(whole), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        damaged.append(bytes(changed))
    outcomes = [(outcome(data, 24), by_pillow(outcome, data, 24)) for data in damaged]
    assert all(ours == pillows for ours, pillows in outcomes)
    assert any(isinstance(ours, str) for ours, _ in outcomes) and any(isinstance(ours, bytes) for ours, _ in outcomes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (113, 239), (256, 256), (3, 1000)])
def test_a_png_holds_the_pixels_and_nothing_else(shape, by_pillow):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    for picture in (image, np.zeros_like(image), image[::-1, ::-1]):
        back = Image.open(io.BytesIO(encode_image(picture, ".png")))
        assert back.mode == "RGB" and np.array_equal(np.asarray(back), picture)
        back.load()
        assert back.info == {} and not back.getexif()
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(by_pillow(encode_image, picture, ".png")))), picture)


def test_what_cannot_be_encoded():
    with pytest.raises(InputError, match=r"no encoder for suffix '.bmp'; expected one of .png, .jpg, .jpeg, .webp"):
        encode_image(np.zeros((2, 2, 3), np.uint8), ".bmp")
    with pytest.raises(InputError, match=r"an image of float32 \[2, 2, 3\] was given; expected uint8"):
        encode_image(np.zeros((2, 2, 3), np.float32), ".png")


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_other_formats_are_pillows(suffix):
    image = np.asarray(PHOTO.crop((0, 0, 64, 64)))
    back = np.asarray(Image.open(io.BytesIO(encode_image(image, suffix))).convert("RGB"))
    assert psnr(back, image) > 35
