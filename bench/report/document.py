"""What a report consists of, before it is HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A section's title; level 1 is the page's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text; `code` in backticks."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells are text. The first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A drawing, SVG text. `name` is its file's name in the Markdown form; `caption` says what it shows."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture file's bytes. `suffix` is ".png" or ".jpg"."""

    name: str
    data: bytes
    suffix: str
    caption: str


Block = Heading | Paragraph | Table | Figure | Picture
