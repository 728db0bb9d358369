"""A pipeline that answers requests: one picture at a time, and the pictures on the way to it."""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps

from runtime.errors import InputError, ToolchainError
from zoo.text2image import latents
from zoo.text2image.handed import POLL_SECONDS, Handed, Left, Step
from zoo.text2image.parts import built_size, multiple, own_size
from zoo.text2image.request import Request, check_side

if TYPE_CHECKING:
    from zoo.text2image.upscale import Upscaler

Progress = Callable[[int, int], None]


class Painter:
    """Makes pictures with a diffusers pipeline; threads take turns."""

    def __init__(self, pipeline: Any, upscaler: Upscaler | None = None):
        self.pipeline = pipeline
        self.multiple = multiple(pipeline)
        self.own_size = own_size(pipeline)
        self._upscaler = upscaler
        self._image_to_image: Any = None
        self._turn = threading.Lock()

    def paint(self, request: Request) -> Step:
        """The last picture. Raises InputError as `steps` does."""
        last = None
        for step in self.steps(request):
            last = step
        assert last is not None
        return last

    def steps(self, request: Request, progress: Progress = lambda done, total: None) -> Iterator[Step]:
        """The pictures on the way that were asked for, as they come, and the last.

        `progress` is called, from another thread, with how many of how many steps are done. A caller who leaves early
        ends the denoising. Raises InputError for what this pipeline cannot do, ToolchainError where it fails.
        """
        self.check(request)
        handed = Handed()
        thread = threading.Thread(target=self._work, args=(request, handed, progress), name="text2image", daemon=True)
        thread.start()
        try:
            while True:
                step = handed.get()
                yield step
                if step.final:
                    return
        finally:
            handed.leave()
            thread.join()

    def check(self, request: Request) -> None:
        """Raise InputError for what this pipeline cannot do; nothing is computed."""
        for name in ("width", "height"):
            if (side := getattr(request, name)) is not None:
                check_side(name, side, self.multiple)
        built_for = built_size(self.pipeline)
        if built_for and self._size(request) != built_for:
            raise InputError(
                "a picture of {} x {} was asked for, and the denoiser is built for {} x {}: ask for that, or build "
                "another".format(*self._size(request), *built_for)
            )
        if request.upscale and self._upscaler is None:
            raise InputError("no model that enlarges is loaded; give --upscaler FOLDER, or do not ask for it")
        if request.image is not None and request.steps is not None and int(request.steps * request.strength) < 1:
            raise InputError(
                f"strength {request.strength:g} of {request.steps} steps leaves none to do; "
                f"the least strength is {1 / request.steps:.2g}"
            )
        known = self._parameters(request)
        given = {
            "negative_prompt": bool(request.negative_prompt),
            "guidance_scale": request.guidance is not None,
            "num_inference_steps": request.steps is not None,
            "callback_on_step_end": bool(request.every or request.adjustment),
        }
        for name, wanted in given.items():
            if wanted and name not in known:
                raise InputError(f"{type(self._for(request)).__name__} takes no {name}; leave that option out")

    def warm_up(self) -> None:
        """One picture of a step, so that the first request meets nothing new."""
        self.paint(Request("warm-up", steps=2 if self.pipeline.scheduler.order > 1 else 1))

    def close(self) -> None:
        """Let go of the models; waits for the picture under way."""
        with self._turn:
            self.pipeline = self._image_to_image = self._upscaler = None

    def _work(self, request: Request, handed: Handed, progress: Progress) -> None:
        try:
            while not self._turn.acquire(timeout=POLL_SECONDS):
                handed.check()
            try:
                last = self._run(request, handed, progress)
            finally:
                self._turn.release()
            handed.put(last)
        except Left:
            return
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            with contextlib.suppress(Left):
                handed.put(error)

    def _run(self, request: Request, handed: Handed, report: Progress) -> Step:
        pipeline = self._for(request)
        began = time.monotonic()
        arguments = self._arguments(request)
        progress = _Progress(request, handed, report, began, self._size(request))
        if "callback_on_step_end" in self._parameters(request):
            arguments["callback_on_step_end"] = progress
        generator = torch.Generator().manual_seed(request.seed)  # of the CPU: a seed means the same on every device
        try:
            output = pipeline(request.prompt, generator=generator, output_type="np", **arguments)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ToolchainError(f"the pipeline failed: {reason or type(error).__name__}") from error
        picture = latents.grey_levels(output.images)[0]
        if request.upscale and self._upscaler is not None:
            picture = self._upscaler.enlarged(picture)
        flagged = bool(any(getattr(output, "nsfw_content_detected", None) or ()))
        total = max(progress.total, progress.number)
        return Step(picture, total, total, True, time.monotonic() - began, flagged)

    def _arguments(self, request: Request) -> dict[str, Any]:
        known = self._parameters(request)
        width, height = self._size(request)
        wanted: dict[str, Any] = {
            "negative_prompt": request.negative_prompt or None,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance,
            "width": width,
            "height": height,
        }
        arguments = {name: value for name, value in wanted.items() if value is not None and name in known}
        if request.image is not None:
            # Cut as photos are everywhere here: the middle, not squeezed.
            arguments["image"] = ImageOps.fit(Image.fromarray(request.image), (width, height), Image.Resampling.BICUBIC)
            arguments["strength"] = request.strength
        return arguments

    def _size(self, request: Request) -> tuple[int, int]:
        """Width and height in pixels: as asked, else the pipeline's own."""
        return request.width or self.own_size[0], request.height or self.own_size[1]

    def _for(self, request: Request) -> Any:
        """The pipeline for texts, or its twin for texts and images, which shares every weight."""
        if request.image is None:
            return self.pipeline
        if self._image_to_image is None:
            from diffusers import AutoPipelineForImage2Image

            try:
                self._image_to_image = AutoPipelineForImage2Image.from_pipe(self.pipeline)
            except ValueError as error:
                raise InputError(f"{type(self.pipeline).__name__} has no image-to-image form in diffusers") from error
            self._image_to_image.set_progress_bar_config(disable=True)
        return self._image_to_image

    def _parameters(self, request: Request) -> set[str]:
        return set(inspect.signature(self._for(request).__call__).parameters)


class _Progress:
    """What the pipeline calls after each step: adjusts latents, hands pictures on."""

    def __init__(self, request: Request, handed: Handed, report: Progress, began: float, size: tuple[int, int]):
        self.request = request
        self.number = self.total = 0
        self._handed = handed
        self._report = report
        self._began = began
        self._width, self._height = size

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self._handed.check()
        self.number, self.total = index + 1, pipeline.num_timesteps
        self._report(self.number, self.total)
        adjustment = self.request.adjustment
        if adjustment and self.number <= adjustment.until * self.total:
            tensors["latents"] = latents.adjusted(tensors["latents"], adjustment)
        if self.request.every and self.number % self.request.every == 0 and self.number < self.total:
            (picture,), (flagged,) = latents.decoded(pipeline, tensors["latents"], self._height, self._width)
            self._handed.put(Step(picture, self.number, self.total, False, time.monotonic() - self._began, flagged))
        return tensors
