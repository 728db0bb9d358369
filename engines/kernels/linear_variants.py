"""The ways to compute one fused linear layer: what tuning measures and planning chooses from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from engines.kernels.linear_problem import LinearProblem
from engines.kernels.plan_builder import SHARED_BYTES
from engines.kernels.problem import Unsupported

# Shared memory of one multiprocessor that a block may have, alone or beside another (CUDA C++ Programming Guide,
# "Compute Capabilities": 227 KiB a block, 228 a multiprocessor, 1 of them the system's for each block).
_SHARED = {1: SHARED_BYTES["9.0"], 2: 113 << 10}
# Consumer warp groups, times 64 rows of each, and the columns whose sums still fit into their registers.
_SHAPES = (
    (1, 1, (64, 96, 128, 160, 192, 256)),
    (1, 2, (64, 80, 96, 128, 160)),
    (2, 1, (64, 80, 96, 128, 160, 192, 240, 256)),
    (2, 2, (64, 80, 96, 128, 160)),
)
_CLUSTERS = ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4))
_PARTS = (1, 2, 3, 4, 5, 6, 8)
_MOST_STAGES = 8
_MOST_CLUSTER = 8  # blocks; more is not portable
_MOST_ROWS = 1 << 24
# What the estimate of a candidate's time is made of, in microseconds: tensor cores' operations and arriving bytes of
# one multiprocessor, bytes that all of L2 gives, bytes that parts hand over; then what a launch, a round of tiles, its
# end (for 8192 values of one group) and some forms add. The first two are the hardware's; the others are fitted (least
# squares of the relative error, none negative) to 768 times on an H200: typically 12 % off, the fastest among the
# first 20.
_OPERATIONS, _ARRIVING, _L2, _HANDED = 6.5e6, 100e3, 32e6, 17e3
_LAUNCH, _ROUND, _END, _CLUSTERED, _TWICE, _SIDE = 0.9, 1.0, 0.92, 0.4, 0.4, 0.54
_WORTH_MEASURING = 28
# In a block: of all, and of those that leave room for another kernel.
_WIDE, _LEAN = 20, 8


@dataclass(frozen=True)
class LinearVariant:
    """linear_sm90.cu: `groups` consumer warp groups of `each` times 64 rows, `block_n` columns, `stages` in flight.

    `cluster_m` blocks with the same columns share what they load of the weights, `cluster_n` blocks with the same rows
    what they load of x; `parts` blocks share the inner channels of a tile. `blocks`: thread blocks that do tile after
    tile (0: one a tile). `resident`: blocks that fit on a multiprocessor. `ahead`: the first tile's weights are asked
    for into the L2 while the kernel before still runs. `alternate`: each group has tiles of its own, and finishes one
    while another multiplies. `side`: groups cut a tile by columns, not by rows.
    """

    groups: int
    each: int
    block_n: int
    stages: int
    cluster_m: int = 1
    cluster_n: int = 1
    parts: int = 1
    blocks: int = 0
    resident: int = 1
    ahead: bool = False
    alternate: bool = False
    side: bool = False
    brief: bool = False

    def __post_init__(self) -> None:
        fits = (
            self.groups in (1, 2)
            and self.each in (1, 2)
            and 16 <= self.block_n <= 256
            and self.block_n % (16 * self.parts * (self.groups if self.side else 1)) == 0
            and self.block_n % (8 * self.cluster_m) == 0
            and self.rows % (8 * self.cluster_n) == 0
            and 1 <= self.stages <= 16
            and 1 <= self.cluster <= _MOST_CLUSTER
            and min(self.cluster_m, self.cluster_n, self.parts) >= 1
            and self.resident in (1, 2)
            and 0 <= self.blocks <= 1 << 16
            and not (self.blocks and self.parts > 1)
            and self.blocks % self.cluster == 0
            and not (self.side and (self.groups == 1 or self.alternate))
            and not (self.alternate and (self.groups != 2 or self.parts > 1))
            and (not self.brief or self.handed_stages < self.stages)
        )
        if not fits:
            raise ValueError(f"there is no kernel of {self}")

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return self.each * 64 * (1 if self.alternate or self.side else self.groups)

    @property
    def own(self) -> int:
        """Columns that a group of one block finishes."""
        return self.block_n // self.parts // (self.groups if self.side else 1)

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.cluster_m * self.cluster_n * self.parts

    @property
    def threads(self) -> int:
        """Of a block: consumers, producer and helpers; a whole warp group where registers move between groups."""
        return self.groups * 128 + (64 if self.groups == 1 else 128)

    def across(self, problem: LinearProblem) -> int:
        """Steps of 8 columns among whose rows of W a brief form takes turns: 4, 2, or where none fits 0."""
        sizes = [self.own, self.block_n // self.cluster_m, problem.columns]
        if problem.turning is not None:
            sizes.append(problem.turning.head_size // 2)
        return next((across for across in (4, 2) if all(size % (8 * across) == 0 for size in sizes)), 0)

    @property
    def handed(self) -> int:
        """Bytes that the other parts hand a block."""
        return self.rows * self.block_n // self.parts * 4 * (self.parts - 1)

    @property
    def handed_stages(self) -> int:
        """How many stages' tiles of x have room for that."""
        return math.ceil(self.handed / (self.rows * 128))

    @property
    def shared(self) -> int:
        """Bytes of dynamic shared memory: stages, barriers, what helpers write; 1 KiB to bring tiles to a boundary."""
        stages = self.stages * (self.rows + self.block_n) * 128
        return 1024 + stages + 16 * self.stages + 16 * (self.brief and self.parts > 1) + self.notes

    @property
    def notes(self) -> int:
        """Of shared memory: what helpers write for two tiles, or four that alternate."""
        return (4 if self.alternate else 2) * 8 * (self.rows + self.block_n)

    def __str__(self) -> str:
        extras = [f"cluster {self.cluster_m}x{self.cluster_n}"] * (self.cluster_m * self.cluster_n > 1)
        extras += [f"{self.parts} parts"] * (self.parts > 1) + [f"{self.blocks} blocks"] * (self.blocks > 0)
        extras += (
            ["2 resident"] * (self.resident == 2)
            + ["ahead"] * self.ahead
            + ["alternate"] * self.alternate
            + ["side"] * self.side
            + ["brief"] * self.brief
        )
        return ", ".join(
            [f"linear {self.rows}x{self.block_n} ({self.groups} groups)", f"{self.stages} stages", *extras]
        )


