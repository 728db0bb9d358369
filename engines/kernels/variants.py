"""The ways to compute one attention problem: what tuning measures and planning chooses from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from engines.kernels.linear_variants import LinearVariant
from engines.kernels.problem import AttentionProblem, Unsupported

# Compute capabilities that kernels are compiled for.
TARGETS = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
# Queries and keys a block, and warps.
_TRITON_SHAPES = ((32, 64, 4), (64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 64, 8), (128, 128, 8))
# Of those, the ones that came within 5 % of the best beside the kernels for Hopper, on an H200.
_TRITON_BESIDE_SM90 = ((64, 64, 4), (64, 128, 4), (128, 64, 4))
# By head size: (consumer warp groups, keys a block) whose registers hold logits, weights and rows without spilling.
_SM90_SHAPES = {
    64: ((1, 64), (1, 128), (1, 256), (2, 128), (3, 128)),
    128: ((1, 64), (1, 128), (2, 80), (2, 128), (2, 160), (2, 176), (3, 80)),
}
# By head size: (consumer warp groups, keys a block, blocks of a multiprocessor), of the shapes whose registers suffice,
# and the most blocks of keys at which tiles begin and end often enough for that to be worth narrower blocks.
_SM90_RESIDENT = {64: ((1, 64, 3), (1, 96, 3), (1, 128, 2), (2, 48, 2)), 128: ((1, 80, 2),)}
_SHORT = 32
# Of blocks that turn a head's keys for each other; with more keys a block, products would wait for each other.
_SM90_TOGETHER = ((1, 64), (2, 32), (2, 64))
# Stages of half the keys, where two blocks have a tile's keys between them.
_SHARED_STAGES = 2
# Bytes of keys and values that a block can have in shared memory at once, beside its queries.
_MOST_INSIDE = 180 << 10
# Grids are at most this many blocks in their second and third dimension.
_MOST_GRID = 65535
_MOST_FACTOR = 2.0**100


@dataclass(frozen=True)
class TritonVariant:
    """attention_triton.py with blocks of `block_m` queries and `block_n` keys, `warps` warps, `stages` loads in flight.

    `splits` parts of the keys go to programs of their own. With `prepare`, QK-norm and RoPE are done once by a kernel
    before, else inside for every block of queries anew; without either it means nothing and is False.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int
    splits: int = 1
    prepare: bool = False

    def __post_init__(self) -> None:
        for value in (self.block_m, self.block_n):
            _among("block", value, 16, 256, value & (value - 1) == 0)
        _among("number of warps", self.warps, 1, 16, self.warps & (self.warps - 1) == 0)
        _among("number of stages", self.stages, 1, 8)
        _among("number of splits", self.splits, 1, 64)

    def __str__(self) -> str:
        parts = [f"triton {self.block_m}x{self.block_n}", f"{self.warps} warps", f"{self.stages} stages"]
        parts += [f"{self.splits} splits"] * (self.splits > 1) + ["prepared"] * self.prepare
        return ", ".join(parts)


