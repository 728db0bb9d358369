"""`python -m zoo.se_resnet9.bench`: inference of 128 images and a training step of 2048, in every way, on a GPU.

Each way is checked against the plain module before it is timed: features in FP64 on the first images, in training the
gradients of all parameters, too. Times are between CUDA events, a run at a time, the ways in turns. `--engine` names an
engine of 128 images, timed in a process of its own under the Python that CAT2DOG_PYTHON_TENSORRT names. A way that the
time did not suffice for, or that failed, is entered with its reason.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.machine import machine
from bench.schema import SCHEMA, write_result
from bench.timing import timing
from runtime.errors import InputError, ToolchainError
from zoo.command import Parser, run
from zoo.se_resnet9.cases import GOALS, INFERENCE, LEVELS, TRAINING, Case, cases
from zoo.se_resnet9.folded import FORMS
from zoo.se_resnet9.network import SEResNet9, macs
from zoo.se_resnet9.weights import seeded

ROOT = Path(__file__).resolve().parents[2]
BATCHES = {INFERENCE: 128, TRAINING: 2048}
_CHECKED = 64
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# FP16 through nine layers stays well above, a wrong border or scalar well below; of gradients the worst parameter's.
_LEAST_COSINE = {INFERENCE: 0.999, TRAINING: 0.98}
_ROUNDS, _ROUND_RUNS = 5, {INFERENCE: 60, TRAINING: 8}
_RESERVE = 6.0  # seconds kept for the rounds of what is ready
Work = Callable[[], Tensor]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The result, as the bench's schema has it."""
    if not torch.cuda.is_available() and not args.cpu:
        raise ToolchainError("there is no GPU here; --cpu tries out whether it runs, on a few images")
    began = time.perf_counter()
    device = "cpu" if args.cpu else "cuda"
    torch.backends.cudnn.benchmark = True  # for all: each gets the convolutions that are fastest for it
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    peers: list[dict[str, Any]] = []
    if args.engine:
        peers.append(_engine(args.engine))
    share = {INFERENCE: 0.55, TRAINING: 1.0} if len(args.only) == 2 else dict.fromkeys(args.only, 1.0)
    for what in args.only:
        deadline = began + args.seconds * share[what]
        peers += _rows(what, args, device, deadline)
    return {
        "schema": SCHEMA,
        "kind": "network",
        "complete": all(peer["status"] == "measured" for peer in peers),
        "machine": machine(("torch", "triton", "numpy")),
        "method": "milliseconds between CUDA events around one run, in turns, cudnn.benchmark on for all; images and "
        f"features stay on the GPU; {args.batch or 'SE-ResNet9, 128 images in inference, 2048 in a training step'}",
        "peers": peers,
    }


def _rows(what: str, args: argparse.Namespace, device: str, deadline: float) -> list[dict[str, Any]]:
    network = seeded(3)
    batch = args.batch or BATCHES[what]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 3, 64, 64, generator=generator)
    gradient = torch.randn(batch, 512, 2, 2, generator=generator) / 64
    try:
        expected = _expected(network, what, image, gradient, device)
    except Exception as fault:  # noqa: BLE001 (a GPU that was lost before: what was measured till then is kept)
        print(f"{what}: {fault}", file=sys.stderr, flush=True)
        return [_failed(_row(what, case, device), fault) for case in cases(what, tuple(args.forms))]
    runs = 1 if args.cpu else _ROUND_RUNS[what]
    rows: list[dict[str, Any]] = []
    ready: list[_Ready] = []
    for case in cases(what, tuple(args.forms)):
        row = _row(what, case, device)
        rows.append(row)
        if time.perf_counter() > deadline - _RESERVE:
            row["reason"] = f"the {args.seconds:g} s of --seconds were over before its turn"
            continue
        begin = time.perf_counter()
        try:
            work, error = _prepared(case, network, what, image, gradient, expected, device)
            # At once: a later way's fault may cost this process the GPU.
            rounds = [_times(work, runs)]
        except Exception as fault:  # noqa: BLE001 (whatever Triton or a compiler raises is this way's reason)
            print(f"{row['name']}: {_failed(row, fault)['reason']}", file=sys.stderr, flush=True)
            continue
        row["about"] += f"; cosine {error:.6f} to FP64, ready after {time.perf_counter() - begin:.1f} s"
        print(f"{row['name']}: {row['about']}", file=sys.stderr, flush=True)
        ready.append(_Ready(row, work, rounds))
    _time(what, ready, batch, runs, deadline)
    return rows


