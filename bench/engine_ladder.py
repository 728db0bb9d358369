"""`python -m bench.engine_ladder [RESULTS]`: what each step made of 500m's engines, of `bench.engine`'s results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.peaks import peak_tflops
from cat2dog.config import lookup
from cat2dog.flops import flops

# What an engine has more than the one before, and the files that have it measured.
_STEPS = (
    ("fused attention; every layer held to FP32", ("500m_h200",)),
    ("each layer in the precision of the graph", ("500m-256_h200",)),
    ("fused linear layers, five launches a block", ("500m-256_linear_alone_h200", "500m-1024_linear_alone_h200")),
    (
        "their kernels chosen among a block's other kernels",
        ("500m-256_linear_h200", "500m-512_linear_h200", "500m-1024_linear_h200"),
    ),
)
_CHECKPOINTS = ("500m-256", "500m-512", "500m-1024")
_ALONE = "linear/launches_500m_h200.json"


def table(results: Path) -> str:
    """One line a step; of each checkpoint ms and the percentage of the GPU's dense peak."""
    lines = [f"| FP16, batch 1 | {' | '.join(_CHECKPOINTS)} |", "|" + " --- |" * (len(_CHECKPOINTS) + 1)]
    for name, files in _STEPS:
        cells = {}
        for content in (json.loads((results / f"engines/{file}.json").read_text("utf-8")) for file in files):
            for row in content["engines"]:
                cells[row["checkpoint"]] = _cell(row["checkpoint"], row["ms"]["median"], content["machine"]["gpu"])
        lines.append(_line(name, cells))
    content = json.loads((results / _ALONE).read_text("utf-8"))
    cells = {}
    for row in content["graphs"]:
        checkpoint = row["onnx"].partition("_")[0]
        cells[checkpoint] = _cell(checkpoint, row["ms"]["median"], content["machine"]["gpu"])
    return "\n".join([*lines, _line("the same launches without TensorRT", cells)])


def _line(name: str, cells: Mapping[str, str]) -> str:
    return f"| {name} | {' | '.join(cells.get(each, '-') for each in _CHECKPOINTS)} |"


def _cell(checkpoint: str, ms: float, gpu: str) -> str:
    peak, _ = peak_tflops(gpu, "fp16")
    rate = flops(lookup(checkpoint)).total / ms / 1e9
    return f"{ms:.2f} ms ({100 * rate / peak:.0f} %)" if peak else f"{ms:.2f} ms"


if __name__ == "__main__":
    print(table(Path(sys.argv[1] if len(sys.argv) > 1 else "bench/results")))
