"""Picture files ↔ uint8 `[R,R,3]` arrays. Every fault of a file is an InputError of one line.

A file is untrusted: its size is bounded before it is read, its format is known by its first bytes, its pixel count
is bounded from the header alone, and only then are pixels decoded. Colour profiles are ignored: pixels are taken as
sRGB, which is what the model was given.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from runtime import codecs, files
from runtime.errors import InputError, ToolchainError

# A folder is searched for these; a file given by name may have any suffix, its content decides.
INPUT_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

# JPEG keeps full-resolution colour: halving it would cost PSNR on flat cartoon edges. PNG and WebP are lossless.
# Settings of Pillow's, which encodes what `runtime.codecs` does not. Run lengths at PNG's level 1 take a quarter of the
# time of Pillow's own level and make files as small; WebP's least effort takes a twentieth of its default
# (`python -m bench.codecs`, its table in `bench/report/`).
_ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 1, "compress_type": zlib.Z_RLE}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "method": 0, "quality": 0}),
}
OUTPUT_SUFFIXES = tuple(_ENCODERS)

# The plugin classes are called instead of Image.open: it would probe some forty formats (some start other programs),
# and warn on stderr about sizes that `Limits` decides on.
_SIGNATURES: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"II*\0", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", TiffImagePlugin.TiffImageFile),
    *((b"P%d" % kind, PpmImagePlugin.PpmImageFile) for kind in range(1, 7)),
)

# What Pillow's decoders are seen to raise on damaged files.
_DECODE_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)

# EXIF 2.32, tag 0x0112: what turns the stored picture upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Limits:
    """How large a picture may be: `pixels` = width x height by the header, `file_bytes` of the encoded file.

    `whole_pixels` is for what cannot be shrunk while it is decoded, all but baseline colour JPEG: it takes up to 12
    bytes a pixel, and a file of a few hundred kilobytes may be of any number of them.
    """

    pixels: int = 100_000_000
    whole_pixels: int = 30_000_000
    file_bytes: int = 256 << 20


DEFAULT_LIMITS = Limits()


def read_image(source: PathLike | bytes, resolution: int, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    """Decode a picture file (or its bytes) to uint8 `[R,R,3]`, RGB, upright, `R = resolution`.

    Takes PNG, JPEG, WebP, GIF, BMP, TIFF and PPM/PGM of any size and mode; of an animation the first frame.
    Transparent pixels are laid on white. Raises InputError for anything that is no such picture or exceeds `limits`.
    """
    if resolution < 1:
        raise InputError(f"resolution {resolution} was given; expected a positive number of pixels, such as 256")
    if isinstance(source, bytes):
        name, data = "the image", source
        if len(data) > limits.file_bytes:
            raise _too_many_bytes(name, len(data), limits)
    else:
        name, data = os.fspath(source), _read_file(source, limits)
    if not data:
        raise InputError(f"{name} is empty (0 bytes); give an image file")
    with _open(data, name, limits) as picture:
        try:
            return _fitted(picture, data, resolution)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        except _DECODE_FAULTS as error:
            raise _damaged(name, error) from error


def _fitted(picture: ImageFile.ImageFile, data: bytes, resolution: int) -> np.ndarray:
    turn = _turn(picture)
    if isinstance(picture, JpegImagePlugin.JpegImageFile) and picture.mode == "RGB":
        shrink = _shrink(picture.size, resolution)
        pixels = codecs.decode_jpeg(data, picture.size, shrink)
        if pixels is not None:
            if pixels.shape[:2] == (resolution, resolution) and turn is None:
                return pixels
            return np.asarray(fit(_turned(Image.fromarray(pixels), turn), resolution))
        picture.draft(None, (picture.width // shrink, picture.height // shrink))
    picture.load()
    return np.asarray(fit(_to_rgb(_turned(picture, turn)), resolution))


def _shrink(size: tuple[int, int], resolution: int) -> int:
    """By how much a JPEG is shrunk while it is decoded: what is left is at least twice what is wanted.

    A camera's photo is decoded six times as fast so, and after resampling is 50 dB and more from one decoded whole
    (`python -m bench.codecs`): the sums that shrink it are those of the transform that it is decoded by.
    """
    return next((shrink for shrink in (8, 4, 2) if min(size) // shrink >= 2 * resolution), 1)


def fit(picture: Image.Image, resolution: int) -> Image.Image:
    """Cut the centre square out of an RGB picture and resample it to `resolution` x `resolution`.

    Cutting, not stretching or padding: the model draws what it is given, so a squeezed cat gives a squeezed dog and
    a border gives a dog with a border; the subject of a photo is mostly at its centre. Bicubic with the filter
    widened when shrinking (Pillow does so), since plain sampling aliases fur and whiskers into patterns.
    """
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return picture.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box)


def check_output(path: PathLike) -> Path:
    """Raise InputError unless `write_image(path, …)` can work; meant to be called before long work. Leaves nothing."""
    path = Path(path)
    if path.suffix.lower() not in _ENCODERS:
        given = f"suffix '{path.suffix}'" if path.suffix else "no suffix"
        raise InputError(f"output {path} has {given}; expected one of {', '.join(OUTPUT_SUFFIXES)}")
    try:
        if path.is_dir():
            raise InputError(f"output {path} is a folder; give a file name in it, such as {path / 'out.png'}")
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)
        folder = path.absolute().parent
        while not os.path.lexists(folder):
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    return path


def write_image(path: PathLike, image: np.ndarray) -> Path:
    """Write uint8 `[H,W,3]` as PNG, JPEG (quality 95) or lossless WebP, by the suffix; whole or not at all.

    Raises InputError for another suffix, shape or type, or where `path` cannot be written; ToolchainError when the
    disk is full.
    """
    path = Path(path)
    _check_pixels(image, f" for {path}")
    check_output(path)
    encoded = encode_image(image, path.suffix)
    try:
        files.write_bytes(path, encoded)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise ToolchainError(f"cannot write {path}: {error.strerror}") from error
        raise _unwritable(path, error) from error
    return path


def encode_image(image: np.ndarray, suffix: str, quality: int | None = None) -> bytes:
    """uint8 `[H,W,3]` as the bytes of a PNG, JPEG (quality 95) or lossless WebP file, by the suffix (".png").

    `quality`, 1 to 100, is of a JPEG or makes a WebP lossy. Raises InputError for another suffix, shape or type, and
    for a quality out of range or of a PNG.
    """
    _check_pixels(image)
    if suffix.lower() not in _ENCODERS:
        raise InputError(f"there is no encoder for suffix '{suffix}'; expected one of {', '.join(OUTPUT_SUFFIXES)}")
    if quality is not None and (suffix.lower() == ".png" or not 1 <= quality <= 100):
        raise InputError(f"quality {quality} of a {suffix} file was given; expected 1 to 100, of .jpg or .webp")
    if suffix.lower() == ".png" and (png := codecs.encode_png(image)) is not None:
        return png
    file_format, options = _ENCODERS[suffix.lower()]
    if quality is not None:
        options = {**options, "quality": quality, "lossless": False}  # JPEG's encoder passes over what it does not know
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, file_format, **options)
    return encoded.getvalue()


def find_images(inputs: Sequence[PathLike]) -> list[Path]:
    """The image files that `inputs` name: files in the order given, each folder's own images sorted by name.

    Folders are not searched deeper, and hidden files are passed over. Raises InputError for a missing path and for
    a folder without images.
    """
    if not inputs:
        raise InputError("no input image was given; expected an image file or a folder of images")
    return [image for given in inputs for image in _images_of(Path(given))]


def _images_of(path: Path) -> Iterator[Path]:
    with _readable(path):
        if not stat.S_ISDIR(path.stat().st_mode):
            yield path
            return
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
    images = [name for name in names if not name.startswith(".") and name.lower().endswith(INPUT_SUFFIXES)]
    if not images:
        raise InputError(f"folder {path} holds no image; expected files ending in {', '.join(INPUT_SUFFIXES)}")
    for name in images:
        yield path / name


def _read_file(source: PathLike, limits: Limits) -> bytes:
    path = Path(source)
    with _readable(path):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder; expected an image file")
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device may never end
            raise InputError(f"{path} is not a regular file; expected an image file")
        if status.st_size > limits.file_bytes:
            raise _too_many_bytes(str(path), status.st_size, limits)
        with open(path, "rb") as file:
            return file.read(limits.file_bytes)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist{_nearest(path)}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read: {reason}") from error


def _nearest(path: Path) -> str:
    try:
        names = [entry.name for entry in os.scandir(path.parent)]
    except OSError:
        return f"; its folder {path.parent} does not exist either"
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else "; give an image file or a folder of images"


def _open(data: bytes, name: str, limits: Limits) -> ImageFile.ImageFile:
    """Parse the header only."""
    plugin = _plugin_of(data)
    if plugin is None:
        raise InputError(f"{name} is not an image; expected PNG, JPEG, WebP, GIF, BMP, TIFF or PPM")
    try:
        picture = plugin(io.BytesIO(data))
        width, height = picture.size
    except _DECODE_FAULTS as error:
        raise _damaged(name, error) from error
    most = limits.pixels if _can_shrink(picture) else min(limits.pixels, limits.whole_pixels)
    if width * height > most:
        picture.close()
        of = "" if most == limits.pixels else " of a picture that is no baseline JPEG"
        raise InputError(
            f"{name} is {width} x {height} pixels, more than the {most / 1e6:g} million allowed{of}; shrink it first"
        )
    return picture


def _can_shrink(picture: ImageFile.ImageFile) -> bool:
    """Whether it is decoded at a fraction of its size; of a progressive JPEG all coefficients are kept meanwhile."""
    is_jpeg = isinstance(picture, JpegImagePlugin.JpegImageFile) and picture.mode == "RGB"
    return is_jpeg and not picture.info.get("progressive")


def _plugin_of(data: bytes) -> type[ImageFile.ImageFile] | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return next((plugin for signature, plugin in _SIGNATURES if data.startswith(signature)), None)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What turns the stored picture upright."""
    # Only the one tag is read: a picture with an otherwise broken EXIF block is still a good picture.
    try:
        orientation = picture.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODE_FAULTS:
        orientation = 1
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return picture if turn is None else picture.transpose(turn)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB of any mode; alpha on white before resampling, so that hidden colours do not bleed into edges."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _deep_grey_to_rgb(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _deep_grey_to_rgb(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits, or floats in 0..1; how Pillow itself converts them depends on its version."""
    values = np.asarray(picture)
    peak = 1.0 if picture.mode == "F" else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= peak):  # also true of NaN
        raise InputError(f"grey values go from {low:g} to {high:g}; expected 0 to {peak:g}: convert it to 8 bits first")
    grey = np.rint(values.astype(np.float32) * (255 / peak)).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _too_many_bytes(name: str, size: int, limits: Limits) -> InputError:
    allowed = f"{limits.file_bytes / (1 << 20):g} MiB"
    return InputError(f"{name} is {size / (1 << 20):.1f} MiB, more than the {allowed} allowed; shrink it first")


def _damaged(name: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{name} is damaged or truncated ({reason}); give a whole image file")


def _check_pixels(image: np.ndarray, where: str = "") -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"an image of {image.dtype} {list(image.shape)} was given{where}; expected uint8 [R,R,3]")


def _unwritable(path: Path, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else error
    return InputError(f"output {path} cannot be written: {reason}; give a path in a folder you may write to")
