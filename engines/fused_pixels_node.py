"""The `cat2dog::FusedPixels` node: its attributes, beside the kernel's one for each field of `PixelsProblem`."""

from __future__ import annotations

from dataclasses import fields

import onnx_ir as ir

from engines.fused_node import kernel_attributes, read_fields
from engines.kernels.pixels_problem import PixelsProblem, Step
from engines.kernels.problem import FusedKernel


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
