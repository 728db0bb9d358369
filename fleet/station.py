"""One worker: holds one image runner, and turns named pictures of one place into dogs in another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.errors import GpuLost, InputError, ToolchainError
from runtime.images import DEFAULT_LIMITS, encode_image, read_image
from runtime.place import Place
from runtime.runner import ImageRunner
from runtime.stream import Steps, stream

MOST_BATCH = 64


@dataclass(frozen=True)
class Result:
    """What became of a picture: `fault` is its own ("" where it is done), `fatal` one that ends the run."""

    name: str
    fault: str = ""
    fatal: str = ""


class Station:
    """`opening` makes the runner, in this process; it is held until `close`."""

    def __init__(self, opening: Callable[[], ImageRunner], source: Place, output: Place):
        self._runner = opening()
        self._source = source
        self._output = output
        self.batch = min(self._runner.largest_batch or 1, MOST_BATCH)

    def work(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Result]:
        """Results in order, for (picture, dog) pairs; the dog is in its place when its result comes.

        Faults of a picture, and of reading it, are its own; a runner or output that fails raises.
        """
        steps: Steps[tuple[str, str]] = Steps(
            decode=self._decode, run=self._runner.run, encode=self._encode, batch=self.batch, lanes=self._runner.lanes
        )
        for outcome in stream(pairs, steps):
            yield Result(outcome.item[0], str(outcome.fault) if outcome.fault else "")

    def _decode(self, pair: tuple[str, str]) -> np.ndarray:
        name = pair[0]
        try:
            data = self._source.read(name, DEFAULT_LIMITS.file_bytes)
        except FileNotFoundError as error:
            raise InputError(f"{name} is gone") from error
        except InputError:
            raise
        except ToolchainError as error:
            raise InputError(f"{name} cannot be read: {error}") from error
        try:
            return read_image(data, self._runner.resolution)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    def _encode(self, pair: tuple[str, str], dog: np.ndarray) -> None:
        # Its name tells the kind, and the place writes it whole: a second writer would write the same.
        try:
            self._output.write(pair[1], encode_image(dog, os.path.splitext(pair[1])[1]))
        except InputError as error:  # an output that cannot be written is nobody's own fault
            raise ToolchainError(str(error)) from error

    def close(self) -> None:
        """Free the runner."""
        self._runner.close()


def told(results: Iterator[Result]) -> Iterator[Result]:
    """The results, and what raised in between as one more, `fatal`; a lost GPU goes through."""
    try:
        yield from results
    except GpuLost:
        raise
    except (ToolchainError, OSError, MemoryError) as error:
        yield Result("", fatal=" ".join(str(error).split())[:500] or type(error).__name__)
