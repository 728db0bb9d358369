"""What FP16 and BF16 cost a trained checkpoint: `python -m training.precision --model models/tiny-128 --out p.json`.

On held-out cats, the PSNR against the FP32 reference of: the exported ONNX in ONNX Runtime; PyTorch in that precision
with the islands of `export/policy.py` in FP32; the same with one island left out, for each; with the ones added that
the policy does without; and with none. Exit code 3 where FP16 or BF16 is under its bound.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import AccuracyError, InputError, ToolchainError
from runtime.files import sha256_file, write_text
from runtime.metrics import psnr, psnr_each
from training.contact_sheet import seeds_of
from training.draw import VERSION, pair
from training.onnx_dogs import onnx_dogs
from training.seeds import HELD_OUT

# FP32 islands of export/policy.py, by family. Softmax is in the body of every attention node.
POLICY = {"fp16": ("pixels", "norms", "softmax"), "bf16": ("pixels", "norms", "softmax", "residual")}
BOUNDS_DB = {"fp16": 45.0, "bf16": 40.0}
_BATCH = 10
_EQUAL_DB = 100.0  # stands for the infinite PSNR of equal pictures, which JSON cannot say


def _scores(dogs: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    each = np.minimum(psnr_each(dogs, expected), _EQUAL_DB)
    return {
        "psnr_db_mean": round(float(each.mean()), 2),
        "psnr_db_min": round(float(each.min()), 2),
        "psnr_db_pooled": round(min(psnr(dogs, expected), _EQUAL_DB), 2),
    }


def measure(folder: Path, seeds: range) -> dict[str, Any]:
    """Results as written to the file. Raises InputError for seeds that training may have used, or a bad checkpoint."""
    if seeds[0] < HELD_OUT:
        raise InputError(f"seed {seeds[0]} may have been trained on: expected seeds from {HELD_OUT}")
    import onnxruntime
    import torch

    from cat2dog.checkpoint import load
    from cat2dog.reference import reference
    from training.narrow import ISLANDS, NarrowCat2Dog

    model = load(folder)
    cats = np.stack([pair(seed, model.config.resolution)[0] for seed in seeds])
    expected = reference(folder, cats, cache=None)

    def pytorch(dtype: torch.dtype, islands: Collection[str]) -> dict[str, float]:
        narrow = NarrowCat2Dog(model, dtype, islands)
        parts = [narrow(torch.from_numpy(cats[i : i + _BATCH])).numpy() for i in range(0, len(cats), _BATCH)]
        return _scores(np.concatenate(parts), expected)

    precisions = {}
    for precision, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        islands = POLICY[precision]
        precisions[precision] = {
            "bound_db": BOUNDS_DB[precision],
            "fp32_islands": list(islands),
            "onnx_in_onnxruntime": _scores(onnx_dogs(folder, cats, precision), expected),
            "pytorch": pytorch(dtype, islands),
            "pytorch_without": {name: pytorch(dtype, [i for i in islands if i != name]) for name in islands},
            "pytorch_with": {name: pytorch(dtype, [*islands, name]) for name in ISLANDS if name not in islands},
            "pytorch_without_any": pytorch(dtype, ()),
        }
    return {
        "checkpoint": str(folder),
        "weights_sha256": sha256_file(folder / "model.safetensors"),
        "against": "FP32 eager PyTorch with plain attention, uint8 pictures, peak 255",
        "seeds": [seeds[0], seeds[-1]],
        "pictures": len(seeds),
        "generator_version": VERSION,
        "precisions": precisions,
        "device": "cpu",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def check(results: dict[str, Any]) -> None:
    """Raise AccuracyError where a precision with its islands is under its bound, in the mean over the cats."""
    for precision, result in results["precisions"].items():
        for way in ("onnx_in_onnxruntime", "pytorch"):
            found = result[way]["psnr_db_mean"]
            if found < result["bound_db"]:
                raise AccuracyError(
                    f"{precision} ({way}) is {found:.2f} dB from FP32, expected at least {result['bound_db']:g}: "
                    "see pytorch_with for an island that would help"
                )


def table(results: dict[str, Any]) -> list[str]:
    """One line a measurement, for people."""
    lines = []
    for precision, result in results["precisions"].items():
        ways = {
            "ONNX in ONNX Runtime": result["onnx_in_onnxruntime"],
            f"PyTorch, {' + '.join(result['fp32_islands'])} in FP32": result["pytorch"],
            **{f"  without {name}": scores for name, scores in result["pytorch_without"].items()},
            **{f"  with {name}": scores for name, scores in result["pytorch_with"].items()},
            "  without any": result["pytorch_without_any"],
        }
        lines += [
            f"{precision}  {way:52s} mean {scores['psnr_db_mean']:6.2f} dB  min {scores['psnr_db_min']:6.2f} dB"
            for way, scores in ways.items()
        ]
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.precision", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path, help="a checkpoint folder")
    parser.add_argument("--out", required=True, type=Path, help="the JSON file to write")
    parser.add_argument("--seeds", default=f"{HELD_OUT}:{HELD_OUT + 100}", help="FIRST:END, default 100 held-out ones")
    options = parser.parse_args(arguments)
    try:
        results = measure(options.model, seeds_of(options.seeds, most=10_000))
        write_text(options.out, json.dumps(results, indent=2) + "\n")
        print("\n".join(table(results)))
        check(results)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
