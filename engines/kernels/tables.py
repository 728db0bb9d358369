"""Tuning tables: for each problem that was measured on a GPU, which variants won and by how much.

One JSON file a GPU in `tuned/`, and one that `cat2dog tune` writes beside the compiled kernels. A table is data from
somewhere else, so it is read strictly.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from engines.kernels.linear_key import LinearKey
from engines.kernels.problem import AttentionProblem
from engines.kernels.variants import Variant, variant_from_json, variant_to_json
from runtime.errors import InputError
from runtime.files import write_text

SCHEMA = 1
SHIPPED = Path(__file__).resolve().parent / "tuned"
_MOST_BYTES = 8 << 20
_TABLE_TYPES = {
    "gpu": "str", "compute_capability": "str", "multiprocessors": "int", "driver": "str", "compilers": "dict",
    "date": "str", "command": "str", "entries": "list",
}  # fmt: skip


@dataclass(frozen=True)
class ProblemKey:
    """What a measurement was of; scale and epsilon do not change how long a kernel takes."""

    precision: str
    heads: int
    head_size: int
    queries: int
    keys: int
    batch: int
    layout: str
    output: str
    qk_norm: bool
    rope: bool

    @classmethod
    def of(cls, problem: AttentionProblem, batch: int | None = None) -> ProblemKey:
        """The key of a problem at one batch size, the tuned one where none is given."""
        p = problem
        return cls(
            p.precision, p.heads, p.head_size, p.queries, p.keys, batch or p.batch[1], p.layout, p.output,
            p.qk_norm is not None, p.rope,
        )  # fmt: skip

    def problem(self) -> AttentionProblem:
        """A problem of this key, with the usual scale."""
        size = self.head_size
        return AttentionProblem(
            self.precision, self.heads, size, self.queries, self.keys, size**-0.5, (self.batch,) * 3, self.layout,
            self.output, 1e-6 if self.qk_norm else None, self.rope,
        )  # fmt: skip

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every number of the key."""
        return (self.heads, self.head_size, self.queries, self.keys, self.batch)

    @property
    def order(self) -> tuple[int, ...]:
        """Where its entry stands among those of a table."""
        sizes = (self.queries, self.keys, self.heads, self.head_size, self.batch)
        return (*sizes, self.precision == "bf16", self.qk_norm, self.rope)

    def distance(self, other: ProblemKey) -> tuple[float, ...]:
        """How unlike another key it is: head size decides which kernels fit; then how much work, in how many tiles."""

        def ratio(a: int, b: int) -> float:
            return abs(math.log2(a / b))

        def rows(key: ProblemKey) -> int:
            return key.queries * key.heads * key.batch

        return (
            ratio(self.head_size, other.head_size),
            (self.qk_norm or self.rope) != (other.qk_norm or other.rope),
            ratio(self.keys, other.keys) + ratio(rows(self), rows(other)),
            self.precision != other.precision,
        )

    def __str__(self) -> str:
        extras = ["QK-norm"] * self.qk_norm + ["RoPE"] * self.rope
        length = f"{self.queries}" if self.queries == self.keys else f"{self.queries} to {self.keys}"
        return ", ".join(
            [
                f"{length} tokens",
                f"{self.heads} heads of {self.head_size}",
                f"batch {self.batch}",
                self.precision,
                *extras,
            ]
        )


Key = ProblemKey | LinearKey


@dataclass(frozen=True)
class Timing:
    """One variant's microseconds of one launch: median, least, most; and the hashes of the images that were timed."""

    variant: Variant
    median: float
    least: float
    most: float
    images: tuple[str, ...]
    error: float | None = None


@dataclass(frozen=True)
class InBlock:
    """The variant that makes a block of the network fastest, timed by itself; median, least and most us of a block."""

    timing: Timing
    block: tuple[float, float, float]


@dataclass(frozen=True)
class Entry:
    """A measured problem: timings, the fastest first; of each kind of kernel the best few are kept.

    `in_block` where it was also measured among the other layers of its block: what a network takes.
    """

    key: Key
    timings: tuple[Timing, ...]
    in_block: InBlock | None = None

    @property
    def choices(self) -> tuple[Timing, ...]:
        """What to take, the best first."""
        return self.timings if self.in_block is None else (self.in_block.timing, *self.timings)