@dataclass(frozen=True)
class Sm90Variant:
    """attention_sm90.cu: `groups` consumer warp groups of 64 queries, `block_n` keys a block, `stages` tiles in flight.

    `turns`: warp groups take turns at the tensor cores. `blocks`: thread blocks, each of which does tile after tile (0:
    one a tile). `parts`: the work is cut evenly over the blocks, and joined by a second kernel. `prepare` as for
    Triton; inside goes only where all keys fit in the stages. `resident`: blocks that fit on a multiprocessor, so that
    one multiplies while another begins or ends a tile. `overlap`: the whole softmax of one block of keys is computed
    while the product with the last one's values runs. `ahead`: the next tile is loaded while a block ends the last one.
    `sharers`: blocks that have the keys of one tile between them. `turners`: blocks of one head that do QK-norm and
    RoPE of some of its keys for each other.
    """

    groups: int
    block_n: int
    stages: int
    turns: bool
    blocks: int = 0
    parts: bool = False
    prepare: bool = False
    resident: int = 1
    overlap: bool = False
    ahead: bool = False
    sharers: int = 1
    turners: int = 1

    def __post_init__(self) -> None:
        _among("number of warp groups", self.groups, 1, 3)
        _among("block", self.block_n, 16, 256, self.block_n % 16 == 0)
        # Values come for the next step while those of the last one are still multiplied.
        _among("number of stages", self.stages, 1 + self.overlap, 16)
        # Who does one tile has no next one.
        _among("number of blocks", self.blocks, int(self.parts or self.ahead), _MOST_GRID)
        # As many as have the registers: four consumer warp groups in all.
        _among("number of resident blocks", self.resident, 1, {1: 4, 2: 2, 3: 1}[self.groups])
        # Both are forms of one tile a block, and of shared memory that blocks in turn would not have.
        alone = not (self.blocks or self.parts or self.ahead or self.resident > 1)
        _among("number of blocks that share keys", self.sharers, 1, 2, self.sharers == 1 or alone)
        apart = alone and self.sharers == 1 and not self.prepare
        _among("number of blocks that turn keys", self.turners, 1, 4, self.turners == 1 or apart)

    def __str__(self) -> str:
        extras = [f"{self.blocks} blocks"] * (self.blocks > 0) + ["turns"] * self.turns
        extras += [f"{self.resident} resident"] * (self.resident > 1) + ["overlap"] * self.overlap
        extras += ["ahead"] * self.ahead
        extras += ["keys shared"] * (self.sharers > 1) + ["keys turned together"] * (self.turners > 1)
        extras += ["even parts"] * self.parts + ["prepared"] * self.prepare
        return ", ".join([f"sm90 {self.groups * 64}x{self.block_n}", f"{self.stages} stages", *extras])


Variant = TritonVariant | Sm90Variant | LinearVariant
_KINDS: dict[str, type[Variant]] = {"triton": TritonVariant, "sm90": Sm90Variant, "linear_sm90": LinearVariant}
# Fields that older tables lack, and what their kernels had.
_LATER: dict[str, dict[str, Any]] = {
    "sm90": {"resident": 1, "overlap": False, "ahead": False, "sharers": 1, "turners": 1},
    "linear_sm90": {"brief": False},
}


def variant_to_json(variant: Variant) -> dict[str, Any]:
    """As filed in a tuning table."""
    kind = next(name for name, made in _KINDS.items() if isinstance(variant, made))
    return {"kind": kind, **asdict(variant)}


def variant_from_json(content: dict[str, Any]) -> Variant:
    """What `variant_to_json` wrote. Raises ValueError for anything else."""
    made = _KINDS.get(str(content.get("kind")))
    known = {field.name: field.type for field in fields(made)} if made else {}
    given = {**_LATER.get(str(content.get("kind")), {}), **{k: v for k, v in content.items() if k != "kind"}}
    if made is None or {name: type(value).__name__ for name, value in given.items()} != known:
        raise ValueError(f"{content} is no kernel variant")
    return made(**given)


def _among(what: str, value: int, least: int, most: int, fits: bool = True) -> None:
    if not (least <= value <= most and fits):
        raise ValueError(f"a variant's {what} is {value}, expected {least} to {most} in the steps that kernels take")


def check_problem(problem: AttentionProblem) -> None:
    """Raise Unsupported for what no kernel here covers."""
    if problem.precision not in ("fp16", "bf16"):
        raise Unsupported(f"fused kernels are of FP16 and BF16, not {problem.precision}")
    if not 32 <= problem.head_size <= 128 or problem.head_size % 8:
        raise Unsupported(f"head size {problem.head_size} is not a multiple of 8 from 32 to 128")
    if not 1 / _MOST_FACTOR <= problem.scale <= _MOST_FACTOR:
        raise Unsupported(f"scale {problem.scale} is not positive, or no number that FP32 holds with room to spare")
    if problem.qk_norm is not None and not 0 <= problem.qk_norm <= _MOST_FACTOR:
        raise Unsupported(f"epsilon {problem.qk_norm} of the QK-norm is negative, or no number that FP32 holds")
    least, tuned, most = problem.batch
    if min(problem.heads, problem.queries, problem.keys, least) < 1 or not least <= tuned <= most:
        raise Unsupported(
            f"{problem.heads} heads, {problem.queries} queries, {problem.keys} keys or batch {problem.batch}: "
            "each is at least 1, and the batch in order"
        )
    if max(problem.heads, problem.batch[2]) > _MOST_GRID:
        raise Unsupported(f"{problem.heads} heads or batch {problem.batch[2]} are more than {_MOST_GRID}")
    if max(problem.queries, problem.keys) * 3 * problem.heads * problem.head_size >= 1 << 31:
        raise Unsupported(
            f"{max(problem.queries, problem.keys)} tokens of {problem.heads} heads are too many for one index"
        )


