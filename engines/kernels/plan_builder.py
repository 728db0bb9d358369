"""What every launch plan of an attention problem has: operands, where Q, K, V and the output lie in them, workspace."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engines.kernels.images import Compiled, cuda_kernel, is_exact
from engines.kernels.launch import Argument, Image, Launch, LaunchPlan, Null, Number, Pointer, Tensor
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.sizes import Size

# Shared memory that one block may have, by compute capability (CUDA C++ Programming Guide, "Compute Capabilities").
SHARED_BYTES = {
    target: kib << 10 for target, kib in {"8.0": 163, "8.6": 99, "8.9": 99, "9.0": 227, "10.0": 227, "12.0": 99}.items()
}
_PREPARE_THREADS = 256
TRITON_TYPES = {"fp16": "*fp16", "bf16": "*bf16"}


@dataclass(frozen=True)
class Place:
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


class Builder:
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
        self,
        compiled: Compiled,
        grid: tuple[Size, Size, Size],
        arguments: list[Argument],
        programmatic: bool = False,
        cluster: int = 1,
    ) -> None:
        """One more launch; `programmatic` where its kernel itself waits for the one before, of this plan or another."""
        index = self.image(compiled)
        self.launches.append(
            Launch(
                index,
                compiled.name,
                grid,
                compiled.threads,
                compiled.shared,
                tuple(arguments),
                cluster,
                programmatic=programmatic,
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

    def places(self) -> tuple[Place, Place, Place]:
        """Q, K and V as the node gets them."""
        p, width, size = self.problem, self.width, self.problem.head_size
        lengths = (p.queries, p.keys, p.keys)
        if p.layout == "packed":
            return tuple(  # type: ignore[return-value]
                Place("input", 0, part * width, n * 3 * width, size, 3 * width, 3 * width, True, n)
                for part, n in enumerate(lengths)
            )
        if p.layout == "tokens":
            return tuple(  # type: ignore[return-value]
                Place("input", part, 0, n * width, size, width, width, True, n) for part, n in enumerate(lengths)
            )
        return tuple(  # type: ignore[return-value]
            Place("input", part, 0, n * width, n * size, size, size, False, n) for part, n in enumerate(lengths)
        )

    def prepared(self, qk: tuple[Place, Place], overlap: bool) -> tuple[Place, Place]:
        """Launches the kernel that does QK-norm and RoPE once; returns where its queries and keys lie.

        `overlap`: the next kernel waits for this one itself.
        """
        p, size, width = self.problem, self.problem.head_size, self.width
        if self.reserve(times(self.batch, p.queries * 2 * width * 2)) != 0:
            raise AssertionError("prepared queries and keys begin the workspace")
        q, k = qk
        constants = {
            "D": size, "HEADS": p.heads, "TOKENS": p.queries, "BF16": p.precision == "bf16",
            "Q_BATCH": q.batch, "Q_HEAD": q.head, "Q_ROW": q.row, "K_BATCH": k.batch, "K_HEAD": k.head, "K_ROW": k.row,
            "NORM": p.qk_norm is not None, "ROPE": p.rope, "OVERLAP": overlap,
        }  # fmt: skip
        compiled = cuda_kernel("prepare.cu", "", ["prepare"], constants, self.target, 0, _PREPARE_THREADS)[0]
        vector = 8 if size % 16 == 0 else 4
        lanes = max(2, 1 << (size // 2 // vector - 1).bit_length())  # LANES in prepare.cu
        grid = (math.ceil(p.queries * 2 * p.heads * lanes / _PREPARE_THREADS), self.batch, 1)
        self.add(compiled, grid, [q.pointer(), k.pointer(), Pointer("workspace"), *self.turning(), self.epsilon()])
        return tuple(  # type: ignore[return-value]
            Place("workspace", 0, part * width, p.queries * 2 * width, size, 2 * width, 2 * width, True, p.queries)
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

    def output(self) -> Place:
        p, size, width = self.problem, self.problem.head_size, self.width
        if p.output == "tokens":
            return Place("output", 0, 0, p.queries * width, size, width, width, True, p.queries)
        return Place("output", 0, 0, p.queries * width, p.queries * size, size, size, False, p.queries)

    def output_tensor(self) -> Tensor:
        p = self.problem
        shape: tuple[Size, ...] = (self.batch, p.queries, self.width)
        if p.output == "heads":
            shape = (self.batch, p.heads, p.queries, p.head_size)
        return Tensor(p.precision, shape)

    def finished(self) -> LaunchPlan:
        return LaunchPlan(
            self.target,
            self.inputs(),
            (self.output_tensor(),),
            tuple(self.launches),
            tuple(self.images),
            self.workspace,
            is_exact(self.target),
        )


def power_of_two(size: int) -> int:
    """The next power of two, at least 16: what the tensor cores take."""
    return max(16, 1 << (size - 1).bit_length())


def times(size: Size, factor: int) -> Size:
    return size * factor if isinstance(size, int) else f"{size}*{factor}"


def _plus(first: Size, second: Size) -> Size:
    if isinstance(first, int) and isinstance(second, int):
        return first + second
    return second if first == 0 else f"({first})+({second})"
