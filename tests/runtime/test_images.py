"""Picture files of every kind come in and go out; every fault of one is a single line."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from runtime import images
from runtime.errors import InputError, ToolchainError
from runtime.images import Limits, check_output, find_images, fit, read_image, write_image

# Top half red, bottom half blue; left a shade darker than right: every flip and turn of it is different.
UPRIGHT = np.zeros((40, 40, 3), np.uint8)
UPRIGHT[:20, :, 0] = 250
UPRIGHT[20:, :, 2] = 250
UPRIGHT[:, 20:, 1] = 90


def encode(picture: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text and "\n" not in text and len(text) < 500
    return text


def test_rgb_of_the_wanted_size_is_untouched():
    result = read_image(encode(Image.fromarray(UPRIGHT)), 40)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, UPRIGHT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"])
def test_png_modes(mode):
    grey = Image.fromarray(np.full((30, 30), 255, np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(np.full((30, 30), 65535, np.uint16))
    elif mode == "I":
        picture = Image.fromarray(np.full((30, 30), 65535, np.int32))
    else:
        picture = grey.convert(mode)
    data = encode(picture, "TIFF" if mode == "I" else "PNG")
    np.testing.assert_array_equal(read_image(data, 16), np.full((16, 16, 3), 255, np.uint8))


def test_sixteen_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    result = read_image(encode(Image.fromarray(ramp)), 64)
    np.testing.assert_array_equal(result[..., 0], np.rint(ramp / 257).astype(np.uint8))


def test_sixteen_bit_rgb_png():
    row = b"\0" + struct.pack(">HHH", 0x8000, 0x4000, 0xFF00) * 4
    result = read_image(png(4, 4, 16, 2, row * 4), 4)
    np.testing.assert_array_equal(result[0, 0], [0x80, 0x40, 0xFF])


def test_sixteen_bit_grey_with_a_transparent_value_shows_white():
    row = b"\0" + struct.pack(">HHHH", 0, 0, 1000, 1000)
    result = read_image(png(4, 4, 16, 0, row * 4, chunk(b"tRNS", struct.pack(">H", 0))), 4)
    np.testing.assert_array_equal(result[0, :, 0], [255, 255, 4, 4])


def test_float_grey_of_0_to_1():
    values = np.full((8, 8), 0.5, np.float32)
    assert read_image(encode(Image.fromarray(values), "TIFF"), 8)[0, 0, 0] == 128


@pytest.mark.parametrize("value", [-1.0, 300.0, float("nan")])
def test_float_grey_of_unknown_range_is_refused(value):
    data = encode(Image.fromarray(np.full((8, 8), value, np.float32)), "TIFF")
    with pytest.raises(
        InputError, match=r"grey values go from .*; expected 0 to 1: convert it to 8 bits first"
    ) as error:
        read_image(data, 8)
    one_line(error)


def test_cmyk_jpeg():
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    result = read_image(encode(red, "JPEG", quality=95), 16)
    np.testing.assert_allclose(result[8, 8], [255, 0, 0], atol=6)


def test_alpha_is_laid_on_white_and_hides_its_colour():
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[:, 10:, 3] = 255
    result = read_image(encode(Image.fromarray(pixels)), 40)
    np.testing.assert_array_equal(result[:, 0], np.full((40, 3), 255))
    np.testing.assert_array_equal(result[:, -1], np.tile([255, 0, 0], (40, 1)))


def test_half_alpha_on_white():
    picture = Image.new("LA", (4, 4), (0, 128))
    assert read_image(encode(picture), 4)[0, 0, 0] == 127


def test_palette_with_a_transparent_entry():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.putpixel((0, 0), 0)
    result = read_image(encode(picture, transparency=0), 4)
    np.testing.assert_array_equal(result[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(result[1, 1], [10, 20, 30])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(40, 40), (41, 60), (61, 40)])
def test_exif_orientation(orientation, shape):
    source = np.asarray(Image.fromarray(UPRIGHT).resize(shape, Image.Resampling.NEAREST))
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    picture = Image.fromarray(source)
    stored = picture if undo == 1 else picture.transpose(images._UPRIGHT[undo])
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(encode(stored, exif=exif), 40), read_image(encode(picture), 40))


def test_exif_orientation_6_turns_clockwise():
    # The standard's own words: row 0 of the stored picture is the right-hand side of the upright one.
    stored = np.zeros((40, 40, 3), np.uint8)
    stored[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    result = read_image(encode(Image.fromarray(stored), exif=exif), 40)
    assert result[:, -1].min() == 255 and result[:, 0].max() == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_spoil_the_picture():
    data = encode(Image.fromarray(UPRIGHT), exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    np.testing.assert_array_equal(read_image(data, 40), UPRIGHT)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 7), (113, 239), (1023, 64)])
def test_awkward_sizes(size):
    assert read_image(encode(Image.new("RGB", size, (9, 8, 7))), 32).tolist() == [[[9, 8, 7]] * 32] * 32


def test_the_centre_square_is_taken():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    np.testing.assert_array_equal(np.asarray(fit(Image.fromarray(wide), 10)), np.full((10, 10, 3), 200))


def test_shrinking_is_antialiased():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    result = read_image(encode(Image.fromarray(stripes)), 37)
    assert abs(int(result.min()) - 127) < 12 and abs(int(result.max()) - 127) < 12


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **_lossless(file_format))
    np.testing.assert_array_equal(read_image(data, 4)[0, 0], [255, 0, 0])


def _lossless(file_format: str) -> dict:
    return {"lossless": True} if file_format == "WEBP" else {}


@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "PPM"])
def test_other_formats(file_format):
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(UPRIGHT), file_format), 40), UPRIGHT)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the image is empty (0 bytes); give an image file"),
        (b"not an image", "the image is not an image; expected PNG, JPEG, WebP, GIF, BMP, TIFF or PPM"),
        (b"\x80\x04\x95pickle", "the image is not an image; expected PNG, JPEG, WebP, GIF, BMP, TIFF or PPM"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "the image is not an image; expected PNG, JPEG, WebP, GIF, BMP, TIFF or PPM"),
        (b"GIF89a" + b"\1\0\1\0\0\0\0" + b";", "the image is damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n", "the image is damaged or truncated"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "the image is damaged or truncated"),
    ],
)
def test_bytes_that_are_no_picture(data, expected):
    with pytest.raises(InputError) as error:
        read_image(data, 8)
    assert one_line(error).startswith(expected)


@pytest.mark.parametrize("side", [50_000, 2**31 - 1])
def test_a_huge_header_is_refused_before_decoding(side):
    with pytest.raises(
        InputError, match=rf"^the image is {side} x {side} pixels, more than the 30 million allowed"
    ) as error:
        read_image(png(side, side, 8, 2, b""), 8)
    one_line(error)


def test_what_cannot_be_shrunk_while_it_is_decoded_has_a_limit_of_its_own():
    limits = Limits(pixels=2000, whole_pixels=1500)
    picture = Image.fromarray(UPRIGHT)
    assert read_image(encode(picture, "JPEG"), 8, limits).shape == (8, 8, 3)
    for data in (encode(picture), encode(picture, "JPEG", progressive=True), encode(picture.convert("L"), "JPEG")):
        with pytest.raises(InputError, match=r"more than the 0\.0015 million allowed of a picture that is no "):
            read_image(data, 8, limits)


def test_limits():
    data = encode(Image.fromarray(UPRIGHT))
    with pytest.raises(InputError, match=r"40 x 40 pixels, more than the 0\.0015 million allowed; shrink it first"):
        read_image(data, 8, Limits(pixels=1500))
    with pytest.raises(InputError, match=r"more than the .* MiB allowed"):
        read_image(data, 8, Limits(file_bytes=10))


def test_a_file_beyond_the_byte_limit_is_not_read(tmp_path):
    path = tmp_path / "large.png"
    with open(path, "wb") as file:
        file.truncate(10 << 30)  # sparse
    with pytest.raises(InputError, match=r"large\.png is 10240\.0 MiB, more than the 256 MiB allowed"):
        read_image(path, 8)


@pytest.mark.parametrize(("kind", "start"), [(b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0\0\0")])
def test_a_text_chunk_that_inflates_without_end(kind, start):
    bomb = zlib.compress(b"\0" * (100 << 20), 9)
    data = png(2, 2, 8, 2, (b"\0" + b"\x80" * 6) * 2, chunk(kind, start + bomb))
    with pytest.raises(InputError, match=r"the image is damaged or truncated .*MAX_TEXT_CHUNK") as error:
        read_image(data, 2)
    one_line(error)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files(file_format, share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), file_format)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"cut\.img is damaged or truncated \(.+\); give a whole image file") as error:
        read_image(path, 8)
    one_line(error)


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "img1.jpg").touch()
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "img1.jpeg", 8)
    assert one_line(error) == f"{tmp_path}/img1.jpeg does not exist; did you mean {tmp_path}/img1.jpg?"
    with pytest.raises(InputError, match=r"its folder .*/none does not exist either"):
        read_image(tmp_path / "none" / "img1.jpg", 8)


def test_what_is_no_regular_file(tmp_path):
    with pytest.raises(InputError, match="is a folder; expected an image file"):
        read_image(tmp_path, 8)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is not a regular file; expected an image file"):
        read_image(tmp_path / "pipe.png", 8)
    with pytest.raises(InputError, match=r"cannot be read: .*null"):
        read_image("a\0b.png", 8)


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(encode(Image.fromarray(UPRIGHT)))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)  # a superuser may read everything, so mode bits prove nothing
    with pytest.raises(InputError) as error:
        read_image(path, 8)
    assert one_line(error) == f"{path} cannot be read: Permission denied"


def test_resolution_must_be_positive():
    with pytest.raises(InputError, match="resolution 0 was given; expected a positive number"):
        read_image(b"", 0)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_damage_is_an_input_error_or_a_picture(data):
    file_format = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]))
    encoded = bytearray(encode(Image.fromarray(UPRIGHT), file_format))
    for _ in range(data.draw(st.integers(1, 6))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    try:
        result = read_image(bytes(encoded[:cut]), 8, Limits(pixels=1_000_000))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert result.shape == (8, 8, 3) and result.dtype == np.uint8


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "HSV", "F", "I", "I;16"]),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    resolution=st.integers(1, 50),
)
def test_any_mode_and_size_in_tiff(mode, width, height, resolution):
    picture = Image.new(mode, (width, height))
    try:
        data = encode(picture, "TIFF")
    except OSError:
        assert mode in ("HSV",)  # what TIFF itself cannot hold
        return
    try:
        assert read_image(data, resolution).shape == (resolution, resolution, 3)
    except InputError as error:
        assert mode == "LAB" and "damaged" in str(error)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
def test_lossless_round_trip(suffix, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    path = write_image(tmp_path / "new" / f"out{suffix}", image)
    np.testing.assert_array_equal(read_image(path, 48), image)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_is_near(suffix, tmp_path):
    result = read_image(write_image(tmp_path / f"out{suffix}", UPRIGHT), 40)
    assert np.abs(result.astype(int) - UPRIGHT).mean() < 3


@pytest.mark.parametrize(
    ("image", "given"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 \[8, 8, 3\]"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"uint8 \[1, 8, 8, 3\]"),
        (np.zeros((8, 8), np.uint8), r"uint8 \[8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 \[0, 8, 3\]"),
    ],
)
def test_write_image_takes_only_uint8_rgb(image, given, tmp_path):
    with pytest.raises(InputError, match=rf"an image of {given} was given for .*; expected uint8 \[R,R,3\]"):
        write_image(tmp_path / "out.png", image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.bmp", "out", "out.png.txt"])
def test_output_suffix(name, tmp_path):
    with pytest.raises(InputError, match=r"has (no suffix|suffix '.*'); expected one of .png, .jpg, .jpeg, .webp"):
        check_output(tmp_path / name)


def test_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for path, reason in [
        (tmp_path / "file" / "out.png", "Not a directory"),
        (tmp_path / ("n" * 300 + ".png"), "File name too long"),
        ("/proc/out.png", "No such file or directory"),
        ("a\0b.png", "null"),
    ]:
        with pytest.raises(InputError, match=f"output .* cannot be written: .*{reason}") as error:
            check_output(path)
        one_line(error)
    with pytest.raises(InputError, match=r"output .*folder\.png is a folder; give a file name in it"):
        check_output(tmp_path / "folder.png")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder.png"]


def test_check_output_leaves_nothing(tmp_path):
    assert check_output(tmp_path / "a" / "b" / "out.png") == tmp_path / "a" / "b" / "out.png"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "kind"), [(28, ToolchainError), (13, InputError)])
def test_a_failed_write_leaves_the_old_picture(number, kind, tmp_path, monkeypatch):
    path = write_image(tmp_path / "out.png", UPRIGHT)

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(kind, match=os.strerror(number)) as error:
        write_image(path, UPRIGHT[::-1])
    assert error.type is kind
    monkeypatch.undo()
    np.testing.assert_array_equal(read_image(path, 40), UPRIGHT)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"]


def test_find_images(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images([tmp_path / "notes.txt", tmp_path]) == [
        tmp_path / "notes.txt",
        tmp_path / "a.JPG",
        tmp_path / "b.png",
    ]


def test_find_images_faults(tmp_path):
    with pytest.raises(InputError, match="no input image was given"):
        find_images([])
    with pytest.raises(InputError, match="does not exist; give an image file or a folder of images"):
        find_images([tmp_path / "zzz"])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError) as error:
        find_images([tmp_path])
    expected = ".bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp"
    assert one_line(error) == f"folder {tmp_path} holds no image; expected files ending in {expected}"


def test_pillow_text_limit_is_the_one_relied_on():
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 16 << 20
