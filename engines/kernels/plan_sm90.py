"""Launch plans of attention_sm90.cu."""

from __future__ import annotations

import math

from engines.kernels.images import Compiled, cuda_kernel
from engines.kernels.launch import Argument, LaunchPlan, Null, Number, Pointer, TensorMap
from engines.kernels.plan_builder import SHARED_BYTES, Builder, Place, times
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.variants import Sm90Variant
from engines.kernels.wgmma import TYPES, hopper, wgmma_from_registers, wgmma_from_shared

# Registers of a consumer's thread beside its rows, logits and weights: with less, the compiler spills some, and then
# waits for every single product.
_OTHERS = 28


class Sm90Plan(Builder):
    def __init__(self, problem: AttentionProblem, variant: Sm90Variant, target: str):
        super().__init__(problem, target, variant.prepare)
        self.variant = variant
        if target != "9.0":
            raise Unsupported(f"{variant} runs on compute capability 9.0 alone")
        if problem.head_size not in (64, 128):
            raise Unsupported(f"{variant} has no head size {problem.head_size}")
        if self.turned and not self.prepare:
            if math.ceil(problem.keys / variant.block_n) != variant.stages or variant.blocks:
                raise Unsupported(f"{variant} does QK-norm and RoPE inside only where all keys fit")
            if variant.resident > 1:
                raise Unsupported(f"{variant} has no registers for QK-norm and RoPE inside")
            if variant.sharers > 1:
                raise Unsupported(f"{variant} does no QK-norm and RoPE inside")
        blocks = math.ceil(problem.keys / variant.block_n)
        if variant.sharers > 1 and (problem.head_size != 128 or blocks < variant.sharers):
            raise Unsupported(f"{variant} is for heads of 128, and as many blocks of keys as share them")
        if variant.turners > 1:
            tiles = math.ceil(problem.queries / (64 * variant.groups))
            if not self.turned or tiles != variant.turners or blocks % variant.turners:
                raise Unsupported(f"{variant} is for QK-norm and RoPE of {variant.turners} tiles of one head")

    def plan(self) -> LaunchPlan:
        p, v = self.problem, self.variant
        q, k, values = self.places()
        if self.prepare:
            q, k = self.prepared((q, k), overlap=True)
        inside = self.turned and not self.prepare
        out = self.output()
        block_m, size = v.groups * 64, p.head_size
        tiles = times(self.batch, p.heads * math.ceil(p.queries / block_m))
        partial, peaks = Null(), Null()  # type: Argument, Argument
        if v.parts:
            slots = 2 * v.blocks * block_m
            partial = Pointer("workspace", 0, self.reserve(slots * size * 4))
            peaks = Pointer("workspace", 0, self.reserve(slots * 8))
        constants = {
            "D": size, "WGS": v.groups, "BN": v.block_n, "STAGES": v.stages, "TURNS": v.turns,
            "RESIDENT": v.resident, "OVERLAP": v.overlap, "AHEAD": v.ahead, "QUERIES": p.queries, "KEYS": p.keys,
            "HEADS": p.heads, "BF16": p.precision == "bf16", "PARTS": v.parts, "O_COLUMNS": out.columns,
            "INSIDE": inside, "NORM": inside and p.qk_norm is not None, "ROPE": inside and p.rope,
            **self._coordinates("Q", q), **self._coordinates("K", k), **self._coordinates("V", values),
            **self._coordinates("O", out),
        }  # fmt: skip
        # Left out where there are none: what was compiled before there were any stays the same.
        cluster = v.sharers * v.turners
        constants |= {n: c for n, c in (("SHARERS", v.sharers), ("TURNERS", v.turners)) if c > 1}
        if v.resident > 1 and size // 2 + v.block_n * 3 // 4 + _OTHERS > consumer_registers(v.groups, v.resident):
            raise Unsupported(f"{v} has no registers for heads of {size}")
        # 1 KiB to bring tiles to a boundary, and the barriers.
        shared = 1024 + (1 + v.ahead) * (block_m * size * 2 + 16) + v.stages * (2 * v.block_n * size * 2 + 40)
        if v.sharers > 1:
            shared += 32 + v.groups * 128 * (size // v.sharers // 8 + 1) * 16
        if shared > shared_limit(v.resident):
            raise Unsupported(f"{v} needs {shared} bytes of shared memory")
        names = ["attention_sm90", "attention_sm90_join"] if v.parts else ["attention_sm90"]
        prelude = _prelude(p.precision, v.block_n, size)
        main, *join = cuda_kernel(
            "attention_sm90.cu", prelude, names, constants, self.target, shared, (v.groups + 1) * 128
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
        if v.sharers > 1:
            grid = times(grid, v.sharers)
        self.add(main, (grid, 1, 1), arguments, programmatic=True, cluster=cluster)
        if join:
            joined = Compiled(join[0].data, join[0].name, 0, 256)
            arguments = [partial, peaks, out.pointer(), count, Number("i32", v.blocks)]
            self.add(joined, (tiles, block_m // 32, 1), arguments, programmatic=True)
        return self.finished()

    def _coordinates(self, name: str, place: Place) -> dict[str, int]:
        """How attention_sm90.cu finds a head's tile: its column, and its plane."""
        across = place.heads_in_rows
        return {
            f"{name}_X": place.offset,
            f"{name}_XH": self.problem.head_size if across else 0,
            f"{name}_ZB": 1 if across else self.problem.heads,
            f"{name}_ZH": 0 if across else 1,
        }

    def _map(self, place: Place, rows: int) -> TensorMap:
        planes = self.batch if place.heads_in_rows else times(self.batch, self.problem.heads)
        return TensorMap(
            Pointer(place.at, place.index),
            self.problem.precision,
            (place.columns, place.tokens, planes),
            (place.columns * 2, place.columns * place.tokens * 2),
            (64, rows, 1),
            "128B",
        )


def consumer_registers(groups: int, resident: int) -> int:
    """Registers of a consumer's thread with `resident` blocks, more than one, on a multiprocessor.

    65536 are of all threads when their blocks begin, in steps of 8; then each of the producer group's keeps 24.
    """
    first = 65536 // (resident * (groups + 1) * 128) // 8 * 8
    return (first * (groups + 1) - 24) // groups // 8 * 8


def shared_limit(resident: int) -> int:
    """Bytes of shared memory for each of `resident` blocks; a multiprocessor has 228 KiB and keeps 1 of each."""
    return min(SHARED_BYTES["9.0"], (228 << 10) // resident - 1024)


def _prelude(precision: str, block_n: int, head_size: int) -> str:
    products = wgmma_from_shared("wgmma_s", block_n, TYPES[precision])
    return hopper() + products + wgmma_from_registers("wgmma_o", head_size, TYPES[precision])
