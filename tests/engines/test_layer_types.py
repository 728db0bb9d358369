"""What TensorRT 8.6 is told of each layer: the precision policy's islands, by the names of the graph's nodes."""

from __future__ import annotations

from engines.batch import BatchProfile
from engines.layer_types import layer_types
from engines.lowering import load, lower
from tests.export.micro import micro_export


def test_islands_are_fp32_and_the_rest_fp16():
    path = micro_export("fp16").path
    lowered = lower(path, "decomposed", BatchProfile(1, 1, 1))
    types = lowered.types
    assert types == layer_types(load(lowered.path))
    assert {types[name] for name in types if name.endswith("/MatMul")} == {"fp16"}
    assert {types[name] for name in types if "norm" in name and name.endswith(("/Sqrt", "/ReduceMean"))} == {"fp32"}
    assert {types[name] for name in types if name.endswith("/Cast_fp32")} == {"fp32"}
    assert {types[name] for name in types if name.startswith("pixels_") and "/Mul" in name} == {"fp32"}
    nodes = {node.name for node in load(lowered.path).graph}
    assert nodes - set(types) <= {name for name in nodes if "pixels_out" in name}  # the last one gives bytes
