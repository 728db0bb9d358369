"""The ways to compute one attention problem, each as a launch plan: what tuning measures and planning chooses from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from engines.kernels.images import Compiled, cuda_kernel, triton_kernel
from engines.kernels.launch import (
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
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.sizes import Size
from engines.kernels.wgmma import wgmma_from_registers, wgmma_from_shared

# Shared memory that one block may have, by compute capability (CUDA C++ Programming Guide, "Compute Capabilities").
_SHARED_KIB = {"8.0": 163, "8.6": 99, "8.9": 99, "9.0": 227, "10.0": 227, "12.0": 99}
TARGETS = tuple(_SHARED_KIB)
# Queries and keys a block, and warps.
_TRITON_SHAPES = ((32, 64, 4), (64, 64, 4), (64, 128, 4), (128, 64, 4), (128, 64, 8), (128, 128, 8))
# By head size: (consumer warp groups, keys a block) whose registers hold logits, weights and rows without spilling.
_SM90_SHAPES = {
    64: ((1, 64), (1, 128), (1, 256), (2, 128), (2, 160), (2, 192), (3, 96), (3, 128)),
    128: ((1, 64), (1, 128), (2, 80), (2, 128), (2, 160), (2, 176), (3, 80)),
}
_TRITON_TYPES = {"fp16": "*fp16", "bf16": "*bf16"}
# Grids are at most this many blocks in their second and third dimension.
_MOST_GRID = 65535


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

    def __str__(self) -> str:
        parts = [f"triton {self.block_m}x{self.block_n}", f"{self.warps} warps", f"{self.stages} stages"]
        parts += [f"{self.splits} splits"] * (self.splits > 1) + ["prepared"] * self.prepare
        return ", ".join(parts)


@dataclass(frozen=True)
class Sm90Variant:
    """attention_sm90.cu: `groups` consumer warp groups of 64 queries, `block_n` keys a block, `stages` tiles in flight.

    `turns`: warp groups take turns at the tensor cores. `blocks`: thread blocks, each of which does tile after tile (0:
    one a tile). `parts`: the work is cut evenly over the blocks, and joined by a second kernel. `prepare` as for
    Triton; inside goes only where all keys fit in the stages.
    """

    groups: int
    block_n: int
    stages: int
    turns: bool
    blocks: int = 0
    parts: bool = False
    prepare: bool = False

    def __str__(self) -> str:
        extras = [f"{self.blocks} blocks"] * (self.blocks > 0) + ["turns"] * self.turns
        extras += ["even parts"] * self.parts + ["prepared"] * self.prepare
        return ", ".join([f"sm90 {self.groups * 64}x{self.block_n}", f"{self.stages} stages", *extras])


Variant = TritonVariant | Sm90Variant
_KINDS: dict[str, type[Variant]] = {"triton": TritonVariant, "sm90": Sm90Variant}


def variant_to_json(variant: Variant) -> dict[str, Any]:
    """As filed in a tuning table."""
    kind = next(name for name, made in _KINDS.items() if isinstance(variant, made))
    return {"kind": kind, **asdict(variant)}


def variant_from_json(content: dict[str, Any]) -> Variant:
    """What `variant_to_json` wrote. Raises ValueError for anything else."""
    made = _KINDS.get(str(content.get("kind")))
    known = {field.name for field in fields(made)} if made else set()
    given = {name: value for name, value in content.items() if name != "kind"}
    if made is None or set(given) != known or not all(isinstance(value, (int, bool)) for value in given.values()):
        raise ValueError(f"{content} is no kernel variant")
    return made(**given)


def check_problem(problem: AttentionProblem) -> None:
    """Raise Unsupported for what no kernel here covers."""
    if problem.precision not in _TRITON_TYPES:
        raise Unsupported(f"fused kernels are of FP16 and BF16, not {problem.precision}")
    if not 32 <= problem.head_size <= 128 or problem.head_size % 8:
        raise Unsupported(f"head size {problem.head_size} is not a multiple of 8 from 32 to 128")
    if not problem.scale > 0 or not math.isfinite(problem.scale):
        raise Unsupported(f"scale {problem.scale} is not positive")
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
    for prepare in (False, True) if turned and problem.queries == problem.keys else (False,):
        for block_m, block_n, warps in _TRITON_SHAPES:
            for stages in (2, 3):
                yield TritonVariant(block_m, block_n, warps, stages, 1, prepare)
            programs = math.ceil(problem.queries / block_m) * tiles
            if programs * 2 <= multiprocessors and problem.keys >= 4 * block_n:
                for splits in (2, 4):
                    yield TritonVariant(block_m, block_n, warps, 2, splits, prepare)
    if target == "9.0" and problem.head_size in _SM90_SHAPES:
        yield from _sm90_candidates(problem, tiles, multiprocessors, turned)


def _sm90_candidates(
    problem: AttentionProblem, tiles: int, multiprocessors: int, turned: bool
) -> Iterator[Sm90Variant]:
    for groups, block_n in _SM90_SHAPES[problem.head_size]:
        blocks = math.ceil(problem.keys / block_n)
        if block_n >= 2 * problem.keys and block_n > 64:
            continue
        if turned and blocks <= 3:
            yield Sm90Variant(groups, block_n, blocks, False)
        programs = math.ceil(problem.queries / (64 * groups)) * tiles
        for stages in (2, 3):
            yield Sm90Variant(groups, block_n, stages, groups > 1, 0, False, turned)
            if groups == 1:
                continue
            yield Sm90Variant(groups, block_n, stages, False, 0, False, turned)
            if programs > multiprocessors:
                yield Sm90Variant(groups, block_n, stages, True, multiprocessors, False, turned)
            if programs % multiprocessors and programs * blocks >= 8 * multiprocessors:
                yield Sm90Variant(groups, block_n, stages, True, multiprocessors, True, turned)


def make_plan(problem: AttentionProblem, variant: Variant, target: str) -> LaunchPlan:
    """Compile what `variant` needs (or take it from the kept kernels) and say how to launch it.

    Raises Unsupported where the variant cannot do the problem.
    """
    check_problem(problem)
    if isinstance(variant, TritonVariant):
        return _Triton(problem, variant, target).plan()
    return _Sm90(problem, variant, target).plan()


@dataclass(frozen=True)
class _Place:
    """Where one of Q, K, V or the output lies: operand, offset in elements, and strides in elements of the dimensions.

    `columns` is how wide a row of the tensor is, `heads_in_rows` whether heads lie side by side in it.
    """

    at: str
    index: int
    offset: int
    batch: int
    head: int
    row: int
    columns: int
    heads_in_rows: bool
    tokens: int

    def pointer(self) -> Pointer:
        return Pointer(self.at, self.index, self.offset * 2)


class _Builder:
    """What both kinds of plans share: the operands of a problem and where Q, K, V and the output lie in them."""

    def __init__(self, problem: AttentionProblem, target: str, prepare: bool):
        self.problem, self.target = problem, target
        self.batch: Size = problem.batch[2] if problem.batch[0] == problem.batch[2] else "B"
        self.turned = problem.qk_norm is not None or problem.rope
        self.prepare = prepare and self.turned
        if prepare and problem.queries != problem.keys:
            raise Unsupported("queries and keys of different lengths are not prepared in one kernel")
        self.images: list[Image] = []
        self.launches: list[Launch] = []
        self.workspace: Size = 0

    @property
    def width(self) -> int:
        return self.problem.heads * self.problem.head_size

    def reserve(self, bytes_: Size) -> Size:
        """Take `bytes_` of the workspace; returns their offset."""
        offset = self.workspace
        # TMA and wide loads want 128-byte boundaries.
        rounded: Size = f"cdiv({bytes_},256)*256" if isinstance(bytes_, str) else -(-bytes_ // 256) * 256
        self.workspace = _plus(offset, rounded)
        return offset

    def image(self, compiled: Compiled) -> int:
        image = Image(compiled.data)
        if image not in self.images:
            self.images.append(image)
        return self.images.index(image)

    def add(
        self, compiled: Compiled, grid: tuple[Size, Size, Size], arguments: list[Argument], programmatic: bool = False
    ) -> None:
        """One more launch; `programmatic` where its kernel itself waits for the one before."""
        index = self.image(compiled)
        self.launches.append(
            Launch(
                index,
                compiled.name,
                grid,
                compiled.threads,
                compiled.shared,
                tuple(arguments),
                programmatic=programmatic and bool(self.launches),
            )
        )

    def inputs(self) -> tuple[Tensor, ...]:
        p, dtype = self.problem, self.problem.precision
        if p.layout == "packed":
            tensors = [Tensor(dtype, (self.batch, p.queries, 3 * self.width))]
        elif p.layout == "tokens":
            tensors = [Tensor(dtype, (self.batch, length, self.width)) for length in (p.queries, p.keys, p.keys)]
        else:
            lengths = (p.queries, p.keys, p.keys)
            tensors = [Tensor(dtype, (self.batch, p.heads, length, p.head_size)) for length in lengths]
        if p.qk_norm is not None:
            tensors += [Tensor("fp32", (p.head_size,))] * 2
        if p.rope:
            tensors += [Tensor("fp32", (p.keys, p.head_size // 2))] * 2
        return tuple(tensors)

    def places(self) -> tuple[_Place, _Place, _Place]:
        """Q, K and V as the node gets them."""
        p, width, size = self.problem, self.width, self.problem.head_size
        lengths = (p.queries, p.keys, p.keys)
        if p.layout == "packed":
            return tuple(  # type: ignore[return-value]
                _Place("input", 0, part * width, n * 3 * width, size, 3 * width, 3 * width, True, n)
                for part, n in enumerate(lengths)
            )
        if p.layout == "tokens":
            return tuple(  # type: ignore[return-value]
                _Place("input", part, 0, n * width, size, width, width, True, n) for part, n in enumerate(lengths)
            )
        return tuple(  # type: ignore[return-value]
            _Place("input", part, 0, n * width, n * size, size, size, False, n) for part, n in enumerate(lengths)
        )

    def prepared(self, qk: tuple[_Place, _Place], overlap: bool) -> tuple[_Place, _Place]:
        """Launches the kernel that does QK-norm and RoPE once; returns where its queries and keys lie.

        `overlap`: the next kernel waits for this one itself.
        """
        p, size, width = self.problem, self.problem.head_size, self.width
        if self.reserve(_times(self.batch, p.queries * 2 * width * 2)) != 0:
            raise AssertionError("prepared queries and keys begin the workspace")
        q, k = qk
        group = next(g for g in (4, 2, 1) if p.heads % g == 0)
        block = 32 if p.queries * p.heads // group >= 32 * 128 else 16
        constants = {
            "HEADS": p.heads, "D": size, "TOKENS": p.queries,
            "Q_BATCH": q.batch, "Q_HEAD": q.head, "Q_ROW": q.row, "K_BATCH": k.batch, "K_HEAD": k.head, "K_ROW": k.row,
            "HALF": _power(size // 2), "NORM": p.qk_norm is not None, "ROPE": p.rope, "BLOCK": block, "GROUP": group,
            "OVERLAP": overlap,
        }  # fmt: skip
        half, wide = _TRITON_TYPES[p.precision], "*fp32"
        signature = {
            "Q": half, "K": half, "Out": half, "Gain_q": wide, "Gain_k": wide, "Cos": wide, "Sin": wide, "eps": "fp32",
        }  # fmt: skip
        compiled = triton_kernel("prepare", signature, constants, self.target, 4)
        grid = (math.ceil(p.queries / block), p.heads // group, self.batch)
        arguments = [q.pointer(), k.pointer(), Pointer("workspace"), *self.turning(), self.epsilon(), Null(), Null()]
        self.add(compiled, grid, arguments)
        return tuple(  # type: ignore[return-value]
            _Place("workspace", 0, part * width, p.queries * 2 * width, size, 2 * width, 2 * width, True, p.queries)
            for part in range(2)
        )

    def turning(self) -> list[Argument]:
        """Gains and tables, null where the problem has none."""
        p = self.problem
        first = {"packed": 1}.get(p.layout, 3)
        gains: list[Argument] = [Null(), Null()]
        if p.qk_norm is not None:
            gains = [Pointer("input", first), Pointer("input", first + 1)]
            first += 2
        tables: list[Argument] = [Pointer("input", first), Pointer("input", first + 1)] if p.rope else [Null(), Null()]
        return [*gains, *tables]

    def epsilon(self) -> Number:
        return Number("f32", self.problem.qk_norm or 0.0)

    def output(self) -> _Place:
        p, size, width = self.problem, self.problem.head_size, self.width
        if p.output == "tokens":
            return _Place("output", 0, 0, p.queries * width, size, width, width, True, p.queries)
        return _Place("output", 0, 0, p.queries * width, p.queries * size, size, size, False, p.queries)

    def output_tensor(self) -> Tensor:
        p = self.problem
        shape: tuple[Size, ...] = (self.batch, p.queries, self.width)
        if p.output == "heads":
            shape = (self.batch, p.heads, p.queries, p.head_size)
        return Tensor(p.precision, shape)

    def finished(self, exact: bool) -> LaunchPlan:
        return LaunchPlan(
            self.target,
            self.inputs(),
            (self.output_tensor(),),
            tuple(self.launches),
            tuple(self.images),
            self.workspace,
            exact,
        )


class _Triton(_Builder):
    def __init__(self, problem: AttentionProblem, variant: TritonVariant, target: str):
        super().__init__(problem, target, variant.prepare)
        self.variant = variant

    def plan(self) -> LaunchPlan:
        p, v = self.problem, self.variant
        if v.splits > 1 and (p.keys + v.block_n - 1) // v.block_n <= v.splits - 1:
            raise Unsupported(f"{p.keys} keys do not make {v.splits} splits of {v.block_n}")
        q, k, values = self.places()
        if self.prepare:
            q, k = self.prepared((q, k), overlap=False)
        inside = self.turned and not self.prepare
        out = self.output()
        rows: Size = _times(self.batch, p.heads * v.splits * p.queries)
        partial, peaks = Null(), Null()  # type: Argument, Argument
        if v.splits > 1:
            partial = Pointer("workspace", 0, self.reserve(_times(rows, p.head_size * 4)))
            peaks = Pointer("workspace", 0, self.reserve(_times(rows, 8)))
        half, wide = _TRITON_TYPES[p.precision], "*fp32"
        shape = {"HEADS": p.heads, "D": p.head_size, "QUERIES": p.queries, "WIDE": _power(p.head_size)}
        to = {"O_BATCH": out.batch, "O_HEAD": out.head, "O_ROW": out.row}
        constants = {
            **shape, **to, "KEYS": p.keys, "Q_BATCH": q.batch, "Q_HEAD": q.head, "Q_ROW": q.row,
            "K_BATCH": k.batch, "K_HEAD": k.head, "K_ROW": k.row,
            "V_BATCH": values.batch, "V_HEAD": values.head, "V_ROW": values.row,
            "BLOCK_M": v.block_m, "BLOCK_N": v.block_n, "HALF": _power(p.head_size // 2),
            "NORM": inside and p.qk_norm is not None, "ROPE": inside and p.rope, "SPLITS": v.splits, "STAGES": v.stages,
        }  # fmt: skip
        signature = {
            **dict.fromkeys(("Q", "K", "V", "Out"), half),
            **dict.fromkeys(("Gain_q", "Gain_k", "Cos", "Sin", "Partial", "Peaks"), wide),
            **dict.fromkeys(("scale", "eps"), "fp32"),
        }
        compiled = triton_kernel("attention", signature, constants, self.target, v.warps)
        if compiled.shared > _SHARED_KIB[self.target] * 1024:
            raise Unsupported(f"{v} needs {compiled.shared} bytes of shared memory")
        turning = self.turning() if inside else [Null()] * 4
        arguments: list[Argument] = [
            q.pointer(), k.pointer(), values.pointer(), out.pointer(), *turning, partial, peaks,
            Number("f32", p.scale), self.epsilon(), Null(), Null(),
        ]  # fmt: skip
        self.add(compiled, (math.ceil(p.queries / v.block_m) * v.splits, p.heads, self.batch), arguments)
        if v.splits > 1:
            joined = {**shape, **to, "BLOCK_M": 16, "SPLITS": v.splits}
            signature = {"Partial": wide, "Peaks": wide, "Out": half}
            compiled = triton_kernel("combine", signature, joined, self.target, 4)
            grid = (math.ceil(p.queries / 16), p.heads, self.batch)
            self.add(compiled, grid, [partial, peaks, out.pointer(), Null(), Null()])
        # A cubin of Triton's for 9.0 and later uses instructions of that one architecture.
        return self.finished(exact=self.target >= "9" or self.target.startswith("1"))


class _Sm90(_Builder):
    def __init__(self, problem: AttentionProblem, variant: Sm90Variant, target: str):
        super().__init__(problem, target, variant.prepare)
        self.variant = variant
        if target != "9.0":
            raise Unsupported(f"{variant} runs on compute capability 9.0 alone")
        if problem.head_size not in (64, 128):
            raise Unsupported(f"{variant} has no head size {problem.head_size}")
        if self.turned and not self.prepare:
            if math.ceil(problem.keys / variant.block_n) > variant.stages or variant.blocks:
                raise Unsupported(f"{variant} does QK-norm and RoPE inside only where all keys fit")
        if variant.parts and not variant.blocks:
            raise Unsupported(f"{variant} has no number of blocks to cut the work for")

    def plan(self) -> LaunchPlan:
        p, v = self.problem, self.variant
        q, k, values = self.places()
        if self.prepare:
            q, k = self.prepared((q, k), overlap=True)
        inside = self.turned and not self.prepare
        out = self.output()
        block_m, size = v.groups * 64, p.head_size
        tiles = _times(self.batch, p.heads * math.ceil(p.queries / block_m))
        partial, peaks = Null(), Null()  # type: Argument, Argument
        if v.parts:
            slots = 2 * v.blocks * block_m
            partial = Pointer("workspace", 0, self.reserve(slots * size * 4))
            peaks = Pointer("workspace", 0, self.reserve(slots * 8))
        constants = {
            "D": size, "WGS": v.groups, "BN": v.block_n, "STAGES": v.stages, "TURNS": v.turns, "QUERIES": p.queries,
            "KEYS": p.keys, "HEADS": p.heads, "BF16": p.precision == "bf16", "PARTS": v.parts, "O_COLUMNS": out.columns,
            "INSIDE": inside, "NORM": inside and p.qk_norm is not None, "ROPE": inside and p.rope,
            **self._coordinates("Q", q), **self._coordinates("K", k), **self._coordinates("V", values),
            **self._coordinates("O", out),
        }  # fmt: skip
        # 1 KiB to bring tiles to a boundary, and the barriers.
        shared = 1024 + block_m * size * 2 + 2 * v.stages * v.block_n * size * 2 + 16 + 32 * v.stages
        if shared > _SHARED_KIB["9.0"] * 1024:
            raise Unsupported(f"{v} needs {shared} bytes of shared memory")
        names = ["attention_sm90", "attention_sm90_join"] if v.parts else ["attention_sm90"]
        main, *join = cuda_kernel(
            "attention_sm90.cu", _prelude(p.precision, v.block_n, size), names, constants, shared, (v.groups + 1) * 128
        )
        grid = v.blocks if v.parts else f"min({v.blocks},{tiles})" if v.blocks else tiles
        maps = [
            self._map(q, block_m), self._map(k, v.block_n), self._map(values, v.block_n), self._map(out, 64),
        ]  # fmt: skip
        count = Number("i32", tiles)
        turning = self.turning() if inside else [Null()] * 4
        arguments: list[Argument] = [
            *maps, *turning, partial, peaks, Number("f32", p.scale), self.epsilon(), count,
        ]  # fmt: skip
        self.add(main, (grid, 1, 1), arguments, programmatic=True)
        if join:
            joined = Compiled(join[0].data, join[0].name, 0, 256)
            arguments = [partial, peaks, out.pointer(), count, Number("i32", v.blocks)]
            self.add(joined, (tiles, block_m // 32, 1), arguments, programmatic=True)
        return self.finished(exact=True)

    def _coordinates(self, name: str, place: _Place) -> dict[str, int]:
        """How attention_sm90.cu finds a head's tile: its column, and its plane."""
        across = place.heads_in_rows
        return {
            f"{name}_X": place.offset,
            f"{name}_XH": self.problem.head_size if across else 0,
            f"{name}_ZB": 1 if across else self.problem.heads,
            f"{name}_ZH": 0 if across else 1,
        }

    def _map(self, place: _Place, rows: int) -> TensorMap:
        planes = self.batch if place.heads_in_rows else _times(self.batch, self.problem.heads)
        return TensorMap(
            Pointer(place.at, place.index),
            self.problem.precision,
            (place.columns, place.tokens, planes),
            (place.columns * 2, place.columns * place.tokens * 2),
            (64, rows, 1),
            "128B",
        )


def _prelude(precision: str, block_n: int, head_size: int) -> str:
    dtype = {"fp16": "f16", "bf16": "bf16"}[precision]
    return (
        "typedef unsigned int u32;\ntypedef unsigned long long u64;\n"
        + wgmma_from_shared("wgmma_s", block_n, dtype)
        + wgmma_from_registers("wgmma_o", head_size, dtype)
    )


def _power(size: int) -> int:
    """The next power of two, at least 16: what the tensor cores take."""
    return max(16, 1 << (size - 1).bit_length())


def _times(size: Size, factor: int) -> Size:
    return size * factor if isinstance(size, int) else f"{size}*{factor}"


def _plus(first: Size, second: Size) -> Size:
    if isinstance(first, int) and isinstance(second, int):
        return first + second
    return second if first == 0 else f"({first})+({second})"