def candidates(problem: AttentionProblem, target: str, multiprocessors: int) -> Iterator[Variant]:
    """The variants worth measuring on a GPU of compute capability `target`."""
    turned = problem.qk_norm is not None or problem.rope
    tiles = problem.heads * problem.batch[1]
    sm90 = target == "9.0" and problem.head_size in _SM90_SHAPES
    for prepare in (False, True) if turned and problem.queries == problem.keys else (False,):
        for block_m, block_n, warps in _TRITON_BESIDE_SM90 if sm90 else _TRITON_SHAPES:
            for stages in (2, 3):
                yield TritonVariant(block_m, block_n, warps, stages, 1, prepare)
            programs = math.ceil(problem.queries / block_m) * tiles
            if programs * 2 <= multiprocessors and problem.keys >= 4 * block_n:
                for splits in (2, 4):
                    yield TritonVariant(block_m, block_n, warps, 2, splits, prepare)
    if sm90:
        yield from _sm90_candidates(problem, tiles, multiprocessors, turned)


def _sm90_candidates(
    problem: AttentionProblem, tiles: int, multiprocessors: int, turned: bool
) -> Iterator[Sm90Variant]:
    for groups, block_n in _SM90_TOGETHER if turned else ():
        blocks, turners = math.ceil(problem.keys / block_n), math.ceil(problem.queries / (64 * groups))
        if turners in (2, 4) and blocks % turners == 0 and blocks * block_n * problem.head_size * 4 <= _MOST_INSIDE:
            yield Sm90Variant(groups, block_n, blocks, False, turners=turners)
    for groups, block_n in _SM90_SHAPES[problem.head_size]:
        blocks = math.ceil(problem.keys / block_n)
        if block_n >= 2 * problem.keys and block_n > 64:
            continue
        if turned and groups < 3 and blocks * block_n * problem.head_size * 4 <= _MOST_INSIDE:
            yield Sm90Variant(groups, block_n, blocks, False)
        if problem.head_size == 128 and groups < 3 and 2 <= blocks <= 2 * _SHARED_STAGES:
            yield Sm90Variant(groups, block_n, math.ceil(blocks / 2), False, prepare=turned, sharers=2)
        programs = math.ceil(problem.queries / (64 * groups)) * tiles
        for stages in (2, 3):
            yield Sm90Variant(groups, block_n, stages, groups > 1, 0, False, turned)
            if groups == 1:
                continue
            yield Sm90Variant(groups, block_n, stages, False, 0, False, turned)
            yield Sm90Variant(groups, block_n, stages, True, 0, False, turned, overlap=True)
            for overlap, ahead in ((False, False), (True, False), (True, True)):
                shape = (groups, block_n, stages, True, multiprocessors)
                if programs > multiprocessors:
                    yield Sm90Variant(*shape, False, turned, 1, overlap, ahead)
                if programs % multiprocessors and programs * blocks >= 8 * multiprocessors:
                    yield Sm90Variant(*shape, True, turned, 1, overlap, ahead)
            # Each group hides its own products: turns may be one wait too many.
            if programs > multiprocessors:
                yield Sm90Variant(groups, block_n, stages, False, multiprocessors, False, turned, 1, True, True)
    for groups, block_n, resident in _SM90_RESIDENT[problem.head_size]:
        programs = math.ceil(problem.queries / (64 * groups)) * tiles
        if not 2 <= math.ceil(problem.keys / block_n) <= _SHORT or programs < 2 * resident * multiprocessors:
            continue
        for blocks in (0, resident * multiprocessors):
            for overlap in (False, True):
                yield Sm90Variant(groups, block_n, 2, False, blocks, False, turned, resident, overlap)
