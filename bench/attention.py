"""`python -m bench.attention`: the tuned attention kernels beside PyTorch's and Triton's own, in one run.

Every competitor is captured in a CUDA graph of some launches over three sets of inputs; graphs are replayed in turn,
A B C A B C, and the medians are compared. The kernels are those that `cat2dog tune` filed for this GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.machine import machine
from engines.kernels.driver import LoadedPlan, bind
from engines.kernels.library import planner
from engines.kernels.problem import AttentionProblem
from engines.kernels.sizes import evaluate
from runtime.errors import ToolchainError
from runtime.files import sha256_file, write_text
from runtime.gpu import find_gpus, multiprocessors

SHAPES = [(tokens, heads, size) for tokens in (256, 1024, 4096) for heads, size in ((20, 64), (14, 128))]
_SETS = 3
_ROUNDS = 9
_PACKAGES = ("torch", "triton", "nvidia-cudnn-cu13", "cuda-bindings", "numpy")

Launch = Callable[[int], Any]


def main() -> int:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.attention", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="results, JSON")
    parser.add_argument("--tutorial", type=Path, help="a copy of Triton's tutorial 06-fused-attention.py, as a peer")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, nargs="+", default=sorted({tokens for tokens, _, _ in SHAPES}))
    parser.add_argument("--precision", nargs="+", default=["fp16", "bf16"], choices=("fp16", "bf16"))
    args = parser.parse_args()
    if not find_gpus():
        print("error: there is no GPU to measure on", file=sys.stderr)
        return 1
    import torch

    torch.zeros(1, device="cuda")
    tutorial = _tutorial(args.tutorial) if args.tutorial else None
    results: dict[str, Any] = {
        "machine": {**machine(_PACKAGES), "multiprocessors": multiprocessors(0)},
        "method": f"CUDA graph replay, {_SETS} input sets in turn, medians of {_ROUNDS} rounds, peers in turn",
        "tutorial": _about_tutorial(args.tutorial, tutorial),
        "rows": [],
    }
    for precision in args.precision:
        for batch in args.batch:
            for tokens, heads, size in (shape for shape in SHAPES if shape[0] in args.tokens):
                row = _case(torch, precision, tokens, heads, size, batch, tutorial)
                results["rows"].append(row)
                write_text(args.output, json.dumps(results, indent=1) + "\n")
                shown = ", ".join(f"{name} {us:.1f}" for name, us in row["us"].items())
                print(f"{tokens} tokens, {heads}x{size}, batch {batch}, {precision}: {shown} us", flush=True)
    return 0


def _case(torch: Any, precision: str, tokens: int, heads: int, size: int, batch: int, tutorial: Any) -> dict[str, Any]:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    generator = torch.Generator("cuda").manual_seed(tokens + heads)
    packed = [
        torch.randn(batch, tokens, 3 * heads * size, generator=generator, device="cuda").to(dtype) for _ in range(_SETS)
    ]
    apart = [x.reshape(batch, tokens, 3, heads, size).permute(2, 0, 3, 1, 4).contiguous().unbind(0) for x in packed]
    gpu = find_gpus()[0]
    plan_for = planner(gpu.compute_capability, gpu.name)
    problem = AttentionProblem(precision, heads, size, tokens, tokens, size**-0.5, (batch, batch, batch))
    turned = replace(problem, qk_norm=1e-6, rope=True)
    launches: dict[str, Launch] = {}
    variants = {}
    loaded: list[LoadedPlan] = []
    outputs = {}
    for name, asked in (("plugin", problem), ("plugin, QK-norm and RoPE", turned)):
        kernel = plan_for(asked)
        variants[name] = {"variant": kernel.variant, "why": kernel.why}
        launches[name], outputs[name] = _ours(torch, kernel.plan, packed, batch, loaded)
    launches.update(_peers(torch, apart))
    if tutorial is not None:
        for specialised in (False, True):
            name = "triton tutorial" + ", warp-specialised" * specialised
            launches[name] = _tutorial_launch(tutorial, apart, size, specialised)
    times, failed = _in_turn(torch, launches)
    for name in outputs:
        if name in failed:
            raise ToolchainError(f"the kernel '{name}' failed: {failed[name]}")
    expected = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in _few(apart[0])))
    got = outputs["plugin"].reshape(batch, tokens, heads, size).transpose(1, 2)[:1, :2]
    operations = problem.operations * batch
    for plan in loaded:
        plan.close()
    return {
        "precision": precision, "tokens": tokens, "heads": heads, "head_size": size, "batch": batch,
        "us": {name: round(us, 2) for name, us in times.items()},
        "tflops": {name: round(operations / us / 1e6, 1) for name, us in times.items()},
        "plugin": variants,
        "relative_error": float((got.double() - expected).norm() / expected.norm()),
        "failed": failed,
    }  # fmt: skip


def _few(qkv: Any) -> list[Any]:
    """Two heads of the first sample: FP64 attention of all would take longer than the rest."""
    return [x[:1, :2] for x in qkv]


def _ours(torch: Any, plan: Any, packed: list[Any], batch: int, loaded: list[LoadedPlan]) -> tuple[Launch, Any]:
    shapes = [[evaluate(size, {"B": batch}) for size in tensor.shape] for tensor in plan.inputs]
    names = bind(plan, shapes)
    extra = []
    for index, shape in enumerate(shapes[1:]):
        drawn = torch.rand(shape, device="cuda") * 6.28
        extra.append(drawn / 6.28 + 0.5 if len(shape) == 1 else (torch.cos(drawn) if index == 2 else torch.sin(drawn)))
    output = torch.empty(
        [evaluate(size, names) for size in plan.outputs[0].shape], dtype=packed[0].dtype, device="cuda"
    )
    kernel = LoadedPlan(plan)
    loaded.append(kernel)
    workspace = torch.empty(kernel.workspace_bytes(names) + 256, dtype=torch.uint8, device="cuda")
    prepared = [
        kernel.prepare([x.data_ptr(), *(t.data_ptr() for t in extra)], [output.data_ptr()], workspace.data_ptr(), names)
        for x in packed
    ]
    keep = (extra, workspace, output)

    def launch(turn: int) -> Any:
        prepared[turn % _SETS].launch(torch.cuda.current_stream().cuda_stream)
        return keep

    launch(0)
    torch.cuda.synchronize()
    return launch, output.clone()


def _peers(torch: Any, apart: list[Any]) -> dict[str, Launch]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def through(backend: Any) -> Launch:
        def launch(turn: int) -> Any:
            with sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(*apart[turn % _SETS])

        return launch

    return {
        "torch cuDNN": through(SDPBackend.CUDNN_ATTENTION),
        "torch flash": through(SDPBackend.FLASH_ATTENTION),
        "torch memory-efficient": through(SDPBackend.EFFICIENT_ATTENTION),
    }


def _tutorial(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("tutorial", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"error: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _about_tutorial(path: Path | None, tutorial: Any) -> dict[str, Any] | None:
    """Which copy it is, and over how many configurations it tuned itself here."""
    if path is None:
        return None
    return {"sha256": sha256_file(path), "configurations": len(list(tutorial.configs))}


def _tutorial_launch(tutorial: Any, apart: list[Any], size: int, specialised: bool) -> Launch:
    def launch(turn: int) -> Any:
        return tutorial.attention(*apart[turn % _SETS], False, size**-0.5, False, specialised)

    return launch


def _in_turn(torch: Any, launches: dict[str, Launch]) -> tuple[dict[str, float], dict[str, str]]:
    """Median microseconds of one launch of each, and what failed with which message."""
    graphs: dict[str, tuple[Any, int]] = {}
    failed = {}
    for name, launch in launches.items():
        try:
            for turn in range(_SETS):
                launch(turn)
            torch.cuda.synchronize()
            graphs[name] = _graph(torch, launch)
        except Exception as error:  # noqa: BLE001 - a peer that does not run here is a result, not an end
            failed[name] = " ".join(str(error).split())[:200]
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(_ROUNDS + 1):
        for name, (graph, count) in graphs.items():
            us = _replay(torch, graph) * 1e3 / count
            if turn:  # the first round warms up
                times[name].append(us)
    return {name: statistics.median(each) for name, each in times.items()}, failed


def _graph(torch: Any, launch: Launch) -> tuple[Any, int]:
    def capture(count: int) -> Any:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for turn in range(count):
                launch(turn)
        _replay(torch, graph)
        return graph

    probe = capture(_SETS)
    one = _replay(torch, probe) / _SETS
    count = max(_SETS, min(300, int(1.5 / one))) // _SETS * _SETS
    return capture(count), count


def _replay(torch: Any, graph: Any) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


if __name__ == "__main__":
    sys.exit(main())
