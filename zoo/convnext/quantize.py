"""`python -m zoo.convnext.quantize`: a ConvNeXt in INT8, from calibration and after training with rounding.

Writes Q/DQ ONNX files, the trained checkpoint, and the accuracy of each beside FP32's in one result file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from runtime.errors import InputError
from zoo.command import Parser, bar, run
from zoo.convnext import source
from zoo.convnext.fake_quant import SCHEMES

METHOD = (
    "accuracy over the validation pictures by PyTorch, rounding simulated as the Q/DQ graph rounds; after calibration "
    "alone, and after a short training with rounding in the forward pass"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Quantize and judge; returns the exit code."""
    parser = Parser(
        "python -m zoo.convnext.quantize",
        "A ConvNeXt in INT8, from calibration and after training with rounding.",
        "python -m zoo.convnext.quantize --checkpoint both.safetensors --data tiny-imagenet-200 --folder build/int8",
    )
    source.add_data(parser, required=True)
    source.add_network(parser)
    source.add_device(parser)
    parser.add_argument(
        "--scheme", choices=SCHEMES, default="all", help="pointwise leaves depthwise ones (default: all)"
    )
    parser.add_argument("--calibration", type=int, default=256, metavar="N", help="pictures (default: 256)")
    parser.add_argument("--steps", type=int, default=200, help="of training with rounding, 0 for none (default: 200)")
    parser.add_argument("--batch", type=int, default=64, help="of that training (default: 64)")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/convnext-int8"), help="(default: build/convnext-int8)"
    )
    parser.add_argument("--no-onnx", action="store_true", help="judge only, write no ONNX files")
    parser.add_argument("--wide-weights", action="store_true", help="weights in FP32 behind Q/DQ, for TensorRT 8")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="the result (default: int8.json in --folder)")
    return run(parser, _quantize, arguments)


def _quantize(args: argparse.Namespace) -> int:
    for name, least, most in (("calibration", 1, 100_000), ("steps", 0, 1_000_000), ("batch", 1, 4096)):
        if not least <= getattr(args, name) <= most:
            raise InputError(f"--{name} {getattr(args, name)}; expected {least} to {most}")
    from bench.machine import machine
    from bench.schema import SCHEMA, write_result
    from zoo.convnext import int8
    from zoo.convnext.checkpoint import save
    from zoo.convnext.loop import accuracy
    from zoo.convnext.recipe import sized

    device, data = source.device_of(args), source.data_of(args)
    network = source.network_of(args, data.classes).to(device)
    train, val = (
        (torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device))
        for part in (data.train, data.val)
    )
    calibration = int8.taken(data.train.images, args.calibration)
    right = accuracy(network, *val, args.batch)
    made = {
        "int8 from calibration": int8.calibrated(network, args.scheme, torch.from_numpy(calibration).to(device), val)
    }
    if args.steps:
        with bar("training with rounding") as progress:
            made[f"int8 after {args.steps} steps"] = int8.finetuned(
                network, args.scheme, train, val, args.steps, args.batch, say=progress
            )
    args.folder.mkdir(parents=True, exist_ok=True)
    name = source.name_of(args, network)
    rows = [_row("fp32", "PyTorch", device, right, 1.0, data)]
    for (label, each), short in zip(made.items(), ("calibrated", "trained"), strict=False):
        target = args.folder / f"{name}_int8_{short}.onnx"
        if not args.no_onnx:
            int8.write(each, target, sized(calibration[:8], network.config.resolution), args.wide_weights)
            print(f"{target}: {label}")
        if short == "trained":
            save(target.with_suffix(".safetensors"), each.network)
        agree = _agreement(network, each, val[0], args.batch)
        about = f"{args.scheme}: {len(each.layers)} layers, {len(calibration)} pictures to calibrate with"
        rows.append(_row(label, about, device, each.right, agree, data))
    result = {
        "schema": SCHEMA,
        "kind": "network",
        "complete": True,
        "machine": machine(("torch", "onnxruntime", "onnx", "numpy")),
        "method": METHOD,
        "subject": source.subject(name, network.config, "fp32", len(data.val)),
        "peers": rows,
    }
    output = args.output or args.folder / "int8.json"
    write_result(output, result)
    for row in rows:
        told = row["accuracy"]
        print(f"{row['name']}: {100 * told['right']:.2f} % right, {100 * told['agree']:.2f} % as FP32")
    print(f"{output}: {data.name}")
    return 0


def _row(name: str, about: str, device: str, right: float, agree: float, data: Any) -> dict[str, Any]:
    """A row of a result, not timed."""
    told = {"pictures": len(data.val), "data": data.name, "right": round(right, 5), "agree": round(agree, 5)}
    precision = "int8" if name.startswith("int8") else "fp32"
    kind = "gpu" if device == "cuda" else "cpu"
    return {"name": name, "about": about, "device": kind, "precision": precision, "status": "measured", "latency": [],
            "accuracy": told}  # fmt: skip


def _agreement(network: Any, each: Any, images: torch.Tensor, batch: int) -> float:
    """The share of pictures of which the likeliest class is the one that FP32 finds."""
    from zoo.convnext import int8
    from zoo.convnext.loop import prepared

    same = 0
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        with torch.no_grad():
            plain = network(prepared(part, network.config.resolution)).argmax(1)
        same += int((int8.logits(each, part).argmax(1) == plain).sum())
    return same / len(images)


if __name__ == "__main__":
    sys.exit(main())
