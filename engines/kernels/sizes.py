"""Sizes that depend on a shape known only when an engine runs: integers, names and `+ - * / cdiv`, as one word of text.

The grammar is small on purpose, because the plugin library reads it too:

    size    = factor { ("+" | "-" | "*" | "/") factor }         strictly from left to right, no precedence
    factor  = integer | name | "cdiv(" size "," size ")" | "min(" size "," size ")" | "max(" size "," size ")"
              | "(" size ")"
    name    = an upper-case letter, then letters, digits or "_"

Division rounds down, `cdiv` up. All values are at least 0 and fit 63 bits; what is not, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Size = int | str

_TOKEN = re.compile(r"([0-9]{1,19})|([A-Z][A-Za-z0-9_]{0,31})|(cdiv|min|max)\(|([()+\-*/,])")
_MOST = (1 << 63) - 1
_DEEPEST = 16
LONGEST = 256


def check_size(size: Size) -> str:
    """The size as text. Raises ValueError unless it follows the grammar and, where it has no name, has a value."""
    text = str(size)
    _Reader(text, None).whole()
    if text == text.lower():
        evaluate(text, {})
    return text


def evaluate(size: Size, names: Mapping[str, int]) -> int:
    """The number that a size stands for. Raises ValueError for an unknown name, a negative or a huge number."""
    return _Reader(str(size), names).whole()


class _Reader:
    """Reads one expression; without names every part counts as 1, which checks the grammar alone."""

    def __init__(self, text: str, names: Mapping[str, int] | None):
        if len(text) > LONGEST:
            raise ValueError(f"size expression of {len(text)} characters, at most {LONGEST}")
        self._text, self._names, self._at = text, names, 0

    def whole(self) -> int:
        value = self._size(0)
        if self._at != len(self._text):
            raise self._error("expected an operator")
        return value

    def _size(self, depth: int) -> int:
        if depth > _DEEPEST:
            raise self._error("nested too deeply")
        value = self._factor(depth)
        while self._text[self._at : self._at + 1] in tuple("+-*/"):
            operator = self._text[self._at]
            self._at += 1
            value = self._apply(operator, value, self._factor(depth))
        return value

    def _factor(self, depth: int) -> int:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise self._error("expected a number, a name or a parenthesis")
        self._at = match.end()
        number, name, function, mark = match.groups()
        if number is not None:
            return self._bounded(int(number))
        if name is not None:
            if self._names is None:
                return 1
            if name not in self._names:
                raise self._error(f"{name} is bound by no input")
            return self._bounded(self._names[name])
        if function is not None:
            first = self._size(depth + 1)
            self._expect(",")
            second = self._size(depth + 1)
            self._expect(")")
            return self._apply(function, first, second)
        if mark != "(":
            raise self._error(f"unexpected {mark!r}")
        value = self._size(depth + 1)
        self._expect(")")
        return value

    def _apply(self, operator: str, first: int, second: int) -> int:
        if self._names is None:
            return 1
        if operator in ("/", "cdiv") and second == 0:
            raise self._error("division by zero")
        results = {
            "+": lambda: first + second,
            "-": lambda: first - second,
            "*": lambda: first * second,
            "/": lambda: first // second,
            "cdiv": lambda: -(-first // second),
            "min": lambda: min(first, second),
            "max": lambda: max(first, second),
        }
        return self._bounded(results[operator]())

    def _bounded(self, value: int) -> int:
        if not 0 <= value <= _MOST:
            raise self._error(f"{value} is not between 0 and 2**63-1")
        return value

    def _expect(self, mark: str) -> None:
        if self._text[self._at : self._at + 1] != mark:
            raise self._error(f"expected '{mark}'")
        self._at += 1

    def _error(self, what: str) -> ValueError:
        return ValueError(f"size {self._text!r}: {what} at character {self._at}")
