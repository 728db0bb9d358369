"""What can decode, resize and encode pictures: each a library with its settings, imported only when it is measured."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.gpu import find_gpus, no_gpu_reason

# Takes what `measured` gives it (bytes, or an array) and returns an array, or bytes.
Work = Callable[[Any], Any]


@dataclass(frozen=True)
class Candidate:
    """`make(side)` imports the library and returns the work for pictures of that side; ImportError where it is absent.

    `exact` is what its PSNR must be: at least that many dB against Pillow's pixels, or against what was encoded.
    """

    step: str
    library: str
    settings: str
    make: Callable[[int], Work]
    least_db: float


def candidates() -> list[Candidate]:
    """In the order of the table. Lossless ones must be equal (inf); a resizer of another kernel need only be close."""
    return [*_decoders(), *_fitters(), *_resizers(), *_encoders()]


_EQUAL = float("inf")


def _decoders() -> Iterator[Candidate]:
    step = "decode jpeg"
    yield Candidate(step, "Pillow", "", lambda _: _pillow_decode, _EQUAL)
    yield Candidate(step, "simplejpeg", "exact DCT and upsampling", lambda _: _simplejpeg_decode(False), 60.0)
    yield Candidate(step, "simplejpeg", "fast DCT and upsampling", lambda _: _simplejpeg_decode(True), 30.0)
    yield Candidate(step, "opencv", "", lambda _: _opencv_decode(), 45.0)
    yield Candidate(step, "pyvips", "", lambda _: _pyvips_decode(), 45.0)
    yield Candidate(step, "torchvision", "nvJPEG", lambda _: _nvjpeg_decode(), 30.0)
    yield Candidate(step, "nvImageCodec", "nvJPEG", lambda _: _nvimgcodec_decode(), 30.0)


def _fitters() -> Iterator[Candidate]:
    step = "decode and fit"
    yield Candidate(step, "runtime", "as `cat2dog run` does", _runtime_fit, 45.0)
    yield Candidate(step, "Pillow", "whole, then bicubic", _pillow_fit, _EQUAL)
    yield Candidate(step, "Pillow", "shrunk in the DCT to 2 R or more, then bicubic", _pillow_draft(2), 30.0)
    yield Candidate(step, "Pillow", "shrunk in the DCT to R or more, then bicubic", _pillow_draft(1), 25.0)
    yield Candidate(step, "simplejpeg", "whole, then Pillow's bicubic", _simplejpeg_fit, 60.0)
    yield Candidate(step, "opencv", "whole, then area", _opencv_fit, 25.0)
    yield Candidate(step, "pyvips", "thumbnail", _pyvips_fit, 25.0)


def _resizers() -> Iterator[Candidate]:
    yield Candidate("resize", "Pillow", "bicubic", _pillow_resize(None), _EQUAL)
    yield Candidate("resize", "Pillow", "bicubic, reducing gap 2", _pillow_resize(2.0), 30.0)
    yield Candidate("resize", "Pillow", "bilinear", _pillow_bilinear, 25.0)
    yield Candidate("resize", "opencv", "area", _opencv_resize, 25.0)


def _encoders() -> Iterator[Candidate]:
    ours = "as `cat2dog run` does"
    step, quality = "encode jpeg", "quality 95, 4:4:4"
    yield Candidate(step, "runtime", ours, _runtime_encode(".jpg"), 35.0)
    yield Candidate(step, "Pillow", quality, _pillow_encode("JPEG", quality=95, subsampling=0), 35.0)
    yield Candidate(step, "simplejpeg", f"{quality}, exact DCT", lambda _: _simplejpeg_encode(False), 35.0)
    yield Candidate(step, "simplejpeg", f"{quality}, fast DCT", lambda _: _simplejpeg_encode(True), 35.0)
    yield Candidate(step, "opencv", quality, lambda _: _opencv_encode(".jpg"), 35.0)
    yield Candidate(step, "torchvision", "nvJPEG, quality 95", lambda _: _nvjpeg_encode(), 30.0)
    yield Candidate(step, "nvImageCodec", f"nvJPEG, {quality}", lambda _: _nvimgcodec_encode(), 35.0)
    step = "encode png"
    yield Candidate(step, "runtime", ours, _runtime_encode(".png"), _EQUAL)
    for level in (0, 1, 4, 6):
        yield Candidate(step, "Pillow", f"level {level}", _pillow_encode("PNG", compress_level=level), _EQUAL)
    run_lengths = {"compress_level": 1, "compress_type": zlib.Z_RLE}
    yield Candidate(step, "Pillow", "level 1, run lengths", _pillow_encode("PNG", **run_lengths), _EQUAL)
    yield Candidate(step, "opencv", "level 1, run lengths", lambda _: _opencv_encode(".png"), _EQUAL)
    yield Candidate(step, "fpng", "", lambda _: _fpng_encode(), _EQUAL)
    step, fast = "encode webp", {"method": 0, "quality": 0}
    yield Candidate(step, "runtime", ours, _runtime_encode(".webp"), _EQUAL)
    yield Candidate(step, "Pillow", "lossless, quality 0", _pillow_encode("WEBP", lossless=True, **fast), _EQUAL)
    yield Candidate(step, "Pillow", "lossless, defaults", _pillow_encode("WEBP", lossless=True), _EQUAL)


def _pillow_decode(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _runtime_fit(side: int) -> Work:
    from runtime.images import read_image

    return lambda data: read_image(data, side)


def _runtime_encode(suffix: str) -> Callable[[int], Work]:
    def make(_: int) -> Work:
        from runtime.images import encode_image

        return lambda image: encode_image(image, suffix)

    return make


def _pillow_fit(side: int) -> Work:
    from PIL import Image

    from runtime.images import fit

    return lambda data: np.asarray(fit(Image.open(io.BytesIO(data)).convert("RGB"), side))


def _pillow_draft(times: int) -> Callable[[int], Work]:
    def make(side: int) -> Work:
        from PIL import Image

        from runtime.images import fit

        def work(data: bytes) -> np.ndarray:
            picture = Image.open(io.BytesIO(data))
            picture.draft("RGB", (times * side, times * side))
            return np.asarray(fit(picture.convert("RGB"), side))

        return work

    return make


def _simplejpeg_decode(fast: bool) -> Work:
    import simplejpeg

    return lambda data: simplejpeg.decode_jpeg(data, "RGB", fastdct=fast, fastupsample=fast)


def _simplejpeg_fit(side: int) -> Work:
    from PIL import Image

    from runtime.images import fit

    decode = _simplejpeg_decode(False)
    return lambda data: np.asarray(fit(Image.fromarray(decode(data)), side))


def _opencv_decode() -> Work:
    import cv2

    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def _opencv_fit(side: int) -> Work:
    decode, resize = _opencv_decode(), _opencv_resize(side)
    return lambda data: resize(_square(decode(data)))


def _pyvips_decode() -> Work:
    import pyvips

    return lambda data: pyvips.Image.new_from_buffer(data, "").numpy()


def _pyvips_fit(side: int) -> Work:
    import pyvips

    def work(data: bytes) -> np.ndarray:
        return pyvips.Image.thumbnail_buffer(data, side, height=side, crop="centre").numpy()

    return work


def _pillow_resize(reducing_gap: float | None) -> Callable[[int], Work]:
    def make(side: int) -> Work:
        from PIL import Image

        bicubic = Image.Resampling.BICUBIC
        return lambda image: np.asarray(Image.fromarray(image).resize((side, side), bicubic, reducing_gap=reducing_gap))

    return make


def _pillow_bilinear(side: int) -> Work:
    from PIL import Image

    return lambda image: np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def _opencv_resize(side: int) -> Work:
    import cv2

    return lambda image: cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _pillow_encode(file_format: str, **options: Any) -> Callable[[int], Work]:
    def make(_: int) -> Work:
        from PIL import Image

        def work(image: np.ndarray) -> bytes:
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, file_format, **options)
            return encoded.getvalue()

        return work

    return make


def _simplejpeg_encode(fast: bool) -> Work:
    import simplejpeg

    options = {"quality": 95, "colorspace": "RGB", "colorsubsampling": "444", "fastdct": fast}
    return lambda image: simplejpeg.encode_jpeg(image, **options)


def _opencv_encode(suffix: str) -> Work:
    import cv2

    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE],
    }[suffix]
    return lambda image: cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _fpng_encode() -> Work:
    import fpng

    return lambda image: fpng.from_ndarray(image)


def _nvjpeg_decode() -> Work:
    torch, jpeg = _torchvision()

    def work(data: bytes) -> np.ndarray:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return jpeg.decode_jpeg(encoded, device="cuda").permute(1, 2, 0).cpu().numpy()

    return work


def _nvjpeg_encode() -> Work:
    torch, jpeg = _torchvision()

    def work(image: np.ndarray) -> bytes:
        planes = torch.from_numpy(image).cuda().permute(2, 0, 1).contiguous()
        return jpeg.encode_jpeg(planes, quality=95).cpu().numpy().tobytes()

    return work


def _torchvision() -> tuple[Any, Any]:
    """torch and torchvision's codecs, which hold nvJPEG where they are built for CUDA."""
    import torch

    if not torch.cuda.is_available():
        raise NotRun("nvJPEG needs a GPU, and there is none")
    import torchvision.io

    return torch, torchvision.io


