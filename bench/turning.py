"""`python -m bench.turning`: what QK-norm and RoPE cost a block of a transformer.

[QKV layer + attention], several layers with weights of their own in one CUDA graph, in three forms: plain; with both
inside the QKV layer, as engines have them; with both at attention, as engines of graphs have them whose layer before is
not fused. The graphs are replayed in turn, and their ratio is the median of those of each round. Where no table has a
layer, some kernels are tried for each form, and the fastest is taken. `--compile-only` compiles for a machine without
compilers and needs no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine
from bench.turning_case import (
    FORMS,
    IN_ATTENTION,
    IN_LAYER,
    PLAIN,
    Case,
    Kernels,
    activations,
    cases,
    chain,
    compile_case,
    last,
    weights,
)
from engines.kernels.chain import Chain, ChainOnGpu
from engines.kernels.library import planner
from engines.kernels.linear_library import linear_planner
from engines.kernels.problem import FusedKernel, Unsupported
from engines.kernels.timing import NUMPY
from engines.kernels.tune import TOLERANCE
from runtime import cuda
from runtime.errors import InputError, ToolchainError
from runtime.files import write_text
from runtime.gpu import find_gpus, multiprocessors, no_gpu_reason

BAR = 1.10
# What kernels are compiled for where no GPU is at hand.
_USUAL = ("9.0", "NVIDIA H200", 132)
_TRIES, _FEWEST, _MOST = 4, 5, 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every case and write one JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.turning", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--output", type=Path, help="results, JSON")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure, about (default: 30)")
    parser.add_argument("--more", type=int, default=3, help="kernels to try beside the planner's (default: 3)")
    parser.add_argument("--compile-only", action="store_true", help="compile what would be measured")
    args = parser.parse_args(arguments)
    try:
        if not 0 < args.seconds < 3600 or not 0 <= args.more <= 20 or (args.output is None) != args.compile_only:
            raise InputError("expected --output FILE or --compile-only, --seconds up to 3600 and --more up to 20")
        if args.compile_only:
            print(f"{_compiled(args.more)} kernels")
            return 0
        gpus = find_gpus()
        if not gpus:
            raise ToolchainError(f"there is no GPU to measure on: {no_gpu_reason()}; --compile-only needs none")
        cuda.set_device(gpus[0].index)
        count = multiprocessors(gpus[0].index)
        results: dict[str, Any] = {
            "machine": {**machine(("cuda-bindings", "numpy")), "multiprocessors": count},
            "method": "[QKV layer + attention] of several layers with cold weights in a CUDA graph, forms replayed in "
            "turn; us are medians of a layer, a ratio the median of the rounds' ratios",
            "bar": BAR,
            "rows": [],
        }
        for row in measured(_kernels(gpus[0].compute_capability, gpus[0].name, count, args.more), args.seconds):
            results["rows"].append(row)
            write_text(args.output, json.dumps(results, indent=1) + "\n")
            print(line(row), flush=True)
    except (ToolchainError, Unsupported) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    over = [row for row in results["rows"] if row["ratio"][IN_LAYER] > BAR]
    print(f"{len(over)} of {len(results['rows'])} over {BAR:.2f}")
    return 0


def line(row: dict[str, Any]) -> str:
    """What is printed of a case."""
    shown = ", ".join(f"{form} {us:.1f}" for form, us in row["us"].items())
    return f"{row['case']}: {shown} us, ratio {row['ratio'][IN_LAYER]:.3f} ({row['ratio'][IN_ATTENTION]:.3f})"


def measured(kernels: Kernels, seconds: float) -> Any:
    """A row for each case, which share the time; those of one shape share its weights on the GPU."""
    end = time.monotonic() + seconds
    left = list(cases())
    while left:
        first = left[0]
        shared = weights(first)
        with ChainOnGpu(Chain((), shared), first.batch) as there:
            while left and (left[0].precision, left[0].heads) == (first.precision, first.heads):
                until = time.monotonic() + max(0.0, end - time.monotonic()) / len(left)
                case = left.pop(0)
                yield measured_case(case, kernels, there, until)


def measured_case(case: Case, kernels: Kernels, shared: ChainOnGpu, until: float) -> dict[str, Any]:
    """Microseconds a layer of each form. Raises ToolchainError where forms that compute the same do not agree."""
    given = {**shared.chain.constants, **activations(case)}
    with contextlib.ExitStack() as stack:
        inputs = stack.enter_context(ChainOnGpu(Chain((), given), case.batch, shared))

        def on_gpu(form: str, layer: FusedKernel) -> ChainOnGpu:
            made = chain(case, form, layer, kernels.attention(case.attention(form)), given)
            return ChainOnGpu(made, case.batch, inputs)

        taken: dict[str, FusedKernel] = {}
        tried: dict[str, dict[str, float]] = {}
        for form in (PLAIN, IN_LAYER):
            tried[form] = {}
            for layer in (layers := {each.variant: each for each in kernels.layers(case.layer(form))}).values():
                with on_gpu(form, layer) as there:
                    times = there.milliseconds(there.prepared(), _TRIES, warm_up=2)
                tried[form][layer.variant] = _us(times, case)
            taken[form] = layers[min(tried[form], key=lambda variant: tried[form][variant])]
        taken[IN_ATTENTION] = taken[PLAIN]
        chains = {form: stack.enter_context(on_gpu(form, taken[form])) for form in FORMS}
        rounds = _in_turn(chains, until)
        error = _apart(*(chains[form].value(last(case), NUMPY[case.precision]) for form in (IN_LAYER, IN_ATTENTION)))
    # One rounds the layer's product and what it turns, the other what it turns alone; each is within the tolerance.
    if not error <= 2 * TOLERANCE[case.precision]:
        raise ToolchainError(f"{case}: {IN_LAYER} and {IN_ATTENTION} differ by {error:.3g}")
    return {
        "case": str(case),
        "precision": case.precision, "tokens": case.tokens, "heads": case.heads, "head_size": case.size,
        "batch": case.batch, "layers": case.layers, "rounds": len(rounds),
        "us": {form: _us([each[form] for each in rounds], case) for form in FORMS},
        "ratio": {form: round(statistics.median(each[form] / each[PLAIN] for each in rounds), 4) for form in FORMS[1:]},
        "kernels": {
            form: {
                "layer": taken[form].variant, "why": taken[form].why,
                "attention": kernels.attention(case.attention(form)).variant,
            }
            for form in FORMS
        },
        "tried_us": tried,
        "difference": float(f"{error:.3g}"),
    }  # fmt: skip


def _in_turn(chains: dict[str, ChainOnGpu], until: float) -> list[dict[str, float]]:
    """Milliseconds of each form's graph, one round after the other."""
    rounds: list[dict[str, float]] = []
    with contextlib.ExitStack() as stack:
        graphs = {}
        for form, there in chains.items():
            work = there.prepared()
            work()
            there.stream.synchronize()
            graphs[form] = stack.enter_context(cuda.Graph(there.stream, work))
        first, second = (stack.enter_context(cuda.Event()) for _ in range(2))
        while len(rounds) <= _FEWEST or (time.monotonic() < until and len(rounds) < _MOST):
            rounds.append({f: graph.milliseconds(chains[f].stream, first, second) for f, graph in graphs.items()})
    return rounds[1:]  # the first warms up


def _us(milliseconds: Sequence[float], case: Case) -> float:
    return round(1e3 * statistics.median(milliseconds) / case.layers, 3)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Relative difference of the first sample's first rows; not a number where one of them is not."""
    a, b = (each[0, :64].astype(np.float64) for each in (one, other))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _kernels(capability: str, name: str, count: int, more: int) -> Kernels:
    return Kernels(linear_planner(capability, name), planner(capability, name), count, more)


def _compiled(more: int) -> int:
    """Compile for all cases, in as many processes as there are cores."""
    work = [(case, functools.partial(_kernels, *_USUAL, more)) for case in cases()]
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(compile_case, work))


if __name__ == "__main__":
    sys.exit(main())
