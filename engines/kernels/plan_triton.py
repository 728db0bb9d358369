"""Launch plans of attention_triton.py."""

from __future__ import annotations

import math

from engines.kernels.images import triton_kernel
from engines.kernels.launch import Argument, LaunchPlan, Null, Number, Pointer
from engines.kernels.plan_builder import SHARED_BYTES, TRITON_TYPES, Builder, power_of_two, times
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.sizes import Size
from engines.kernels.variants import TritonVariant


class TritonPlan(Builder):
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
        rows: Size = times(self.batch, p.heads * v.splits * p.queries)
        partial, peaks = Null(), Null()  # type: Argument, Argument
        if v.splits > 1:
            partial = Pointer("workspace", 0, self.reserve(times(rows, p.head_size * 4)))
            peaks = Pointer("workspace", 0, self.reserve(times(rows, 8)))
        half, wide = TRITON_TYPES[p.precision], "*fp32"
        shape = {"HEADS": p.heads, "D": p.head_size, "QUERIES": p.queries, "WIDE": power_of_two(p.head_size)}
        to = {"O_BATCH": out.batch, "O_HEAD": out.head, "O_ROW": out.row}
        constants = {
            **shape, **to, "KEYS": p.keys, "Q_BATCH": q.batch, "Q_HEAD": q.head, "Q_ROW": q.row,
            "K_BATCH": k.batch, "K_HEAD": k.head, "K_ROW": k.row,
            "V_BATCH": values.batch, "V_HEAD": values.head, "V_ROW": values.row,
            "BLOCK_M": v.block_m, "BLOCK_N": v.block_n, "HALF": power_of_two(p.head_size // 2),
            "NORM": inside and p.qk_norm is not None, "ROPE": inside and p.rope, "SPLITS": v.splits, "STAGES": v.stages,
        }  # fmt: skip
        signature = {
            **dict.fromkeys(("Q", "K", "V", "Out"), half),
            **dict.fromkeys(("Gain_q", "Gain_k", "Cos", "Sin", "Partial", "Peaks"), wide),
            **dict.fromkeys(("scale", "eps"), "fp32"),
        }
        compiled = triton_kernel("attention", signature, constants, self.target, v.warps)
        if compiled.shared > SHARED_BYTES[self.target]:
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
        return self.finished()