def check_linear(problem: LinearProblem) -> None:
    """Raise Unsupported for what no kernel here covers."""
    p = problem
    if p.precision not in ("fp16", "bf16"):
        raise Unsupported(f"fused linear layers are of FP16 and BF16, not {p.precision}")
    if p.inner % 8 or p.columns % 8:
        raise Unsupported(f"{p.inner} channels to {p.columns}: both must be multiples of 8")
    least, tuned, most = p.batch
    if not 1 <= least <= tuned <= most or min(p.rows, p.inner, p.columns) < 1 or p.rows * most > _MOST_ROWS:
        raise Unsupported(f"{p.rows} rows, {p.inner} channels to {p.columns}, batch {p.batch}: too few or too many")
    if max(p.inner, p.columns) > 1 << 20:
        raise Unsupported(f"{p.inner} channels to {p.columns} are too many")
    if p.turning is not None and p.turning.head_size not in (64, 128):
        raise Unsupported(f"heads of {p.turning.head_size} are not turned in a linear layer; of 64 and 128 they are")


def fits_problem(problem: LinearProblem, variant: LinearVariant) -> bool:
    """Whether the variant computes the problem, and has the shared memory for it."""
    # What other parts hand over lies where the stages were.
    steps = math.ceil(problem.inner / 64)
    return (
        variant.shared <= _SHARED[variant.resident]
        and variant.handed <= variant.stages * (variant.rows + variant.block_n) * 128
        and steps >= variant.parts
        and (not variant.brief or variant.across(problem) > 0)
        and (problem.turning is None or variant.own % problem.turning.head_size == 0)
        and (not problem.statistics or problem.columns % variant.own == 0)
    )


def linear_candidates(problem: LinearProblem, target: str, multiprocessors: int) -> Iterator[LinearVariant]:
    """The variants worth measuring on a GPU of compute capability `target`: those with the least estimated time."""
    if target != "9.0":
        return
    yield from _fastest(problem, _all(problem, multiprocessors), multiprocessors)


def lean_candidates(problem: LinearProblem, target: str, multiprocessors: int) -> Iterator[LinearVariant]:
    """As `linear_candidates`, of those that leave registers and shared memory for a block of another kernel."""
    if target != "9.0":
        return
    lean = (v for v in _all(problem, multiprocessors) if v.groups == 1 and v.shared <= _SHARED[2])
    yield from _fastest(problem, lean, multiprocessors)


def _fastest(
    problem: LinearProblem, variants: Iterable[LinearVariant], multiprocessors: int
) -> Iterator[LinearVariant]:
    """The first of them by their estimates; of equal ones, the order is that of their names."""
    timed = sorted((estimate(problem, variant, multiprocessors), str(variant), variant) for variant in variants)
    for _, _, variant in timed[:_WORTH_MEASURING]:
        yield variant


def block_candidates(problem: LinearProblem, target: str, multiprocessors: int) -> list[LinearVariant]:
    """What is worth measuring among a block's other kernels: the first of `linear_candidates` and the first lean."""
    first = list(linear_candidates(problem, target, multiprocessors))[:_WIDE]
    return list(dict.fromkeys([*first, *list(lean_candidates(problem, target, multiprocessors))[:_LEAN]]))


