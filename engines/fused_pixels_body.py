"""What `cat2dog::FusedPixels` computes, in plain ONNX, so that a lowered graph can be judged without the plugin.

The body computes as the kernel does: each step in FP32, rounded by itself, and the result rounded once.
"""

from __future__ import annotations

import onnx_ir as ir

from engines.fused_body import function, integers_text, number_text
from engines.fused_node import PRECISIONS
from engines.kernels.pixels_problem import PixelsProblem, Step

_WIDE = int(ir.DataType.FLOAT)
_OPERATORS = {"mul": "Mul", "add": "Add", "sub": "Sub", "rsub": "Sub", "div": "Div", "max": "Max", "min": "Min"}


def pixels_body(problem: PixelsProblem, name: str, opset: int) -> ir.Function:
    """The local function `cat2dog::{name}`: the input of the node to its output."""
    p = problem
    apart = (-1, p.height // p.patch_height, p.patch_height, p.width // p.patch_width, p.patch_width, p.channels)
    axes = {"p": 2, "q": 4, "c": 5}
    order = [0, 1, 3, *(axes[axis] for axis in p.order)]
    lines = [f"x_0 = Cast <to: int = {_WIDE}> (input)"]
    if p.direction == "in":
        lines += _steps(p.steps)
        # Not as the precision says: where BF16 cannot be run, everything around is FP32.
        lines += [
            f"narrow = Cast <to: int = {int(PRECISIONS[p.precision])}> (x_{len(p.steps)})",
            "turned = CastLike (narrow, input)",
            f"apart_shape = {integers_text(*apart)}",
            "apart = Reshape (turned, apart_shape)",
            f"together = Transpose <perm: ints = {order}> (apart)",
            f"shape = {integers_text(-1, p.tokens, p.inner)}",
            "output = Reshape (together, shape)",
        ]
    else:
        grid = [apart[axis] for axis in order]
        back = sorted(range(6), key=lambda axis: order[axis])
        lines += [
            f"apart_shape = {integers_text(*grid)}",
            "x_apart = Reshape (x_0, apart_shape)",
            f"x_together = Transpose <perm: ints = {back}> (x_apart)",
            f"shape = {integers_text(-1, p.height, p.width, p.channels)}",
            "x_image = Reshape (x_together, shape)",
            *_steps(p.steps, "x_image"),
            f"output = CastLike ({f'x_{len(p.steps)}' if p.steps else 'x_image'}, input)",
        ]
    return function(name, ["input"], ["output"], lines, opset)


def _steps(steps: tuple[Step, ...], x: str = "x_0") -> list[str]:
    """Statements from `x`, FP32 with channels last, to `x_{number of steps}`."""
    lines = []
    for index, step in enumerate(steps, start=1):
        new = f"x_{index}"
        if step.values:
            values = ", ".join(number_text(value) for value in step.values)
            lines.append(f"value_{index} = Constant <value_floats: floats = [{values}]> ()")
            inputs = f"value_{index}, {x}" if step.op == "rsub" else f"{x}, value_{index}"
            lines.append(f"{new} = {_OPERATORS[step.op]} ({inputs})")
        elif step.op == "round":
            lines.append(f"{new} = Round ({x})")
        else:
            lines.append(f"narrow_{index} = Cast <to: int = {int(PRECISIONS[step.op])}> ({x})")
            lines.append(f"{new} = Cast <to: int = {_WIDE}> (narrow_{index})")
        x = new
    return lines
