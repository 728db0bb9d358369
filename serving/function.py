"""What is served: a function from named values (a picture's bytes, a few options) to named values.

It knows nothing of Triton, HTTP or processes: `serving.binding` brings it to Triton, `serving.front` to HTTP. A value
is bytes, a text, a whole number, a number or a truth value; `Field` says which, and what bounds it. Values are checked
by it before a function sees them, so that a function only meets those of the right kind and size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

Value = bytes | str | int | float | bool

KINDS = ("bytes", "text", "int32", "float32", "bool")

OK = 200
BAD_INPUT = 400
TOO_LARGE = 413
FAILED = 500
BUSY = 503
TIMED_OUT = 504
# Only the log sees it: there is nobody left to tell.
LEFT = 499


class Refusal(Exception):
    """Why one request is not answered: a status with HTTP's meaning, and one line of what to do.

    `waited_ms` is as in `Answer`.
    """

    def __init__(self, status: int, reason: str, waited_ms: float = 0.0):
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.waited_ms = waited_ms


@dataclass(frozen=True)
class Field:
    """A named value that a function takes or gives.

    `most` bounds the bytes of `bytes` and `text` (of the text's UTF-8), `least` and `most` bound numbers. An optional
    one that is not given is absent from `Ask.values`.
    """

    name: str
    kind: str
    about: str
    optional: bool = False
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"field '{self.name}' is of kind '{self.kind}'; expected one of {', '.join(KINDS)}")

    def check(self, value: Value) -> Value:
        """The value, bytes of a text decoded. Raises Refusal where its kind, size or range is not this field's."""
        if self.kind in ("bytes", "text"):
            return self._checked_text(value)
        if isinstance(value, (bytes, str)) or (self.kind == "int32" and not isinstance(value, (int, bool))):
            raise Refusal(BAD_INPUT, f"{self.name} is {_kind(value)}; expected {self.kind}")
        if self.kind == "bool":
            return bool(value)
        if not math.isfinite(value):
            raise Refusal(BAD_INPUT, f"{self.name} is {value}; expected a finite number")
        low = self.least is not None and value < self.least
        high = self.most is not None and value > self.most
        if low or high:
            raise Refusal(BAD_INPUT, f"{self.name} is {value:g}; expected {self._range()}")
        return value

    def _checked_text(self, value: Value) -> bytes | str:
        if not isinstance(value, (bytes, str)):
            raise Refusal(BAD_INPUT, f"{self.name} is {_kind(value)}; expected {self.kind}")
        try:
            raw = value.encode() if isinstance(value, str) else value
        except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can write
            raise Refusal(
                BAD_INPUT, f"{self.name} is not Unicode (character {error.start}); send text as UTF-8"
            ) from error
        if self.most is not None and len(raw) > self.most:
            raise Refusal(TOO_LARGE, f"{self.name} has {len(raw)} bytes; at most {self.most:.0f} are taken")
        if self.kind == "bytes":
            return raw
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise Refusal(BAD_INPUT, f"{self.name} is not UTF-8 (byte {error.start}); send text as UTF-8") from error
        if self.choices and text not in self.choices:
            raise Refusal(BAD_INPUT, f"{self.name} is {text[:40]!r}; expected one of {', '.join(self.choices)}")
        return text

    def _range(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


@dataclass(frozen=True)
class Ask:
    """One request: `id` stands in every line of the log about it; `values` have passed the checks of their fields.

    `arrived` is `time.monotonic()` when it was accepted. `is_left()` says whether its client is known to have left:
    nobody waits for the answer any more. (Of one that came to Triton's own ports that is not known.)
    """

    id: str
    values: Mapping[str, Value]
    arrived: float = 0.0
    is_left: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Answer:
    """What a function gives: the values of its outputs, and what the log should say of the work.

    `log` has the milliseconds of each step (`decode_ms`, …) and other numbers or short texts. `waited_ms` is how long
    the request waited inside the function, for a lane or a turn: it counts as waiting, not as computing.
    """

    values: Mapping[str, Value]
    log: Mapping[str, Value] = field(default_factory=dict)
    waited_ms: float = 0.0


@runtime_checkable
class Function(Protocol):
    """One answer to a request, several requests at a time.

    `answer` is called by up to `instances` threads at once, each with 1 to `most_batch` requests that Triton's dynamic
    batcher brought together. It gives as many answers, in their order; what is wrong with one request is a Refusal in
    its place, and never hurts the others. It raises only where none can be answered.
    """

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    most_batch: int
    instances: int

    def warm_up(self) -> None:
        """Whatever makes the first requests slow, done before there are any. Called once."""

    def answer(self, asks: Sequence[Ask]) -> Sequence[Answer | Refusal]: ...

    def close(self) -> None:
        """Free what is held. Nothing is asked any more."""


@runtime_checkable
class StreamFunction(Protocol):
    """Several answers to one request, each sent as soon as it is there (Triton's decoupled mode, over gRPC).

    `stream` is called by up to `instances` threads at once, with one request each. It raises Refusal, at once or later;
    who asked may be gone before the end, then the iterator is closed. Where `outputs` of the last answer alone will do,
    the function is also served as one with a single answer, under its own name; the stream is called `{name}_stream`.
    """

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instances: int

    def warm_up(self) -> None: ...

    def stream(self, ask: Ask) -> Iterator[Answer]: ...

    def close(self) -> None: ...


def checked(fields: Sequence[Field], given: Mapping[str, Value]) -> dict[str, Value]:
    """The values, each checked by its field. Raises Refusal for a missing, unknown or unfit one."""
    known = {each.name: each for each in fields}
    for name in given:
        if name not in known:
            raise Refusal(BAD_INPUT, f"there is no field {name[:40]!r}; expected {', '.join(known)}")
    for each in fields:
        if not each.optional and each.name not in given:
            raise Refusal(BAD_INPUT, f"{each.name} is missing: {each.about}")
    return {name: known[name].check(value) for name, value in given.items()}


def _kind(value: Value) -> str:
    return {bytes: "bytes", str: "a text", bool: "a truth value", int: "a whole number"}.get(type(value), "a number")
