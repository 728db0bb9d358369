"""Fused nodes: a kernel's launch plan and images as attributes, which become plugin fields. Here `FusedAttention`'s.

TensorRT's parsers read the attributes that the plugin names (`launch`, `images`) and leave the others alone; those say
what the node computes, one for each field of `AttentionProblem`, for people and for `engines.fused_body`.
(`engines.fused_linear_node` has those of `FusedLinear`, `engines.fused_pixels_node` those of `FusedPixels`.)
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

import numpy as np
import onnx_ir as ir

from engines.kernels.problem import AttentionProblem, FusedKernel

OP_TYPE = "FusedAttention"
LINEAR = "FusedLinear"
PIXELS = "FusedPixels"
FUSED = (OP_TYPE, LINEAR, PIXELS)
# What fused kernels compute in.
PRECISIONS = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


def attributes_of(problem: AttentionProblem, kernel: FusedKernel, namespace: str) -> list[ir.Attr]:
    """The attributes of the node that `kernel` computes `problem` in."""
    given = kernel_attributes(kernel, namespace)
    for field in fields(problem):
        value = getattr(problem, field.name)
        if value is not None:
            given[field.name] = int(value) if isinstance(value, bool) else value
    return list(ir.convenience.convert_attributes(given))


def kernel_attributes(kernel: FusedKernel, namespace: str) -> dict[str, Any]:
    """What every fused node has: what the plugin is called, its fields, and the kernel's variant in words."""
    # INT8, because the parser of TensorRT 8.6 refuses UINT8 tensors; the bytes are what they are.
    images = ir.Tensor(np.frombuffer(kernel.plan.data, np.int8), dtype=ir.DataType.INT8, name="images")
    return {
        "plugin_version": "1",
        "plugin_namespace": namespace,
        "launch": kernel.plan.text(),
        "images": images,
        "variant": kernel.variant,
    }


def problem_of(node: ir.Node) -> AttentionProblem:
    """What the node computes, as its attributes say."""
    read = read_fields(node, AttentionProblem)
    return AttentionProblem(**{**read, "rope": bool(read["rope"])})


def read_fields(node: ir.Node, kind: type, prefix: str = "") -> dict[str, Any]:
    """The fields of the dataclass `kind` that the node has attributes for, called by `prefix` and the field's name."""
    read: dict[str, Any] = {}
    for field in fields(kind):
        if prefix + field.name in node.attributes:
            value = node.attributes[prefix + field.name].value
            read[field.name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return read


def has_fused(model: ir.Model) -> bool:
    """Whether any node of the graph is a fused kernel."""
    return any(node.op_type in FUSED for node in model.graph.all_nodes())


def kernels_sha256(model: ir.Model) -> str:
    """Hex SHA-256 of the plans and images of every fused node, in order."""
    digest = hashlib.sha256()
    for node in model.graph.all_nodes():
        if node.op_type in FUSED:
            digest.update(node.attributes["launch"].as_string().encode())
            digest.update(node.attributes["images"].as_tensor().tobytes())
    return digest.hexdigest()


def main_inputs(problem: AttentionProblem) -> int:
    """How many inputs hold queries, keys and values; gains and tables follow."""
    return 1 if problem.layout == "packed" else 3