@dataclass(frozen=True)
class Table:
    """What was measured on one GPU, and with what."""

    gpu: str
    compute_capability: str
    multiprocessors: int
    driver: str
    compilers: Mapping[str, str]
    date: str
    command: str
    entries: tuple[Entry, ...] = field(default_factory=tuple)

    def find(self, key: Key) -> Entry | None:
        """The entry of exactly this problem."""
        return next((entry for entry in self.entries if entry.key == key), None)

    def nearest(self, key: Key) -> Entry | None:
        """The entry most like `key`: for attention of the same head size, if there is one."""
        same = [entry for entry in self.entries if type(entry.key) is type(key)]
        return min(same, key=lambda entry: entry.key.distance(key), default=None)  # type: ignore[arg-type]

    def merged(self, entries: Iterable[Entry]) -> Table:
        """With `entries` in the place of older ones of the same problems."""
        kept = {entry.key: entry for entry in (*self.entries, *entries)}
        return replace(
            self,
            entries=tuple(sorted(kept.values(), key=lambda entry: (isinstance(entry.key, LinearKey), entry.key.order))),
        )

    def write(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        content = {"schema": SCHEMA, **{k: v for k, v in vars(self).items() if k != "entries"}}
        content["compilers"] = dict(self.compilers)
        lines = [json.dumps(content, indent=1)[:-2] + ',\n "entries": [']
        lines.append(",\n".join(f"  {json.dumps(_entry_to_json(entry))}" for entry in self.entries))
        write_text(path, "\n".join([*lines, " ]\n}\n"]))


def read_table(path: str | os.PathLike[str]) -> Table:
    """Raises InputError for a file that is no table."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"over {_MOST_BYTES} bytes")
        content = json.loads(data)
        if content.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        content = _typed(content, _TABLE_TYPES)
        entries = tuple(_entry_from_json(entry) for entry in content.pop("entries"))
        table = Table(**content, entries=entries)
        if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", table.compute_capability) or table.multiprocessors < 1:
            raise ValueError(
                f"compute capability {table.compute_capability!r} or {table.multiprocessors} multiprocessors of no GPU"
            )
        if len({entry.key for entry in entries}) != len(entries):
            raise ValueError("a problem stands in it twice")
        return table
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{path} is no tuning table ({' '.join(str(error).split())[:200]})") from error


def table_name(gpu: str, compute_capability: str) -> str:
    """`sm90_nvidia-h200.json`."""
    return f"sm{compute_capability.replace('.', '')}_{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json"


def choose_table(tables: Iterable[Table], gpu: str, compute_capability: str) -> tuple[Table | None, str]:
    """The table for a GPU, and how it was chosen: its own, one of the same compute capability, or the nearest.

    Of several tables of one GPU the first counts, and the later ones add the problems that are not in it.
    """
    by_gpu: dict[str, Table] = {}
    for table in tables:
        first = by_gpu.get(table.gpu)
        by_gpu[table.gpu] = table if first is None else replace(first, entries=table.merged(first.entries).entries)
    if gpu in by_gpu:
        return by_gpu[gpu], f"tuned on {gpu}"
    if not by_gpu:
        return None, "no tuning table is here"
    wanted = _capability(compute_capability)

    def unlike(table: Table) -> tuple[bool, int, bool, str]:
        # A GPU of the same major version first; then an older one before a newer: what that runs well, this one runs.
        other = _capability(table.compute_capability)
        return other // 10 != wanted // 10, abs(other - wanted), other > wanted, table.gpu

    chosen = min(by_gpu.values(), key=unlike)
    same = "the same" if chosen.compute_capability == compute_capability else "the nearest"
    return chosen, (
        f"{gpu} has no tuning table; taken from {chosen.gpu}, of {same} compute capability "
        f"({chosen.compute_capability}): `cat2dog tune` measures it here"
    )


def _capability(text: str) -> int:
    return int(text.replace(".", ""))


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    content = {"problem": asdict(entry.key), "timings": [_timing_to_json(timing) for timing in entry.timings]}
    if entry.in_block is not None:
        content["in_block"] = {"timing": _timing_to_json(entry.in_block.timing), "us": list(entry.in_block.block)}
    return content


def _timing_to_json(timing: Timing) -> dict[str, Any]:
    return {
        "variant": variant_to_json(timing.variant),
        "us": [timing.median, timing.least, timing.most],
        "images": list(timing.images),
        "error": timing.error,
    }


def _entry_from_json(content: dict[str, Any]) -> Entry:
    more = {"in_block": "dict"} if "in_block" in content else {}
    content = _typed(content, {"problem": "dict", "timings": "list", **more})
    timings = tuple(_timing(timing) for timing in content["timings"])
    if not timings:
        raise ValueError("an entry has no timings")
    made = LinearKey if "inner" in content["problem"] else ProblemKey
    key: Key = made(**_typed(content["problem"], {each.name: str(each.type) for each in fields(made)}))
    if not 1 <= min(key.sizes) <= max(key.sizes) < 1 << 31:
        raise ValueError(f"{key} is no problem")
    key.problem()
    return Entry(key, timings, _in_block(content["in_block"]) if more else None)


def _in_block(content: dict[str, Any]) -> InBlock:
    content = _typed(content, {"timing": "dict", "us": "list"})
    return InBlock(_timing(content["timing"]), _microseconds(content["us"]))


def _microseconds(numbers: list[Any]) -> tuple[float, float, float]:
    median, least, most = (float(number) for number in numbers)
    if not 0 < least <= median <= most < math.inf:
        raise ValueError(f"a timing of {numbers} us")
    return median, least, most


def _timing(content: dict[str, Any]) -> Timing:
    content = _typed(content, {"variant": "dict", "us": "list", "images": "list", "error": "NoneType float int"})
    median, least, most = _microseconds(content["us"])
    error = None if content["error"] is None else float(content["error"])
    if not 0 <= (error or 0.0) < math.inf:
        raise ValueError(f"a timing with error {error}")
    images = tuple(str(image) for image in content["images"])
    return Timing(variant_from_json(content["variant"]), median, least, most, images, error)


def _typed(content: dict[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """`content`, whose fields have these types, by name; a bool is no int."""
    if set(content) != set(types):
        raise ValueError(f"fields {', '.join(sorted(content))[:100]}, expected {', '.join(sorted(types))}")
    for name, value in content.items():
        if type(value).__name__ not in types[name].split():
            raise ValueError(f"{name} is {str(value)[:50]!r}, expected {types[name]}")
    return content
