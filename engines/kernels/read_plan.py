"""A launch plan back from a node's fields: for those who launch what a graph carries without the plugin library.

`engines.kernels.launch` says what the text means; the plugin library has a reader of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from engines.kernels.launch import (
    MAGIC,
    NUMBERS,
    Argument,
    Image,
    Launch,
    LaunchPlan,
    Null,
    Number,
    Pointer,
    Tensor,
    TensorMap,
)
from engines.kernels.sizes import Size

_T = TypeVar("_T")


def read_plan(text: str, data: bytes) -> LaunchPlan:
    """The plan of a node whose fields are `launch` (`text`) and `images` (`data`).

    Raises ValueError for text that is no plan, and for images that are not those it names.
    """
    lines = _Lines([line.split(" ") for line in text.splitlines()])
    try:
        return _plan(lines, data)
    except IndexError:
        row = lines.rows[min(lines.at, len(lines.rows)) - 1]
        raise ValueError(f"a line of a launch plan is too short, about '{' '.join(row)[:80]}'") from None


def _plan(lines: _Lines, data: bytes) -> LaunchPlan:
    if [MAGIC.split(" ")] != lines.rows[:1] or lines.rows[-1:] != [["end"]]:
        raise ValueError(f"no launch plan: expected text that begins with '{MAGIC}' and ends with 'end'")
    lines.at = 1
    _, capability, kind = lines.take("target", 3)
    inputs = tuple(_tensor(row) for row in lines.all("input"))
    outputs = tuple(_tensor(row) for row in lines.all("output"))
    workspace = [row[1] for row in lines.all("workspace")]
    images = _images(lines.all("image"), data)
    launches = []
    while lines.word == "kernel":
        launches.append(_launch(lines))
    if lines.at != len(lines.rows) - 1:
        raise ValueError(f"line {lines.at + 1} of a launch plan: '{lines.word}' is not expected there")
    target = f"{capability[:-1]}.{capability[-1:]}"
    return LaunchPlan(
        target, inputs, outputs, tuple(launches), images, _size(workspace[0]) if workspace else 0, kind == "exact"
    )


@dataclass
class _Lines:
    rows: list[list[str]]
    at: int = field(default=0)

    @property
    def word(self) -> str:
        return self.rows[self.at][0]

    def take(self, word: str, words: int | None = None) -> list[str]:
        row = self.rows[self.at]
        if row[0] != word or words not in (None, len(row)):
            raise ValueError(f"line {self.at + 1} of a launch plan: '{' '.join(row)[:80]}', expected '{word}'")
        self.at += 1
        return row

    def all(self, word: str) -> list[list[str]]:
        rows = []
        while self.word == word:
            rows.append(self.take(word))
        return rows

    def read(self, word: str, words: int | None, convert: Callable[[list[str]], _T]) -> _T:
        line = self.at + 1
        row = self.take(word, words)
        try:
            return convert(row[1:])
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {line} of a launch plan: {error}") from error


def _tensor(row: list[str]) -> Tensor:
    return Tensor(row[1], tuple(_size(word) for word in row[2:]))


def _images(rows: list[list[str]], data: bytes) -> tuple[Image, ...]:
    images, begin = [], 0
    for _, length, fnv in rows:
        image = Image(data[begin : begin + int(length)])
        begin += int(length)
        if image.fnv != fnv:
            raise ValueError(f"an image of a launch plan has the hash {image.fnv}, expected {fnv}")
        images.append(image)
    if begin != len(data):
        raise ValueError(f"{len(data)} bytes of images, expected {begin}")
    return tuple(images)


def _launch(lines: _Lines) -> Launch:
    image, name = lines.read("kernel", 3, lambda words: (int(words[0]), words[1]))
    grid = lines.read("grid", 4, lambda words: (_size(words[0]), _size(words[1]), _size(words[2])))
    block = lines.read("block", 4, lambda words: int(words[0]))
    shared = lines.read("shared", 2, lambda words: int(words[0]))
    cluster = lines.read("cluster", 4, lambda words: int(words[0])) if lines.word == "cluster" else 1
    programmatic = [row[1] for row in lines.all("serial")] == ["programmatic"]
    arguments: list[Argument] = []
    while lines.word == "arg":
        arguments.append(_argument(lines))
    return Launch(image, name, grid, block, shared, tuple(arguments), cluster, programmatic)


def _argument(lines: _Lines) -> Argument:
    kind = lines.rows[lines.at][1]
    if kind == "null":
        lines.take("arg", 2)
        return Null()
    if kind in NUMBERS:
        word = lines.take("arg", 3)[2]
        return Number(kind, float.fromhex(word) if kind == "f32" else _size(word))
    if kind != "tensormap":
        return lines.read("arg", None, _pointer)
    # "tensormap", then a pointer, then type and swizzle.
    words = lines.take("arg")[2:]
    at, (dtype, swizzle) = _pointer(words[:-2]), words[-2:]
    dims = lines.read("dims", None, lambda sizes: tuple(_size(size) for size in sizes))
    strides = lines.read("strides", None, lambda sizes: tuple(_size(size) for size in sizes))
    box = lines.read("box", None, lambda sizes: tuple(int(size) for size in sizes))
    return TensorMap(at, dtype, dims, strides, box, swizzle)


def _pointer(words: list[str]) -> Pointer:
    if words[0] == "workspace":
        return Pointer("workspace", 0, _size(words[1]))
    return Pointer(words[0], int(words[1]), _size(words[2]))


def _size(word: str) -> Size:
    return int(word) if word.isdecimal() else word
