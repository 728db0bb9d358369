"""`python -m zoo.se_resnet9.profile`: where the plain network's time goes, by kernel.

PyTorch's profiler over some inferences and training steps. On a CPU the rows are operators; the times there tell which
steps there are, not what a GPU would take.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from bench.machine import machine
from runtime.errors import InputError
from runtime.files import write_text
from zoo.command import Parser, run
from zoo.se_resnet9.weights import seeded

_WARM_UP, _RUNS, _ROWS = 3, 5, 25
_KINDS = (
    # cuDNN's layout kernels, and not its convolutions for a layout.
    ("layout", ("nchwtonhwc", "nhwctonchw", "transpose", "copy", "permute", "clone", "contiguous")),
    ("convolution", ("conv", "xmma", "implicit", "wgrad", "dgrad", "fprop", "cudnn", "cutlass")),
    ("matrix product", ("gemm", "addmm", "aten::mm", "linear", "gemv", "splitk")),
    ("reduction", ("reduce", "sum", "mean", "pool")),
    ("elementwise", ("elementwise", "add", "mul", "relu", "sigmoid", "clamp", "threshold", "fill", "zero")),
)


def hotspots(work: Callable[[], object], runs: int = _RUNS) -> list[dict[str, Any]]:
    """Milliseconds of one run by kernel (by operator on a CPU), the largest first, with share and kind."""
    gpu = torch.cuda.is_available()
    for _ in range(_WARM_UP):
        work()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if gpu else [])
    with profile(activities=activities) as profiler:
        for _ in range(runs):
            work()
        if gpu:
            torch.cuda.synchronize()
    rows = []
    for event in profiler.key_averages():
        if gpu and event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        microseconds = event.self_device_time_total if gpu else event.self_cpu_time_total
        if microseconds > 0:
            rows.append({"name": event.key[:160], "calls": event.count / runs, "ms": microseconds / 1000 / runs})
    total = sum(row["ms"] for row in rows)
    if not total:
        raise InputError("the profiler saw nothing: no work, or no right to profile on this machine")
    rows.sort(key=lambda row: -row["ms"])
    return [
        {**row, "ms": round(row["ms"], 5), "share": round(row["ms"] / total, 4), "kind": kind_of(row["name"])}
        for row in rows
    ]


def kind_of(name: str) -> str:
    """What sort of step a kernel is, by its name."""
    lowered = name.lower()
    return next((kind for kind, words in _KINDS if any(word in lowered for word in words)), "other")


def shares(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Share of the time by kind, the largest first."""
    found: dict[str, float] = {}
    for row in rows:
        found[row["kind"]] = found.get(row["kind"], 0.0) + row["share"]
    return {kind: round(share, 4) for kind, share in sorted(found.items(), key=lambda each: -each[1])}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Inference and a training step of the plain network."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.precision]
    network = seeded(3).to(device=device, dtype=dtype)
    inference = torch.randn(args.batch, 3, 64, 64, device=device, dtype=dtype)
    training = torch.randn(args.training_batch, 3, 64, 64, device=device, dtype=dtype)
    gradient = torch.randn(args.training_batch, 512, 2, 2, device=device, dtype=dtype) / 64

    def infer() -> None:
        with torch.no_grad():
            network(inference)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(training).backward(gradient)

    parts = {"inference": (infer, args.batch), "training step": (step, args.training_batch)}
    told = {}
    for name, (work, batch) in parts.items():
        rows = hotspots(work)
        told[name] = {
            "batch": batch,
            "kernels": sum(row["calls"] for row in rows),
            "ms": round(sum(row["ms"] for row in rows), 4),
            "shares": shares(rows),
            "rows": rows[:_ROWS],
        }
    return {
        "machine": machine(("torch", "numpy")),
        "method": f"PyTorch's profiler, {_RUNS} runs after {_WARM_UP}; ms of one, by "
        + ("kernel on the GPU" if device == "cuda" else "operator on the CPU"),
        "precision": args.precision,
        "hotspots": told,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table and write one JSON file."""
    prog = "python -m zoo.se_resnet9.profile"
    parser = Parser(prog, "Where the plain network's time goes, by kernel.", f"{prog} --output hotspots.json")
    parser.add_argument("--batch", type=int, default=128, help="images in inference (default: 128)")
    parser.add_argument("--training-batch", type=int, default=2048, help="images in training (default: 2048)")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp16")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")

    def work(args: argparse.Namespace) -> int:
        for batch in (args.batch, args.training_batch):
            if not 1 <= batch <= 1 << 14:
                raise InputError(f"a batch of {batch}; expected 1 to {1 << 14}")
        result = measure(args)
        write_text(args.output, json.dumps(result, indent=1) + "\n")
        for name, part in result["hotspots"].items():
            kinds = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in part["shares"].items())
            print(f"{name}, {part['batch']} images: {part['ms']:.3f} ms in {part['kernels']:.0f} calls: {kinds}")
            for row in part["rows"][:12]:
                print(f"  {100 * row['share']:5.1f} %  {row['ms']:8.4f} ms  {row['calls']:5.0f}x  {row['name'][:90]}")
        return 0

    return run(parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