def estimate(problem: LinearProblem, variant: LinearVariant, multiprocessors: int) -> float:
    """Microseconds that a variant may take: a guess that ranks candidates, no more."""
    total = problem.rows * problem.batch[1]
    v = variant
    tiles = math.ceil(total / (v.rows * v.cluster_m)) * math.ceil(problem.columns / (v.block_n * v.cluster_n))
    blocks = tiles * v.cluster
    waves = math.ceil(blocks / _usable(multiprocessors, v.cluster))
    steps = math.ceil(math.ceil(problem.inner / 64) / v.parts)
    product = steps * v.rows * v.block_n * 128 / _OPERATIONS
    # A block gets all of its tiles, whoever asked for them; the L2 gives each once to a cluster.
    arriving = steps * (v.rows + v.block_n) * 128 / _ARRIVING
    given = blocks * steps * (v.rows / v.cluster_n + v.block_n / v.cluster_m) * 128 / _L2
    handed = v.rows * v.block_n * 4 * (v.parts - 1) / v.parts / _HANDED
    end = _END * v.rows * v.block_n / v.parts / v.groups / 8192 * (0.4 if v.alternate else 1.0)
    forms = _CLUSTERED * (v.cluster_m * v.cluster_n > 1) + _TWICE * (v.groups == 1 and v.each == 2) + _SIDE * v.side
    return _LAUNCH + given + waves * (_ROUND + max(product, arriving) + handed + end + forms)


def _usable(multiprocessors: int, cluster: int) -> int:
    """Blocks that run at once, one a multiprocessor.

    A cluster lies in one GPC, whose size 4 need not divide: on an H200, 128 blocks in clusters of 4 were seen to take
    two rounds, and 120 to take one.
    """
    return multiprocessors if cluster <= 2 else multiprocessors * 10 // 11 // 8 * 8


def _all(problem: LinearProblem, multiprocessors: int) -> Iterator[LinearVariant]:
    total = problem.rows * problem.batch[1]
    for groups, each, columns in _SHAPES:
        for order in ("", "alternate", "side") if groups > 1 else ("",):
            rows = each * 64 * (1 if order else groups)
            if rows >= 2 * total and rows > 64:
                continue
            for block_n in columns:
                # A last tile that is mostly empty is work for nothing.
                if block_n > 64 and 0 < problem.columns % block_n < block_n // 2:
                    continue
                for cluster_m, cluster_n in _CLUSTERS:
                    for parts in _PARTS if order != "alternate" else (1,):
                        shape = (groups, each, block_n, cluster_m, cluster_n, parts)
                        yield from _with_stages(problem, multiprocessors, *shape, order)


def _with_stages(
    problem: LinearProblem, multiprocessors: int, groups: int, each: int, block_n: int, cluster_m: int,
    cluster_n: int, parts: int, order: str,
) -> Iterator[LinearVariant]:  # fmt: skip
    """The shape with as many stages as fit, for one and, where registers allow, two blocks a multiprocessor."""
    alternate, side = order == "alternate", order == "side"
    rows, steps = each * 64 * (1 if order else groups), math.ceil(problem.inner / 64)
    total = problem.rows * problem.batch[1]
    cluster = cluster_m * cluster_n * parts
    if cluster > _MOST_CLUSTER:
        return
    tiles = math.ceil(total / (rows * cluster_m)) * math.ceil(problem.columns / (block_n * cluster_n))
    usable = _usable(multiprocessors, cluster)
    if parts > 1 and tiles * cluster > 2 * multiprocessors:
        return
    if math.ceil(total / rows) < cluster_m or math.ceil(problem.columns / block_n) < cluster_n:
        return
    if alternate and tiles * cluster < 2 * usable:
        return
    few = tiles * cluster <= usable
    # Two blocks a multiprocessor need registers for both: 168 a thread for one consumer group.
    for resident in (1, 2) if groups == 1 and each * block_n <= 192 else (1,):
        fitting = (_SHARED[resident] - 1280 - (32 if alternate else 16) * (rows + block_n)) // ((rows + block_n) * 128)
        stages = min(_MOST_STAGES, fitting, max(2, math.ceil(steps / parts)))
        persistent = 0 if parts > 1 or tiles * cluster <= usable * resident else usable * resident
        shape = (groups, each, block_n, stages, cluster_m, cluster_n, parts, persistent, resident)
        # Where weights are most of what is read, they may be worth asking for early.
        for ahead in (False, True) if few and total <= 512 else (False,):
            with contextlib.suppress(ValueError):  # no such kernel
                variant = LinearVariant(*shape, ahead, alternate, side)
                variant = replace(variant, brief=variant.handed_stages < stages and variant.across(problem) > 0)
                if stages >= 2 and fits_problem(problem, variant):
                    yield variant
