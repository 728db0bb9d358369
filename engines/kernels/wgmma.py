"""CUDA functions around Hopper's `wgmma.mma_async`, written out for one shape each (PTX ISA, "wgmma.mma_async").

The instruction names every register it touches, so its text depends on the shape.
"""

from __future__ import annotations

import functools
from pathlib import Path

# What the instruction calls the types of its operands.
TYPES = {"fp16": "f16", "bf16": "bf16"}


@functools.cache
def hopper() -> str:
    """The text of hopper.cuh, which stands before kernels for Hopper."""
    return (Path(__file__).resolve().parent / "hopper.cuh").read_text("utf-8")


def wgmma_from_shared(name: str, columns: int, dtype: str) -> str:
    """`name(d, a, b, add)`: d = a b^T (+ d), 64 x `columns`, both operands `dtype` (f16, bf16) in shared memory."""
    count = columns // 2
    tail = f"%{count}, %{count + 1}, add, 1, 1, 0, 0;"
    operands = '"l"(a), "l"(b), "r"(add)'
    return _function(name, columns, dtype, "u64 a, u64 b, int add", tail, operands, count + 2)


def wgmma_from_registers(name: str, columns: int, dtype: str) -> str:
    """`name(d, a, b, add)`: d = a b (+ d), 64 x `columns`; a in four registers, b row by row in shared memory."""
    count = columns // 2
    tail = f"{{%{count}, %{count + 1}, %{count + 2}, %{count + 3}}}, %{count + 4}, add, 1, 1, 1;"
    operands = '"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add)'
    return _function(name, columns, dtype, "const u32* a, u64 b, int add", tail, operands, count + 5)


def _function(name: str, columns: int, dtype: str, parameters: str, tail: str, operands: str, add: int) -> str:
    if columns % 8 or not 8 <= columns <= 256:
        raise ValueError(f"wgmma has no shape of {columns} columns; a multiple of 8 up to 256")
    count = columns // 2
    registers = ", ".join(f"%{index}" for index in range(count))
    outputs = ", ".join(f'"+f"(d[{index}])' for index in range(count))
    return (
        f"__device__ __forceinline__ void {name}(float (&d)[{count}], {parameters}) {{\n"
        f'  asm volatile("{{\\n.reg .pred add;\\nsetp.ne.b32 add, %{add}, 0;\\n"\n'
        f'      "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} {{{registers}}}, {tail}\\n}}"\n'
        f"      : {outputs}\n      : {operands});\n}}\n"
    )
