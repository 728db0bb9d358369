"""The form `plugin` of the pixels' way in and out: what stands between a UINT8 image and patches becomes one node.

No release of TensorRT gives a plugin UINT8, and an input or output of that type must be cast at once: so a cast to a
type that holds grey levels exactly stays between the image and the node. What is exact in the graph is so in the node,
and that is checked, number for number, before it is written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from engines.attention import DOMAIN, LoweredNode
from engines.batch import BatchProfile
from engines.bf16 import compute_wide
from engines.excerpt import excerpt, name_of, run_once
from engines.fused_body import calling
from engines.fused_node import PIXELS, PRECISIONS
from engines.fused_pixels_body import pixels_body
from engines.fused_pixels_match import Way, images_of, way_in, way_out
from engines.fused_pixels_node import CASTS, pixels_attributes
from engines.fused_problem import batch_of
from engines.graph import graph_of, new_node, take_over
from engines.kernels.pixels_problem import PixelsPlanner, PixelsProblem
from engines.kernels.problem import FusedKernel, Unsupported
from runtime.errors import InputError, ToolchainError

_IMAGE_TYPES = {"fp16": ir.DataType.FLOAT16, "fp32": ir.DataType.FLOAT}


@dataclass(frozen=True)
class PixelsLowering:
    """Lowers pixels to kernels of `planner`, for graphs whose batch is `batch`, called `symbols` in shapes."""

    planner: PixelsPlanner
    batch: BatchProfile
    symbols: Collection[str] = ()

    def lower(self, model: ir.Model) -> list[LoweredNode]:
        """Rewrite the ways of the UINT8 images of `model` in place; returns what became of each.

        Raises ToolchainError where a node would not compute what the graph computes.
        """
        lowered = []
        for direction, image in images_of(model):
            try:
                way = way_in(image) if direction == "in" else way_out(image)
                problem = replace(way.problem, batch=batch_of([image], self.batch, self.symbols))
                kernel = self.planner(problem)
            except (Unsupported, InputError) as reason:  # InputError: a compiler is missing, and nobody compiled it
                lowered.append(LoweredNode(str(image.name), "tensorrt", str(reason)))
                continue
            check_pixels(way, problem, model)
            lowered.append(LoweredNode(str(image.name), "plugin", _why(kernel, problem), kernel.variant))
            _write(way, problem, kernel, model)
        return lowered


def check_pixels(way: Way, problem: PixelsProblem, model: ir.Model) -> None:
    """Compare the node's body with the graph's own nodes, which are all still there: nothing may differ.

    Raises ToolchainError, with the numbers, where anything does.
    """
    p, rng, opset = problem, np.random.default_rng(0), model.opset_imports.get("", 17)
    dtype, count = PRECISIONS[p.precision], p.batch[0]
    part = excerpt(model, [way.source], [way.end], dtype)
    if dtype == ir.DataType.FLOAT16:
        compute_wide(part, dtype)  # or ONNX Runtime leaves roundings out
    if p.direction == "in":
        feed = rng.integers(0, 256, (count, p.height, p.width, p.channels)).astype(np.float32)
    else:
        feed = _patches(p, count, rng)
    (expected,) = run_once(part, {name_of(way.source): feed})
    body = calling(pixels_body(p, "Pixels", opset), {"input": feed.ndim}, opset)
    (got,) = run_once(body, {"input": feed})
    off = np.nonzero(np.ravel(expected) != np.ravel(got))[0] if expected.size == got.size else np.array([0])
    if off.size:
        values = [float(np.ravel(each)[off[0]]) for each in (got, expected)]
        raise ToolchainError(
            f"{name_of(way.end)}: {off.size} numbers of the fused pixels node differ, the first at {off[0]}: "
            f"{values[0]} where the graph has {values[1]}: build with --linear tensorrt, and report this graph"
        )


def _patches(p: PixelsProblem, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the precision that become every grey level, some just at a half, and some outside."""
    wanted = np.concatenate([np.arange(-8, 264, 0.5), rng.uniform(-8, 264, 4096)])
    for step in reversed(p.steps):
        value = step.values[0] if step.values else 0.0
        if step.op in ("mul", "div") and value:
            wanted = wanted / value if step.op == "mul" else wanted * value
        elif step.op in ("add", "sub", "rsub"):
            wanted = {"add": wanted - value, "sub": wanted + value, "rsub": value - wanted}[step.op]
    chosen = rng.choice(wanted, (count, p.tokens, p.inner))
    return chosen.astype(PRECISIONS[p.precision].numpy()).astype(np.float32)


def _why(kernel: FusedKernel, p: PixelsProblem) -> str:
    steps, patches = [step.op for step in p.steps], [f"patches of {p.patch_height}x{p.patch_width}x{p.channels}"]
    return f"{kernel.why}; folded: {', '.join(steps + patches if p.direction == 'in' else patches + steps)}"


def _write(way: Way, p: PixelsProblem, kernel: FusedKernel, model: ir.Model) -> None:
    """Put the node, and the cast between it and the image, in the place of the way's own nodes."""
    levels, name = _IMAGE_TYPES[p.image_type], str((way.source if p.direction == "in" else way.end).name)
    before = way.end.producer()
    assert before is not None and way.source.shape is not None
    fused = ir.Node(
        DOMAIN, PIXELS, [way.source], pixels_attributes(p, kernel, DOMAIN), name=f"{name}/FusedPixels",
        outputs=[ir.Value(name=f"{name}.fused")],
    )  # fmt: skip
    made = fused.outputs[0]
    if p.direction == "in":
        cast = new_node("Cast", [way.source], {"to": int(levels)}, f"{name}/{CASTS[p.direction]}", levels)
        cast.outputs[0].shape = way.source.shape
        fused.replace_input_with(0, cast.outputs[0])
        nodes, result = [cast, fused], made
        made.type = way.end.type
        made.shape = ir.Shape([way.source.shape[0], p.tokens, p.inner])
    else:
        uint8 = ir.DataType.UINT8
        cast = new_node("Cast", [made], {"to": int(uint8)}, f"{name}/{CASTS[p.direction]}", uint8)
        nodes, result = [fused, cast], cast.outputs[0]
        made.type = ir.TensorType(levels)
        made.shape = result.shape = way.end.shape
    graph_of(before).insert_before(before, nodes)
    model.opset_imports[DOMAIN] = 1
    take_over(result, way.end)