def _nvimgcodec_decode() -> Work:
    nvimgcodec = _nvimgcodec()
    decoder = nvimgcodec.Decoder(backends=_on_gpu(nvimgcodec))

    def work(data: bytes) -> np.ndarray:
        return np.asarray(_made(decoder.decode(nvimgcodec.CodeStream(data))).cpu())

    return work


def _nvimgcodec_encode() -> Work:
    nvimgcodec = _nvimgcodec()
    encoder = nvimgcodec.Encoder(backends=_on_gpu(nvimgcodec))
    full = nvimgcodec.ChromaSubsampling.CSS_444
    options = nvimgcodec.EncodeParams(nvimgcodec.QualityType.QUALITY, 95, chroma_subsampling=full)

    def work(image: np.ndarray) -> bytes:
        on_gpu = nvimgcodec.as_image(np.ascontiguousarray(image)).cuda()
        return bytes(_made(encoder.encode(on_gpu, ".jpg", params=options)))

    return work


def _nvimgcodec() -> Any:
    from nvidia import nvimgcodec

    if not find_gpus():
        raise NotRun(f"nvJPEG needs a GPU: {no_gpu_reason()}")
    return nvimgcodec


def _on_gpu(nvimgcodec: Any) -> list[Any]:
    """Everything but its codecs for CPUs, which it would else fall back to in silence."""
    kinds = ("GPU_ONLY", "HYBRID_CPU_GPU", "HW_GPU_ONLY")
    return [nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind)) for kind in kinds]


def _made(answer: Any) -> Any:
    if answer is None:
        raise NotRun("nvImageCodec has no codec for it on the GPU; libnvjpeg is in the wheel nvidia-nvjpeg")
    return answer


class NotRun(Exception):
    """Why a candidate cannot run on this machine."""


def _square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
