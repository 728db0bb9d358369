"""What one fused pixels node computes: an image's grey levels to a network's patches, or patches to grey levels."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engines.kernels.problem import FusedKernel

DIRECTIONS = ("in", "out")
ORDERS = tuple("".join(order) for order in itertools.permutations("pqc"))
ARITHMETIC = ("mul", "add", "sub", "rsub", "div", "max", "min")
ROUNDINGS = ("round", "fp16", "bf16")


@dataclass(frozen=True)
class Step:
    """x becomes `x op value`, in FP32, rounded to nearest; `values` are FP32, one, or one for each channel.

    rsub is `value - x`. Without values: `round` to the nearest whole number, halves to even; `fp16` and `bf16` round to
    that precision.
    """

    op: str
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.op in ARITHMETIC) != bool(self.values) or self.op not in ARITHMETIC + ROUNDINGS:
            raise ValueError(f"a step '{self.op}' with {len(self.values)} values is unknown")

    def text(self) -> str:
        """The step in one line: the operation, and its values as `float.hex` writes them."""
        return " ".join([self.op, *(float(value).hex() for value in self.values)])

    @staticmethod
    def read(text: str) -> Step:
        """What `text` wrote. Raises ValueError for anything else."""
        op, *values = text.split(" ")
        return Step(op, tuple(float.fromhex(value) for value in values))


@dataclass(frozen=True)
class PixelsProblem:
    """From the image `[B, height, width, channels]` to patches, or (`out`) back.

    Patches are `[B, tokens, patch_height * patch_width * channels]` of `precision`, row by row of the image's grid;
    `order` says how the last axis lies: p rows, q columns, c channels, the last one innermost. The image is whole
    numbers 0 to 255 of `image_type`: no release of TensorRT gives a plugin UINT8, so a cast stands between, and both
    types hold these numbers exactly. `steps` are what each number goes through on its way, in order, the image's
    channel deciding between values; what comes of them is rounded to the type of the output. Of `out` they must end in
    whole numbers 0 to 255. `batch` is (least, tuned, most).
    """

    direction: str
    precision: str
    height: int
    width: int
    channels: int
    patch_height: int
    patch_width: int
    order: str = "pqc"
    steps: tuple[Step, ...] = ()
    batch: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS or self.order not in ORDERS:
            raise ValueError(f"direction {self.direction} or order {self.order} is unknown")
        for size, patch in ((self.height, self.patch_height), (self.width, self.patch_width)):
            if not 1 <= patch <= size or size % patch:
                raise ValueError(f"an image side of {size} is not cut into patches of {patch}")
        if any(len(step.values) not in (0, 1, self.channels) for step in self.steps):
            raise ValueError(f"a step has neither one value nor {self.channels}, one for each channel")
        if self.direction == "out" and not ends_grey(self.steps):
            raise ValueError("the steps to the image do not end in whole numbers 0 to 255")

    @property
    def tokens(self) -> int:
        """Patches of one image."""
        return self.height // self.patch_height * (self.width // self.patch_width)

    @property
    def inner(self) -> int:
        """Numbers of one patch."""
        return self.patch_height * self.patch_width * self.channels

    @property
    def image_type(self) -> str:
        """FP16, or FP32 in a BF16 network, whose graphs ONNX Runtime runs in FP32."""
        return "fp16" if self.precision == "fp16" else "fp32"

    def strides(self) -> tuple[int, int, int]:
        """How far apart in a patch two neighbours in rows, in columns and in channels lie, in elements."""
        sizes = {"p": self.patch_height, "q": self.patch_width, "c": self.channels}
        apart, found = 1, {}
        for axis in reversed(self.order):
            found[axis], apart = apart, apart * sizes[axis]
        return found["p"], found["q"], found["c"]


def ends_grey(steps: tuple[Step, ...]) -> bool:
    """Whether any number, however large, ends as a whole one of 0 to 255."""
    low, high, whole = -np.inf, np.inf, False
    with np.errstate(all="ignore"):
        for step in steps:
            whole = step.op == "round" or (whole and step.op in ("max", "min") and _are_whole(step))
            ends = [_applied(step, end, value) for end in (low, high) for value in step.values or (0.0,)]
            low, high = np.min(ends), np.max(ends)  # NaN where any is
    return bool(whole and low >= 0 and high <= 255)


def _are_whole(step: Step) -> bool:
    return all(float(value).is_integer() for value in step.values)


def _applied(step: Step, x: float, value: float) -> float:
    """One step in FP64: an interval's ends, not a rounded answer."""
    if step.op == "round":
        return float(np.rint(x))
    if step.op in ROUNDINGS:
        return x
    with_value = {
        "mul": lambda: x * value, "add": lambda: x + value, "sub": lambda: x - value, "rsub": lambda: value - x,
        "div": lambda: x / value if value else np.nan, "max": lambda: max(x, value), "min": lambda: min(x, value),
    }  # fmt: skip
    return float(with_value[step.op]())


# Raises Unsupported.
PixelsPlanner = Callable[[PixelsProblem], FusedKernel]
