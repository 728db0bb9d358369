"""The text-to-image function: a prompt's bytes in, a picture's bytes out, and the pictures on the way as a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from runtime.errors import GpuLost, InputError, ToolchainError
from runtime.images import Limits, encode_image, read_image
from serving.dogs import DEFAULT_LIMITS, FORMATS
from serving.function import BAD_INPUT, FAILED, Answer, Ask, Field, Refusal, Value
from zoo.text2image.adjustment import Adjustment
from zoo.text2image.request import LEAST_SIDE, MOST_GUIDANCE, MOST_SEED, PROMPT_BYTES, Request

if TYPE_CHECKING:
    from zoo.text2image.caption import Captioner
    from zoo.text2image.handed import Step
    from zoo.text2image.painter import Painter

MOST_STEPS, MOST_SIDE = 100, 1024
# What a request has under the same name in `Request`.
_PLAIN = ("negative_prompt", "steps", "guidance", "seed", "width", "height", "strength", "every", "upscale")


class TextToImage:
    """A `StreamFunction` around a painter, and a captioner where pictures may stand for prompts.

    Fields that need a model which is not there are not offered. At most `most_steps` steps and `most_side` pixels a
    side are taken, since they decide how long one request keeps the others waiting. Closing it closes the painter.
    """

    name = "text2image"
    instances = 1  # one picture at a time: two would share the same processor

    def __init__(
        self,
        painter: Painter,
        captioner: Captioner | None = None,
        upscales: bool = False,
        warm: bool = True,
        limits: Limits = DEFAULT_LIMITS,
        most_steps: int = MOST_STEPS,
        most_side: int = MOST_SIDE,
    ):
        if not 1 <= most_steps <= MOST_STEPS * 2 or not LEAST_SIDE <= most_side <= MOST_SIDE * 2:
            raise InputError(
                f"at most {most_steps} steps and {most_side} pixels a side were asked for; expected 1 to "
                f"{MOST_STEPS * 2}, and {LEAST_SIDE} to {MOST_SIDE * 2}"
            )
        self._painter = painter
        self._captioner = captioner
        self._warm = warm
        self._limits = limits
        self._most_side = most_side
        self.inputs = _inputs(captioner is not None, upscales, limits, most_steps, most_side)
        self.outputs: tuple[Field, ...] = (
            Field("image", "bytes", "the bytes of the picture's file"),
            Field("step", "int32", "how many steps this picture has had"),
            Field("steps", "int32", "how many the last one has"),
            Field("prompt", "text", "what was painted, in words"),
            Field("flagged", "bool", "whether the pipeline's safety checker has blackened it"),
        )

    def warm_up(self) -> None:
        """One picture, unless that is not wanted."""
        if self._warm:
            self._painter.warm_up()

    def stream(self, ask: Ask) -> Iterator[Answer]:
        """As `serving.function.StreamFunction`: every `every` steps a picture, and the last."""
        try:
            began = time.monotonic()
            request = self._request(ask.values)
            read = time.monotonic()
            for step in self._painter.steps(request):
                yield self._answer(ask.values, request, step, read - began)
        except GpuLost:
            raise  # nothing here can be answered any more
        except InputError as error:
            raise Refusal(BAD_INPUT, str(error)) from error
        except ToolchainError as error:
            raise Refusal(FAILED, str(error)) from error

    def close(self) -> None:
        self._painter.close()

    def _request(self, values: Any) -> Request:
        if "quality" in values and values.get("format", "png") == "png":
            raise InputError("quality is for jpeg and webp; a png loses nothing: leave it out, or name a format")
        side = max(values.get("width", 0), values.get("height", 0)) or max(self._painter.own_size)
        prompt = values.get("prompt", "")
        if "prompt_image" in values and self._captioner is not None:
            caption = self._captioner.caption(read_image(values["prompt_image"], side, self._limits))
            prompt = f"{caption}, {prompt}" if prompt else caption
        if not prompt:
            raise InputError("there is no prompt, or an empty one; say what to paint")
        adjustments = {name.removeprefix("latent_"): values[name] for name in values if name.startswith("latent_")}
        return Request(
            prompt,
            image=read_image(values["image"], side, self._limits) if "image" in values else None,
            adjustment=Adjustment(**adjustments),
            **{name: values[name] for name in _PLAIN if name in values},
        )

    def _answer(self, values: Any, request: Request, step: Step, read: float) -> Answer:
        began = time.monotonic()
        quality = int(values["quality"]) if "quality" in values else None
        file = encode_image(step.picture, f".{values.get('format', 'png')}", quality)
        height, width = step.picture.shape[:2]
        outputs: dict[str, Value] = {
            "image": file,
            "step": step.number,
            "steps": step.total,
            "prompt": request.prompt,
            "flagged": step.flagged,
        }
        told: dict[str, Value] = {"width": width, "height": height, "steps": step.total, "seed": request.seed}
        times = {
            "decode_ms": read * 1000,
            "denoise_ms": step.seconds * 1000,
            "encode_ms": (time.monotonic() - began) * 1000,
        }
        return Answer(outputs, {**told, **times})


def _inputs(captions: bool, upscales: bool, limits: Limits, most_steps: int, most_side: int) -> tuple[Field, ...]:
    def number(name: str, about: str, least: float, most: float, kind: str = "int32") -> Field:
        return Field(name, kind, about, optional=True, least=least, most=most)

    fields = [
        Field("prompt", "text", "what to paint, as UTF-8", optional=captions, most=PROMPT_BYTES),
        Field("negative_prompt", "text", "what to paint away from", optional=True, most=PROMPT_BYTES),
        number("steps", "of denoising; default: the pipeline's", 1, most_steps),
        number("guidance", "how closely to follow the prompt; default: the pipeline's", 0, MOST_GUIDANCE, "float32"),
        number("seed", "of the noise it begins with; default 0", 0, MOST_SEED),
        number("width", "in pixels; default: the pipeline's", LEAST_SIDE, most_side),
        number("height", "in pixels; default: the pipeline's", LEAST_SIDE, most_side),
        Field("image", "bytes", "a picture file to begin with", optional=True, most=limits.file_bytes),
        number("strength", "how far to leave that picture, to 1: entirely; default 0.8", 0, 1, "float32"),
        number("every", "a picture each so many steps, to who takes the stream; default 0: none", 0, most_steps),
        number("latent_centre", "the share of a colour cast to take away", 0, 1, "float32"),
        number("latent_clamp", "pull outliers of latents in to so many deviations", 0, 20, "float32"),
        number("latent_contrast", "scale latents around their mean; default 1", 0.1, 4, "float32"),
        number("latent_until", "the share of steps that are adjusted; default 0.5", 0, 1, "float32"),
        Field("format", "text", "of the picture's file; default png", optional=True, choices=FORMATS, most=16),
        number("quality", "of a lossy file, 1 to 100", 1, 100),
    ]
    if captions:
        about = "a picture file to take the prompt from"
        fields.append(Field("prompt_image", "bytes", about, optional=True, most=limits.file_bytes))
    if upscales:
        fields.append(Field("upscale", "bool", "whether to enlarge the picture", optional=True))
    return tuple(fields)