class _Ready(NamedTuple):
    """A way that runs, its row, and its times so far, a round each."""

    row: dict[str, Any]
    work: Work
    rounds: list[list[float]]


def _row(what: str, case: Case, device: str) -> dict[str, Any]:
    return {
        "name": f"{what}: {case.name}", "about": case.about, "device": "gpu" if device == "cuda" else "cpu",
        "precision": case.precision, "status": "absent", "latency": [],
    }  # fmt: skip


def _failed(row: dict[str, Any], fault: Exception) -> dict[str, Any]:
    row.update(status="failed", reason=f"{type(fault).__name__}: {' '.join(str(fault).split())[:400]}")
    return row


def _expected(network: SEResNet9, what: str, image: Tensor, gradient: Tensor, device: str) -> list[Tensor]:
    """Features of the first images, and in training the gradients of the whole batch, from the plain module.

    Gradients are of FP32 on the GPU, where FP64 would take seconds; features of FP64.
    """
    wide = copy.deepcopy(network).double().to(device)
    with torch.no_grad():
        found = [wide(image[:_CHECKED].double().to(device))]
    if what == TRAINING:
        full = copy.deepcopy(network).to(device)
        full(image.to(device)).backward(gradient.to(device))
        found += [parameter.grad for parameter in full.parameters() if parameter.grad is not None]
    return found


def _prepared(
    case: Case, network: SEResNet9, what: str, image: Tensor, gradient: Tensor, expected: list[Tensor], device: str
) -> tuple[Work, float]:
    """The case, warm, and its worst cosine; ToolchainError where it computes something else."""
    dtype = _DTYPES[case.precision]
    mine = copy.deepcopy(network).to(device=device, dtype=dtype)
    ready = case.make(mine, image.to(device=device, dtype=dtype), gradient.to(device=device, dtype=dtype))
    for _ in range(4):
        features = ready.run()
    got = [features[:_CHECKED]]
    if what == TRAINING:
        got += [parameter.grad for parameter in ready.module.parameters() if parameter.grad is not None]
    if len(got) != len(expected):
        raise ToolchainError(f"{len(got) - 1} of {len(expected) - 1} parameters have a gradient")
    cosine = min(_cosine(one, other) for one, other in zip(got, expected, strict=True) if other.numel() > 1)
    if not cosine >= _LEAST_COSINE[what]:
        raise ToolchainError(f"it computes something else: cosine {cosine:.4f} to the plain module")
    return ready.run, cosine


def _time(what: str, ready: list[_Ready], batch: int, runs: int, deadline: float) -> None:
    """The other rounds, in turns; each row gets its times, and one whose work fails on the way says so."""
    able = list(ready)
    for _ in range(_ROUNDS - 1):
        if time.perf_counter() > deadline:
            break
        for each in list(able):
            try:
                each.rounds.append(_times(each.work, runs))
            except Exception as fault:  # noqa: BLE001 (as above)
                print(f"{each.row['name']}: {_failed(each.row, fault)['reason']}", file=sys.stderr, flush=True)
                able.remove(each)
    for row, _, rounds in ready:
        ms = timing(rounds)
        flops = 2 * macs(3) * batch * (1 if what == INFERENCE else 3)
        latency = {"batch": batch, "level": LEVELS[what], "ms": ms}
        latency["images_per_second"] = round(1000 * batch / ms["median"], 1)
        latency["tflops"] = float(f"{flops / ms['median'] / 1e9:.4g}")
        row.update(status="partly" if "reason" in row else "measured", latency=[latency])


