"""The cat2dog function: a picture's bytes in, the dog's bytes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from runtime.errors import GpuLost, InputError, ToolchainError
from runtime.images import Limits, encode_image, read_image
from runtime.runner import ImageRunner
from runtime.stream import default_workers
from serving.function import BAD_INPUT, FAILED, Answer, Ask, Field, Refusal
from serving.tensors import Tensors

FORMATS = ("png", "jpeg", "webp")
# A served picture is somebody else's: far less is taken than `cat2dog run` takes of its user.
DEFAULT_LIMITS = Limits(pixels=50_000_000, file_bytes=20 << 20)
_MOST_BATCH = 64


class Dogs:
    """`image` (PNG, JPEG, WebP, GIF, BMP, TIFF or PPM bytes) → `dog` (PNG, JPEG or WebP bytes).

    `runners` are image runners by resolution; the first is taken where a request names none. Decoding and encoding run
    in as many threads as there are cores, for all callers together. Closing it closes the runners.
    """

    name = "cat2dog"

    def __init__(self, runners: Sequence[ImageRunner], limits: Limits = DEFAULT_LIMITS, batch: int = 8):
        if not runners:
            raise InputError("no model is given; expected at least one to serve")
        if not 1 <= batch <= _MOST_BATCH:
            raise InputError(f"batches of {batch} were asked for; expected 1 to {_MOST_BATCH}")
        self._runners = {runner.resolution: runner for runner in runners}
        # More at once than there are lanes would only take the cores from one another.
        self._lanes = {runner.resolution: threading.Semaphore(runner.lanes) for runner in runners}
        if len(self._runners) < len(runners):
            raise InputError("two models of one resolution were given; a request could not say which it wants")
        self._limits = limits
        self._codec = ThreadPoolExecutor(default_workers(), "codec")
        self.most_batch = min(batch, *(runner.largest_batch or batch for runner in runners))
        # One batch is decoded and one encoded while each lane runs one.
        self.instances = max(runner.lanes for runner in runners) + 2
        resolutions = tuple(self._runners)
        self.inputs: tuple[Field, ...] = (
            Field("image", "bytes", "the bytes of a picture file", most=limits.file_bytes),
            Field("resolution", "int32", f"of the dog, one of {resolutions}; default {resolutions[0]}", optional=True),
            Field("format", "text", "of the dog's file; default png", optional=True, choices=FORMATS, most=16),
            Field("quality", "int32", "of a lossy file, 1 to 100", optional=True, least=1, most=100),
        )
        self.outputs: tuple[Field, ...] = (Field("dog", "bytes", "the bytes of the dog's file"),)

    def warm_up(self) -> None:
        """Runs every batch size that may come, of every runner, on all its lanes; and each codec."""
        for resolution, runner in self._runners.items():
            grey = np.full((self.most_batch, resolution, resolution, 3), 128, np.uint8)
            with ThreadPoolExecutor(runner.lanes, "warm-up") as threads:
                for count in range(1, self.most_batch + 1):
                    rounds = 3 * runner.lanes if runner.lanes > 1 else 2  # a lane runs plainly first, then captures
                    list(threads.map(runner.run, [grey[:count]] * rounds))
            for name in FORMATS:
                read_image(encode_image(grey[0], f".{name}"), resolution, self._limits)

    def answer(self, asks: Sequence[Ask]) -> list[Answer | Refusal]:
        """As `serving.function.Function`; requests of one resolution are run together."""
        journeys = [_Journey(ask) for ask in asks]
        list(self._codec.map(self._decode, journeys))
        for resolution, runner in self._runners.items():
            together = [each for each in journeys if each.image is not None and each.resolution == resolution]
            if together:
                queued = time.monotonic()
                with self._lanes[resolution]:
                    _run(runner, together, queued)
        list(self._codec.map(_encode, journeys))
        return [each.result() for each in journeys]

    def tensors(self) -> list[Tensors]:
        """Each network as it is, which takes turns with this function."""
        return [
            Tensors(f"{self.name}_{resolution}", runner, self._lanes[resolution], self.most_batch)
            for resolution, runner in self._runners.items()
        ]

    def close(self) -> None:
        self._codec.shutdown()
        for runner in self._runners.values():
            runner.close()

    def _decode(self, journey: _Journey) -> None:
        values = journey.ask.values
        journey.began = time.monotonic()
        try:
            journey.resolution = int(values.get("resolution", next(iter(self._runners))))
            if journey.resolution not in self._runners:
                served = ", ".join(map(str, self._runners))
                raise InputError(f"resolution {journey.resolution} is not served; expected one of {served}")
            if "quality" in values and values.get("format", "png") == "png":
                raise InputError("quality is for jpeg and webp; a png loses nothing: leave it out, or name a format")
            journey.image = read_image(bytes(values["image"]), journey.resolution, self._limits)  # type: ignore[arg-type]
        except InputError as error:
            journey.refusal = Refusal(BAD_INPUT, str(error))
        journey.decoded = time.monotonic()


class _Journey:
    """A request on its way, with the times at which each step ended."""

    def __init__(self, ask: Ask):
        self.ask = ask
        self.resolution = 0
        self.batch = 0
        self.image: np.ndarray | None = None
        self.dog: np.ndarray | None = None
        self.file = b""
        self.refusal: Refusal | None = None
        self.began = self.decoded = self.queued = self.started = self.computed = self.encoded = 0.0

    def result(self) -> Answer | Refusal:
        if self.refusal is not None:
            return self.refusal
        return Answer(
            {"dog": self.file},
            {
                "resolution": self.resolution,
                "batch": self.batch,
                "decode_ms": (self.decoded - self.began) * 1000,
                "network_ms": (self.computed - self.started) * 1000,
                "encode_ms": (self.encoded - self.computed) * 1000,
            },
            waited_ms=(self.started - self.queued) * 1000,
        )


def _run(runner: ImageRunner, together: list[_Journey], queued: float) -> None:
    started = time.monotonic()
    try:
        dogs = runner.run(np.stack([each.image for each in together if each.image is not None]))
    except GpuLost:
        raise  # nothing here can be answered any more
    except ToolchainError as error:
        for each in together:
            each.refusal = Refusal(FAILED, f"the model could not run: {error}")
        return
    computed = time.monotonic()
    for each, dog in zip(together, dogs, strict=True):
        each.dog, each.batch = dog, len(together)
        each.queued, each.started, each.computed = queued, started, computed


def _encode(journey: _Journey) -> None:
    if journey.dog is None:
        return
    values = journey.ask.values
    quality = int(values["quality"]) if "quality" in values else None
    file_format = values.get("format", "png")
    journey.file = encode_image(journey.dog, f".{file_format!s}", quality)
    journey.encoded = time.monotonic()
