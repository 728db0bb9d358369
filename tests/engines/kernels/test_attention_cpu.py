"""The Triton kernels' arithmetic on the CPU, by Triton's interpreter, against the definition in FP64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# (precision, head size, queries, keys, layout, norm, rope, splits, blocks of queries and keys)
CASES = {
    "one token": ("fp16", 64, 1, 1, "packed", False, False, 1, (16, 32)),
    "short of a block": ("fp16", 32, 17, 17, "packed", False, False, 1, (16, 32)),
    "a block and a bit": ("fp16", 40, 50, 50, "packed", False, False, 1, (32, 16)),
    "whole blocks": ("fp16", 64, 32, 64, "heads", False, False, 1, (16, 32)),
    "other keys": ("fp16", 40, 1, 50, "tokens", False, False, 1, (16, 16)),
    "bf16": ("bf16", 64, 17, 50, "tokens", False, False, 1, (16, 16)),
    "norm": ("fp16", 64, 17, 17, "packed", True, False, 1, (16, 16)),
    "rope, padded head": ("fp16", 40, 50, 50, "packed", False, True, 1, (16, 32)),
    "norm and rope": ("bf16", 32, 50, 50, "heads", True, True, 1, (32, 32)),
    "norm and rope, padded head": ("fp16", 40, 17, 17, "tokens", True, True, 1, (16, 16)),
    "two splits": ("fp16", 64, 17, 50, "heads", False, False, 2, (16, 16)),
    "a split without keys": ("fp16", 40, 17, 80, "tokens", False, False, 4, (16, 16)),
    "a split with the tail alone": ("fp16", 32, 1, 50, "heads", False, False, 4, (16, 16)),
    "splits with norm and rope": ("bf16", 40, 50, 50, "packed", True, True, 2, (16, 16)),
}
SKIP = "SKIP "


def test_the_triton_kernels_compute_attention():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.kernels.test_attention_cpu"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    if done.stdout.startswith(SKIP):
        pytest.skip(done.stdout.removeprefix(SKIP).strip())
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(CASES)
    wrong = [line for line in lines if not line.startswith("right")]
    assert not wrong, "\n".join(wrong)


def main() -> None:
    """Run every case in this process, whose Triton interprets; a line a case."""
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as error:
        print(f"{SKIP}Triton's interpreter needs triton and torch: {error}")
        return
    _let_the_interpreter_multiply_bf16()
    for name, case in CASES.items():
        error, bound = relative_error(torch, *case)
        print("right" if error <= bound else f"wrong by {error:.3g}, at most {bound:.3g}: {name}")


def _let_the_interpreter_multiply_bf16() -> None:
    """Triton 3.7's interpreter keeps BF16 as its bits and multiplies those as integers; widen them before."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply = InterpreterBuilder.create_dot

    def wide(operand: TensorHandle) -> TensorHandle:
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, d, input_precision, most):
        return multiply(self, wide(a), wide(b), d, input_precision, most)

    InterpreterBuilder.create_dot = create_dot


def relative_error(torch, precision, size, queries, keys, layout, norm, rope, splits, blocks) -> tuple[float, float]:
    """Of the kernel as a plan launches it, with the constants and grids of that plan; and the bound."""
    import ml_dtypes
    import numpy as np

    from engines.kernels import attention_triton, images, plan_triton
    from engines.kernels.launch import Null, Number, Pointer
    from engines.kernels.measure import _random, reference_row
    from engines.kernels.plan import make_plan
    from engines.kernels.problem import AttentionProblem
    from engines.kernels.sizes import evaluate
    from engines.kernels.variants import TritonVariant

    batch, heads = 2, 2
    problem = AttentionProblem(
        precision, heads, size, queries, keys, size**-0.5, (1, batch, batch), layout,
        "heads" if layout == "heads" else "tokens", 1e-6 if norm else None, rope,
    )  # fmt: skip
    asked = {}

    def compile_nothing(function, signature, constants, target, warps):
        data = f"{function} {constants}".encode()
        asked[data] = constants
        return images.Compiled(data, function, 0, warps * 32)

    plan_triton.triton_kernel = compile_nothing
    plan = make_plan(problem, TritonVariant(*blocks, 4, 2, splits), "9.0")
    names = {"B": batch}
    rng = np.random.default_rng(3)
    shapes = [[evaluate(part, names) for part in tensor.shape] for tensor in plan.inputs]
    feed = [_random(rng, t.dtype, s, i) for i, (t, s) in enumerate(zip(plan.inputs, shapes, strict=True))]
    types = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

    def tensor(array):
        wide = torch.from_numpy(np.ascontiguousarray(array.astype(np.float32)))
        return wide.to(types["fp32" if array.dtype == np.float32 else precision])

    inputs = [tensor(array) for array in feed]
    shape = [evaluate(part, names) for part in plan.outputs[0].shape]
    output = torch.full(shape, float("nan"), dtype=types[precision])
    # NaN where nobody writes: reading it would show.
    workspace = torch.full([evaluate(plan.workspace, names) // 4 + 1], float("nan"))

    def value(argument):
        if isinstance(argument, Null):
            return None
        if isinstance(argument, Number):
            return float(argument.value)
        assert isinstance(argument, Pointer)
        operand = {"input": inputs, "output": [output], "workspace": [workspace]}[argument.operand][argument.index]
        return operand.view(-1)[evaluate(argument.offset, names) // operand.element_size() :]

    for launch in plan.launches:
        kernel = getattr(attention_triton, launch.name)
        values = [value(argument) for argument in launch.arguments[:-2]]  # the last two are the compiler's own
        grid = tuple(evaluate(part, names) for part in launch.grid)
        kernel[grid](*values, **asked[plan.images[launch.image].data])
    answer = output.float().numpy()
    if problem.output == "tokens":
        answer = answer.reshape(batch, queries, heads, size).transpose(0, 2, 1, 3)
    wrong = right = 0.0
    for sample in range(batch):
        for head in range(heads):
            for row in range(queries):
                expected = reference_row(problem, feed, sample, head, row)
                wrong += float(np.square(answer[sample, head, row] - expected).sum())
                right += float(np.square(expected).sum())
    # Weights and results are rounded once each: a unit of the last place in all. The interpreter cuts BF16 off instead.
    unit = {"fp16": np.finfo(np.float16).eps, "bf16": 2 * ml_dtypes.finfo(ml_dtypes.bfloat16).eps}[precision]
    return (wrong / right) ** 0.5, float(unit)


if __name__ == "__main__":
    main()
