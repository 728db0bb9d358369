"""What runs a network: `infer({name: array}) -> {name: array}`, whatever is behind it; and one for images."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np

from runtime.errors import InputError, MissingExtra

DYNAMIC = -1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: `dtype` is numpy's name, or "bfloat16"; `shape` has -1 where a size is dynamic.

    `minimum` and `maximum` bound a dynamic input (an engine's profile); None where nothing bounds it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    minimum: tuple[int, ...] | None = None
    maximum: tuple[int, ...] | None = None

    def __str__(self) -> str:
        sizes = ",".join("?" if size == DYNAMIC else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype} [{sizes}]"

    @property
    def numpy_dtype(self) -> np.dtype:
        """The numpy type; bfloat16 is the one of the package ml_dtypes (MissingExtra where that is absent)."""
        if self.dtype != "bfloat16":
            return np.dtype(self.dtype)
        try:
            import ml_dtypes
        except ImportError as error:
            raise MissingExtra("ml_dtypes", f"tensor '{self.name}' of type bfloat16", "ml_dtypes") from error
        return np.dtype(ml_dtypes.bfloat16)

    def sizes(self, axis: int) -> tuple[int, int | None]:
        """Least and largest size along `axis`; None where nothing bounds it."""
        if self.shape[axis] != DYNAMIC:
            return self.shape[axis], self.shape[axis]
        least = self.minimum[axis] if self.minimum else 1
        return least, self.maximum[axis] if self.maximum else None


@runtime_checkable
class Runner(Protocol):
    """Runs one network. `close` frees what it holds, may be called twice, and leaving a `with` block calls it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; the arrays returned belong to the caller. Raises InputError as `check_feed` does."""

    def close(self) -> None: ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_feed(inputs: Sequence[TensorSpec], feed: Mapping[str, np.ndarray]) -> None:
    """Raise InputError unless `feed` holds exactly the `inputs`, each with its type and a shape it allows."""
    known = {spec.name: spec for spec in inputs}
    for name in feed:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"expected {_names(known)}"
            raise InputError(f"there is no input '{name}'; {hint}")
    missing = [name for name in known if name not in feed]
    if missing:
        raise InputError(f"input {_names(missing)} is missing; expected {_names(known)}")
    for name, spec in known.items():
        _check_array(spec, feed[name])


def _check_array(spec: TensorSpec, array: np.ndarray) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"input '{spec.name}' is a {type(array).__name__}; expected a numpy array, {spec.dtype}")
    if array.dtype.name != spec.dtype:
        raise InputError(f"input '{spec.name}' is {array.dtype.name}; expected {spec.dtype}: convert it with .astype")
    given = list(array.shape)
    if array.ndim != len(spec.shape) or any(
        size not in (DYNAMIC, actual) for size, actual in zip(spec.shape, array.shape, strict=True)
    ):
        expected = ",".join("?" if size == DYNAMIC else str(size) for size in spec.shape)
        raise InputError(f"input '{spec.name}' has shape {given}; expected [{expected}]")
    for axis, actual in enumerate(array.shape):
        least, most = spec.sizes(axis)
        if actual < least or (most is not None and actual > most):
            nearest = least if most is None or actual < least else most
            bounds = f"at least {least}" if most is None else f"{least} to {most}"
            raise InputError(
                f"input '{spec.name}' has shape {given}; axis {axis} takes {bounds}: the nearest is {nearest}"
            )


def _names(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


class ImageRunner:
    """A runner with one uint8 `[B,R,R,3]` input and one such output, whatever their names.

    `run` takes any number of images: it cuts them to the batches the runner allows, and fills a batch that is too
    small with copies of its last image, whose results are dropped. Closing it closes the runner.
    """

    def __init__(self, runner: Runner):
        self.runner = runner
        self._input = _image_spec("input", runner.inputs)
        self._output = _image_spec("output", runner.outputs)
        self.resolution = self._input.shape[1]
        if self._output.shape[1:3] != self._input.shape[1:3]:
            raise InputError(f"not an image network: it takes '{self._input}' but gives '{self._output}'")
        self.smallest_batch, self.largest_batch = self._input.sizes(0)
        self._any_batch = [TensorSpec(self._input.name, "uint8", (DYNAMIC, self.resolution, self.resolution, 3))]

    @property
    def lanes(self) -> int:
        """How many threads may call `run` at once and gain by it."""
        return getattr(self.runner, "lanes", 1)

    @classmethod
    def from_runner(cls, runner: Runner) -> ImageRunner:
        """As the constructor, but closes `runner` where it is no image network."""
        with contextlib.ExitStack() as stack:
            stack.callback(runner.close)
            image_runner = cls(runner)
            stack.pop_all()
        return image_runner

    def run(self, images: np.ndarray) -> np.ndarray:
        """uint8 `[B,R,R,3]` in and out, B at least 1. Raises InputError for another type or shape."""
        check_feed(self._any_batch, {self._input.name: images})
        most = self.largest_batch or len(images)
        results = [self._run_batch(images[start : start + most]) for start in range(0, len(images), most)]
        return results[0] if len(results) == 1 else np.concatenate(results)

    def _run_batch(self, images: np.ndarray) -> np.ndarray:
        count = len(images)
        if count < self.smallest_batch:
            images = np.concatenate([images, np.repeat(images[-1:], self.smallest_batch - count, axis=0)])
        return self.runner.infer({self._input.name: np.ascontiguousarray(images)})[self._output.name][:count]

    def close(self) -> None:
        self.runner.close()

    def __enter__(self) -> ImageRunner:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


def _image_spec(role: str, specs: Sequence[TensorSpec]) -> TensorSpec:
    listed = "; ".join(map(str, specs)) or "none"
    if len(specs) != 1:
        raise InputError(f"not an image network: it has {len(specs)} {role}s ({listed}); expected one, uint8 [B,R,R,3]")
    spec = specs[0]
    square = len(spec.shape) == 4 and spec.shape[1] == spec.shape[2] > 0 and spec.shape[3] == 3
    if spec.dtype != "uint8" or not square:
        raise InputError(f"not an image network: its {role} is '{listed}'; expected uint8 [B,R,R,3] with a fixed R")
    return spec


def element_count(shape: Sequence[int]) -> int:
    """How many elements an array of this shape has; raises InputError while a size is still dynamic."""
    if any(size < 0 for size in shape):
        raise InputError(f"shape {list(shape)} has a dynamic size; every size must be known here")
    return math.prod(shape)
