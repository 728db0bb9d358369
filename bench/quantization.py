"""`python -m bench.quantization`: what INT8 and FP8 cost a checkpoint in PSNR, scheme by scheme.

Each scheme of `accuracy.quantization` is written as Q/DQ ONNX by NVIDIA's Model Optimizer and run in ONNX Runtime node
by node, everything else in FP32; FP16 and BF16 by the default policy stand beside them. The files stay in `--folder`,
for TensorRT:

    CAT2DOG_PYTHON_MODELOPT=.venv-modelopt/bin/python .venv/bin/python -m bench.quantization \\
        --model models/tiny-128 --output bench/results/accuracy/quantization_tiny-128.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accuracy.candidates import lowered, lowered_reference
from accuracy.quantization import SCHEMES, Scheme, calibration_of, modelopt_python, quantize
from bench.machine import machine
from cat2dog.recipe import Cat2DogRecipe
from engines.lowering import load
from engines.proxy import rounded
from engines.validation import Validation, answers
from export.export import export
from runtime.errors import InputError, ToolchainError
from runtime.files import write_text
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner

AIM_DB = 45.0
# TensorRT 8.6 lacks cuBLAS and cuDNN in its wheel. The first line times INT8, the second FP16 in the same way.
GPU_COMMANDS = (
    "polygraphy run {qdq} --trt --int8 --fp16 --tactic-sources JIT_CONVOLUTIONS EDGE_MASK_CONVOLUTIONS "
    "--warm-up 100 --iterations 500",
    "polygraphy run {fp32} --trt --fp16 --tactic-sources JIT_CONVOLUTIONS EDGE_MASK_CONVOLUTIONS "
    "--warm-up 100 --iterations 500",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every scheme and write one JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.quantization", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="a checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--folder", type=Path, default=Path("build/quantized"), help="where the ONNX files are kept")
    parser.add_argument("--schemes", nargs="+", metavar="NAME", help=f"of {', '.join(s.name for s in SCHEMES)}")
    args = parser.parse_args(arguments)
    try:
        facts = measure(args.model, args.folder, chosen(args.schemes))
        write_text(args.output, json.dumps(facts, indent=1) + "\n")
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{facts['says']}\nresults in {args.output}; on a GPU, with TensorRT 8.6:")
    for command in facts["gpu_commands"]:
        print(f"  {command}")
    return 0


def chosen(names: Sequence[str] | None) -> tuple[Scheme, ...]:
    """The schemes of these names, all for None. Raises InputError for a name that is none."""
    known = {scheme.name: scheme for scheme in SCHEMES}
    for name in names or ():
        if name not in known:
            raise InputError(f"there is no scheme '{name}'; expected one of {', '.join(known)}")
    return tuple(known[name] for name in names) if names else SCHEMES


def measure(model: Path, folder: Path, schemes: Sequence[Scheme]) -> dict[str, Any]:
    """Scores of every scheme against the FP32 reference, PSNR in dB for each validation picture."""
    python = modelopt_python()
    recipe = Cat2DogRecipe(model, folder / "reference")
    feed = recipe.validation()
    validation = Validation(feed, recipe.reference(feed), *recipe.judge, "PyTorch FP32 eager")
    calibration, calibrated = calibration_of(feed)
    fp32 = lowered_reference(export(recipe, folder / f"{recipe.name}_fp32.onnx", "fp32").path, "decomposed")
    rows, versions = [], {}
    for precision in ("fp16", "bf16"):
        neutral = export(recipe, folder / f"{recipe.name}_{precision}.onnx", precision).path
        with rounded(lowered(neutral, "decomposed")) as path:
            rows.append(_row(precision, path, validation, optimize=True))
    for scheme in schemes:
        target = folder / f"{recipe.name}_{scheme.name}.onnx"
        began = time.perf_counter()
        versions = quantize(fp32, target, scheme, calibration, python)
        row = _row(scheme.name, target, validation, optimize=False)
        row["seconds"] = round(time.perf_counter() - began, 1)
        row["quantized_products"] = _quantized_products(target)
        rows.append(row)
        print(f"{scheme.name}: worst {row['psnr_db_min']:.2f} dB", flush=True)
    example = max((row for row in rows if "quantized_products" in row), key=lambda row: row["psnr_db_min"])
    paths = {"qdq": folder / f"{recipe.name}_{example['scheme']}.onnx", "fp32": fp32}
    return {
        "machine": {**machine(("onnx", "onnxruntime", "torch")), "modelopt_environment": versions},
        "model": recipe.name,
        "against": validation.against,
        "calibrated_with": calibrated,
        "gate_db": validation.threshold,
        "aim_db": AIM_DB,
        "rows": rows,
        "says": says(rows, validation.threshold),
        "gpu_commands": [command.format(**paths) for command in GPU_COMMANDS],
    }


def _row(name: str, path: Path, validation: Validation, optimize: bool) -> dict[str, Any]:
    with OnnxRuntimeRunner(path, optimize=optimize) as runner:
        each = scores(validation.metric, answers(runner, validation, 1), validation.expected)
    return {
        "scheme": name,
        "psnr_db": [round(score, 2) for score in each],
        "psnr_db_min": round(min(each), 2),
        "psnr_db_mean": round(sum(each) / len(each), 2),
    }


def _quantized_products(path: Path) -> int:
    """Products of matrices of which both operands come from a DequantizeLinear."""
    return sum(
        node.op_type in ("MatMul", "Gemm", "Conv")
        and all(
            value is not None and (maker := value.producer()) is not None and maker.op_type == "DequantizeLinear"
            for value in node.inputs[:2]
        )
        for node in load(path).graph
    )


def says(rows: Sequence[dict[str, Any]], gate_db: float) -> str:
    """In a sentence, whether the accuracy allows it; what it gains in time only a GPU can tell."""
    parts = []
    for mode in ("int8", "fp8"):
        own = [row for row in rows if row["scheme"].startswith(mode)]
        if not own:
            continue
        best = max(own, key=lambda row: row["psnr_db_min"])
        passing = sum(row["psnr_db_min"] >= gate_db for row in own)
        aim = "reaches" if best["psnr_db_min"] >= AIM_DB else "misses"
        parts.append(
            f"{mode.upper()}: {passing} of {len(own)} schemes pass the gate of {gate_db:g} dB; the best, "
            f"{best['scheme']}, has {best['psnr_db_min']:.1f} dB on the worst picture and {aim} the aim of {AIM_DB:g}"
        )
    half = next((row for row in rows if row["scheme"] == "fp16"), None)
    return "; ".join(parts) + (f"; FP16 has {half['psnr_db_min']:.1f}" if half else "")


if __name__ == "__main__":
    sys.exit(main())
