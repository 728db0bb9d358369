"""Launch plans of linear_sm90.cu."""

from __future__ import annotations

import math

from engines.kernels.images import cuda_kernel
from engines.kernels.launch import Argument, Image, Launch, LaunchPlan, Null, Number, Pointer, Tensor, TensorMap
from engines.kernels.linear_problem import LinearProblem
from engines.kernels.linear_variants import LinearVariant, check_linear, fits_problem
from engines.kernels.problem import Unsupported
from engines.kernels.sizes import Size
from engines.kernels.wgmma import TYPES, hopper, wgmma_from_shared

_NORMS = {None: 0, "layer": 1, "rms": 2}
_ACTIVATIONS = {None: 0, "gelu": 1, "gelu_tanh": 2, "swiglu": 3}
_RESIDUALS = {None: 0, "sample": 1, "shared": 2}
_RUNS = "S"  # the name that the runs of the statistics are bound to


# What a block's stamps mean: six clocks, then nanoseconds at the first and the last of them.
STAMPS = ("begun", "asked for weights", "kernel before ended", "first tile", "multiplied", "ended")


def linear_plan(problem: LinearProblem, variant: LinearVariant, target: str, stamps: bool = False) -> LaunchPlan:
    """Compile what `variant` needs (or take it from the kept kernels) and say how to launch it.

    With `stamps`, for a batch that is fixed, the last output is i32 `[blocks, 16]`: each block's `STAMPS` and two times
    in nanoseconds, 64 bits each, low half first. A block of several tiles leaves those of its last.

    Raises Unsupported where the variant cannot do the problem.
    """
    check_linear(problem)
    if target != "9.0":
        raise Unsupported(f"{variant} runs on compute capability 9.0 alone")
    if not fits_problem(problem, variant):
        raise Unsupported(f"{variant} does not do this layer: its shared memory, heads or statistics do not fit")
    p, v = problem, variant
    batch: Size = p.batch[2] if p.batch[0] == p.batch[2] else "B"
    total: Size = batch * p.rows if isinstance(batch, int) else f"{batch}*{p.rows}"
    inputs, places = operands_of(p, batch)
    turning = p.turning
    constants = {
        "GROUPS": v.groups, "EACH": v.each, "ALTERNATE": v.alternate, "SIDE": v.side, "BN": v.block_n,
        "STAGES": v.stages, "CM": v.cluster_m, "CN": v.cluster_n, "PARTS": v.parts, "RESIDENT": v.resident,
        "AHEAD": v.ahead, "BF16": p.precision == "bf16", "ROWS": p.rows, "INNER": p.inner, "COLUMNS": p.columns,
        "NORM": _NORMS[p.norm], "BIAS": p.bias, "ACTIVATION": _ACTIVATIONS[p.activation],
        "HEADS": turning.heads if turning else 0, "D": turning.head_size if turning else 0,
        "QK_NORM": turning is not None and turning.qk_norm is not None, "ROPE": turning is not None and turning.rope,
        "RESIDUAL": _RESIDUALS[p.residual], "STATISTICS": p.statistics,
    }  # fmt: skip
    # Left out where they are not: what was compiled before there were any stays the same.
    if stamps:
        constants["STAMPS"] = True
    if v.brief:
        constants |= {"BRIEF": True, "ACROSS": v.across(p)}
    prelude = hopper() + wgmma_from_shared("wgmma_s", v.own * v.parts, TYPES[p.precision])
    compiled = cuda_kernel("linear_sm90.cu", prelude, ["linear_sm90"], constants, target, v.shared, v.threads)[0]

    def pointer(name: str) -> Argument:
        return Pointer("input", places[name]) if name in places else Null()

    arguments: list[Argument] = [
        _map(p.precision, places["x"], p.inner, total, v.rows // v.cluster_n),
        _rows(p, places["weights"], v.block_n // v.cluster_m, v.across(p))
        if v.brief
        else _map(p.precision, places["weights"], p.inner, p.columns, v.block_n // v.cluster_m),
        *(pointer(n) for n in ("statistics", "sums", "bias", "gain_q", "gain_k", "cosines", "sines", "residual")),
        Pointer("output", 0),
        Pointer("output", 1) if p.statistics else Null(),
        Number("i32", _RUNS if p.norm else 0),
        Number("i32", total),
        Number("f32", p.epsilon),
        Number("f32", (turning.qk_norm or 0.0) if turning else 0.0),
    ]
    outputs = [Tensor(p.precision, (batch, p.rows, p.width))]
    if p.statistics:
        outputs.append(Tensor("fp32", (batch, p.rows, p.columns // v.own, 2)))
    blocks = _blocks(p, v, total)
    if stamps:
        arguments.append(Pointer("output", len(outputs)))
        outputs.append(Tensor("i32", (blocks, 16)))
    launch = Launch(
        0,
        compiled.name,
        (blocks, 1, 1),
        compiled.threads,
        compiled.shared,
        tuple(arguments),
        v.cluster,
        programmatic=True,
    )
    return LaunchPlan(target, tuple(inputs), tuple(outputs), (launch,), (Image(compiled.data),), 0, True)


def _blocks(p: LinearProblem, v: LinearVariant, total: Size) -> Size:
    columns = math.ceil(p.columns / (v.block_n * v.cluster_n)) * v.cluster
    tall = v.rows * v.cluster_m
    if isinstance(total, int):
        needed = math.ceil(total / tall) * columns
        return min(needed, v.blocks) if v.blocks else needed
    needed_text = f"cdiv({total},{tall})*{columns}"
    return f"min({needed_text},{v.blocks})" if v.blocks else needed_text


def _map(precision: str, index: int, inner: int, rows: Size, box: int) -> TensorMap:
    return TensorMap(Pointer("input", index), precision, (inner, rows), (inner * 2,), (64, box), "128B")


def _rows(p: LinearProblem, index: int, box: int, across: int) -> TensorMap:
    """W, whose rows 8 a m + 2 a q + 2 k + e the TMA lays down as 8 a m + 8 k + 2 q + e, with a = `across`."""
    row = 2 * p.inner
    return TensorMap(
        Pointer("input", index),
        p.precision,
        (p.inner, 2, 4, across, p.columns // (8 * across)),
        (row, 2 * across * row, 2 * row, 8 * across * row),
        (64, 2, 4, across, box // (8 * across)),
        "128B",
    )


def operands_of(p: LinearProblem, batch: Size) -> tuple[list[Tensor], dict[str, int]]:
    """The inputs in the order of `LinearProblem`, and where each stands."""
    named: list[tuple[str, Tensor]] = [
        ("x", Tensor(p.precision, (batch, p.rows, p.inner))),
        ("weights", Tensor(p.precision, (p.columns, p.inner))),
    ]
    if p.norm:
        named.append(("statistics", Tensor("fp32", (batch, p.rows, _RUNS, 2))))
    if p.norm == "layer":
        named.append(("sums", Tensor("fp32", (p.columns,))))
    if p.bias:
        named.append(("bias", Tensor("fp32", (p.columns,))))
    turning = p.turning
    if turning is not None and turning.qk_norm is not None:
        named += [(name, Tensor("fp32", (turning.head_size,))) for name in ("gain_q", "gain_k")]
    if turning is not None and turning.rope:
        named += [(name, Tensor("fp32", (p.rows, turning.head_size // 2))) for name in ("cosines", "sines")]
    if p.residual:
        shape: tuple[Size, ...] = (p.rows, p.columns)
        named.append(("residual", Tensor(p.precision, shape if p.residual == "shared" else (batch, *shape))))
    return [tensor for _, tensor in named], {name: index for index, (name, _) in enumerate(named)}
