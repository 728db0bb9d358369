"""The batch sizes an engine accepts, as one object."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.errors import InputError

_MOST = 1 << 16


@dataclass(frozen=True)
class BatchProfile:
    """Smallest, tuned-for and largest batch."""

    least: int
    tuned: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.tuned <= self.most <= _MOST:
            raise InputError(
                f"batch {self.least}-{self.tuned}-{self.most} does not rise from at least 1 to at most {_MOST}"
            )

    @classmethod
    def parse(cls, text: str) -> BatchProfile:
        """`4` is exactly 4; `1-8` is 1 to 8, tuned for 8; `1-2-8` is tuned for 2."""
        if not re.fullmatch(r"\d{1,9}(-\d{1,9}){0,2}", text):
            raise InputError(f"batch {text[:80]!r} is not of the form 4, 1-8 or 1-2-8 (least, tuned for, most)")
        sizes = [int(part) for part in text.split("-")]
        return cls(sizes[0], sizes[-1] if len(sizes) < 3 else sizes[1], sizes[-1])

    @property
    def fixed(self) -> bool:
        """Whether only one batch size is accepted."""
        return self.least == self.most

    def __str__(self) -> str:
        if self.fixed:
            return str(self.least)
        middle = "" if self.tuned == self.most else f"-{self.tuned}"
        return f"{self.least}{middle}-{self.most}"

    @property
    def label(self) -> str:
        """As in file names: `b1-8`."""
        return f"b{self.least}-{self.most}"