def _times(work: Work, runs: int) -> list[float]:
    if not torch.cuda.is_available():
        begin = time.perf_counter()
        work()
        return [1000 * (time.perf_counter() - begin)]
    work()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
    for begin_event, end_event in events:
        begin_event.record()
        work()
        end_event.record()
        end_event.synchronize()
    return [begin_event.elapsed_time(end_event) for begin_event, end_event in events]


def _cosine(one: Tensor, other: Tensor) -> float:
    a, b = one.detach().double().flatten(), other.detach().double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def _engine(path: Path) -> dict[str, Any]:
    """What `bench.engine` says of an engine, as a row."""
    python = os.environ.get("CAT2DOG_PYTHON_TENSORRT") or sys.executable
    row: dict[str, Any] = {
        "name": f"{INFERENCE}: engine fp16", "about": "TensorRT", "device": "gpu", "precision": "fp16",
        "status": "failed", "latency": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="cat2dog-bench-") as folder:
        output = Path(folder) / "engine.json"
        words = [python, "-m", "bench.engine", "--engine", str(path.resolve()), "--output", str(output)]
        try:
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            row["reason"] = "bench.engine was not done after 60 s"
            return row
        if done.returncode:
            row["reason"] = " ".join(done.stderr.split())[-400:]
            return row
        told = json.loads(output.read_text("utf-8"))["engines"][0]
    ms = told["ms"]
    spread = {"low": ms["median"], "high": ms["median"], "spread": 0.0, "count": 200, "rounds": 1}
    rate = {"images_per_second": round(1000 * told["batch"] / ms["median"], 1)}
    latency = {"batch": told["batch"], "level": "network", "ms": {**ms, **spread}, **rate}
    latency["tflops"] = float(f"{2 * macs(3) * told['batch'] / ms['median'] / 1e9:.4g}")
    about = f"{told['flavor']}, built in {told['build_seconds']:.0f} s, gate {told['gate']['state']}, CUDA graph"
    return {**row, "about": about, "status": "measured", "latency": [latency]}


def verdicts(result: dict[str, Any]) -> list[str]:
    """A line for each goal: what is fastest, and how many times as fast as what it is compared with."""
    lines = []
    for what, (name, goal) in GOALS.items():
        times = {
            peer["name"].partition(": ")[2]: peer["latency"][0]["ms"]["median"]
            for peer in result["peers"]
            if peer["name"].startswith(f"{what}:") and peer["latency"]
        }
        ours = {each: ms for each, ms in times.items() if each.startswith(("fast", "folded"))}
        if name in times and ours:
            best = min(ours, key=lambda each: ours[each])
            ratio = times[name] / ours[best]
            met = "met" if ratio >= goal else "missed"
            lines.append(f"{what}: {best} {ours[best]:.4f} ms, {ratio:.2f} times as fast as {name}; {goal:g} is {met}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write one result."""
    prog = "python -m zoo.se_resnet9.bench"
    parser = Parser(prog, (__doc__ or "").split("\n\n")[0].partition(": ")[2], f"{prog} --seconds 60 --output x.json")
    parser.add_argument("--seconds", type=float, default=60.0, help="when to stop preparing more (default: 60)")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS), help="folded forms (default: all)")
    parser.add_argument("--only", nargs="+", choices=(INFERENCE, TRAINING), default=[INFERENCE, TRAINING])
    parser.add_argument("--engine", type=Path, metavar="FILE.engine", help="of 128 images")
    parser.add_argument("--batch", type=int, help="images, in place of 128 and 2048: to try it out")
    parser.add_argument("--cpu", action="store_true", help="on the CPU: tells whether it runs, not how fast")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")

    def work(args: argparse.Namespace) -> int:
        if args.batch is not None and not 1 <= args.batch <= 1 << 14:
            raise InputError(f"--batch {args.batch}: expected 1 to {1 << 14}")
        result = measure(args)
        write_result(args.output, result)
        for peer in result["peers"]:
            told = f"{peer['latency'][0]['ms']['median']:.4f} ms" if peer["latency"] else peer.get("reason", "")
            print(f"{peer['name']}: {told}", flush=True)
        print("\n".join(verdicts(result)))
        return 0

    return run(parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
