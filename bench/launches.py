"""`python -m bench.launches`: the fused launches of a lowered graph as one CUDA graph, without TensorRT.

A cross-check of engines: the difference to an engine's latency is what TensorRT adds, with what it runs itself (pixels
in and out). Also without programmatic dependent launch, and each kind of node by itself, all layers of it one after the
other, so that boundaries between kinds show. Needs the lowered ONNX that a build leaves beside the neutral one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.fused_chain import Chain, ChainOnGpu, read_chain
from bench.machine import machine
from runtime import cuda
from runtime.errors import ToolchainError
from runtime.files import write_text

_WARM_UP = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each file and write one JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.launches", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--onnx", type=Path, nargs="+", required=True, help="lowered graphs with fused nodes")
    parser.add_argument("--output", type=Path, required=True, help="results, JSON")
    parser.add_argument("--repeats", type=int, default=200, help="graph replays (default: 200)")
    parser.add_argument("--batch", type=int, default=1, help="batch size (default: 1)")
    args = parser.parse_args(arguments)
    rows = []
    for path in args.onnx:
        try:
            chain = read_chain(path)
            cuda.set_device(0)
            rows.append({"onnx": path.name, **measure(chain, args.batch, args.repeats)})
        except ToolchainError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        write_text(
            args.output, json.dumps({"machine": machine(("cuda-bindings", "numpy")), "graphs": rows}, indent=1) + "\n"
        )
        row = rows[-1]
        print(
            f"{path.name}: {row['launches']} launches {row['ms']['median']:.3f} ms,"
            f" none early {row['plain_ms']['median']:.3f} ms, kinds' sum {row['kinds_ms']:.3f} ms",
            flush=True,
        )
    return 0


def measure(chain: Chain, batch: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of all launches as one graph, as they are and none early, and microseconds a node of each kind."""
    with ChainOnGpu(chain, batch) as there:
        whole = _times(there, there.prepared(), repeats)
        plain = _times(there, there.prepared(programmatic=False), repeats)
        kinds = []
        for nodes in _kinds(chain):
            first = chain.nodes[nodes[0]]
            times = _times(there, there.prepared(nodes=nodes), max(20, repeats // 4))
            us = 1e3 * statistics.median(times) / len(nodes)
            kinds.append({"first": first.name, "nodes": len(nodes), "variant": first.variant, "us": round(us, 2)})
    return {
        "batch": batch,
        "nodes": len(chain.nodes),
        "launches": chain.launches,
        "ms": _said(whole),
        "plain_ms": _said(plain),
        "kinds_ms": round(sum(kind["us"] * kind["nodes"] for kind in kinds) / 1e3, 4),
        "kinds": kinds,
        "method": f"CUDA graph of the launches alone, {repeats} replays, random patches, weights of the file",
    }


def _kinds(chain: Chain) -> list[list[int]]:
    """Numbers of the nodes that launch the same, in the order of their first."""
    kinds: dict[str, list[int]] = {}
    for index, node in enumerate(chain.nodes):
        kinds.setdefault(node.plan.text(), []).append(index)
    return list(kinds.values())


def _times(there: ChainOnGpu, work: Callable[[], None], repeats: int) -> list[float]:
    work()
    there.stream.synchronize()
    with cuda.Event() as first, cuda.Event() as second, cuda.Graph(there.stream, work) as graph:

        def once() -> float:
            first.record(there.stream)
            graph.launch(there.stream)
            second.record(there.stream)
            second.synchronize()
            return second.milliseconds_since(first)

        for _ in range(_WARM_UP):
            once()
        return [once() for _ in range(repeats)]


def _said(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median": round(statistics.median(times), 4),
        "least": round(ordered[0], 4),
        "p95": round(ordered[int(len(ordered) * 0.95)], 4),
        "most": round(ordered[-1], 4),
    }


if __name__ == "__main__":
    sys.exit(main())
