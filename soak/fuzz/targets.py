"""The parsers: what each takes, what it may raise, and from which sound inputs fuzzing begins."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import EngineMismatch, InputError

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """`parse` takes any bytes and gives something or raises one of `refusals`, whose text is one line.

    `modules` are what is watched for coverage; `seeds` gives sound inputs.
    """

    name: str
    modules: tuple[str, ...]
    parse: Parse
    refusals: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]


def try_one(target: Target, data: bytes) -> bool:
    """Whether the bytes are taken. Raises whatever is neither an answer nor a refusal in one line."""
    try:
        target.parse(data)
    except target.refusals as error:
        if "\n" in str(error):
            raise AssertionError(f"{target.name}: refused in more than one line: {error!r}") from error
        return False
    return True


def by_path(read: Callable[[Path], object], name: str) -> Parse:
    """A reader of files as a parser of bytes: they lie in memory, under a name that the reader takes."""
    folder = Path(tempfile.mkdtemp(prefix="cat2dog-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    path = folder / name

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return parse


def targets(*modules: str) -> dict[str, Target]:
    """All of them by name, or those of these modules ("requests" needs the server's packages)."""
    found: dict[str, Target] = {}
    for module in modules or ("formats", "graphs", "requests"):
        found.update({each.name: each for each in importlib.import_module(f"soak.fuzz.{module}").TARGETS})
    return found


REFUSED = (InputError, EngineMismatch)
