"""The `cat2dog::FusedPixels` node: its attributes, beside the kernel's one for each field of `PixelsProblem`."""

from __future__ import annotations

from dataclasses import fields

import onnx_ir as ir

from engines.fused_node import PIXELS, kernel_attributes, read_fields
from engines.kernels.pixels_problem import PixelsProblem, Step
from engines.kernels.problem import FusedKernel

# The cast between an image and its fused node, by the node's direction.
CASTS = {"in": "Cast_levels", "out": "Cast_image"}


def nodes_of(image: str) -> tuple[str, ...]:
    """What the nodes that stand for the way of `image` may be called."""
    return tuple(f"{image}/{kind}" for kind in (PIXELS, *CASTS.values()))


def pixels_attributes(problem: PixelsProblem, kernel: FusedKernel, namespace: str) -> list[ir.Attr]:
    """The attributes of the node that `kernel` computes `problem` in."""
    given = kernel_attributes(kernel, namespace)
    given.update({field.name: getattr(problem, field.name) for field in fields(problem) if field.name != "steps"})
    if problem.steps:
        given["steps"] = [step.text() for step in problem.steps]
    return list(ir.convenience.convert_attributes(given))


def pixels_problem_of(node: ir.Node) -> PixelsProblem:
    """What the node computes, as its attributes say."""
    read = read_fields(node, PixelsProblem)
    steps = tuple(Step.read(text) for text in read.pop("steps", ()))
    return PixelsProblem(**read, steps=steps)
