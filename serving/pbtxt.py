"""Protocol buffers' text format, as much of it as a Triton `config.pbtxt` needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


class Word(str):
    """A name of an enumeration, written without quotes."""


def pbtxt(message: Mapping[str, Any]) -> str:
    """Fields in their order. A mapping is a message, a sequence a repeated field; None is left out.

    Raises TypeError for anything that the format does not know.
    """
    return "".join(f"{line}\n" for line in _lines(message))


def entries(mapping: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A map field's entries."""
    return [{"key": key, "value": value} for key, value in mapping.items()]


def _lines(message: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, value in message.items():
        repeated = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        for each in value if repeated else [value]:
            lines += _field(name, each)
    return lines


def _field(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [f"{name} {{", *(f"  {line}" for line in _lines(value)), "}"]
    return [f"{name}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)  # the same escapes, for what a manifest may hold: no control characters
    raise TypeError(f"{type(value).__name__} cannot be written as text format")
