"""`python -m bench.launches`: the fused launches of a lowered graph as one CUDA graph, without TensorRT.

A cross-check of engines: the difference to an engine's latency is what TensorRT adds, with what it runs itself (casts
of pixels). Also without programmatic dependent launch, and each kind of node by itself, all layers of it one after the
other, so that boundaries between kinds show. Needs the lowered ONNX that a build leaves beside the neutral one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.clocks import Clocks
from bench.machine import machine
from bench.timing import summary
from engines.fused_node import FUSED
from engines.kernels.chain import Chain, ChainNode, ChainOnGpu
from engines.kernels.read_plan import read_plan
from engines.lowering import load
from runtime import cuda
from runtime.errors import InputError, ToolchainError
from runtime.files import write_text


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
            if args.repeats < 1 or not 1 <= args.batch <= 1 << 16:
                raise InputError("expected a batch size and repeats of 1 and more")
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


def read_chain(path: Path) -> Chain:
    """The fused nodes of a lowered file. Raises InputError where it is no ONNX or has none."""
    nodes, constants = [], {}
    for node in load(path).graph:
        if node.op_type not in FUSED:
            continue
        read = [value for value in node.inputs if value is not None]
        try:
            constants.update(
                {str(value.name): value.const_value.numpy() for value in read if value.const_value is not None}
            )
        except OSError as error:
            raise InputError(f"{path}: its weights cannot be read from {error.filename}: {error.strerror}") from error
        try:
            plan = read_plan(node.attributes["launch"].as_string(), node.attributes["images"].as_tensor().tobytes())
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: node {node.name}: {error}; lower it again with `cat2dog build`") from error
        inputs, outputs = (tuple(str(value.name) for value in values) for values in (read, node.outputs))
        nodes.append(ChainNode(str(node.name), plan, inputs, outputs, node.attributes["variant"].as_string()))
    if not nodes:
        raise InputError(
            f"{path} has no fused nodes: expected what a build with --linear plugin leaves beside the ONNX"
        )
    return Chain(tuple(nodes), constants)


def measure(chain: Chain, batch: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of all launches as one graph, as they are and none early, and microseconds a node of each kind."""
    with ChainOnGpu(chain, batch) as there:
        with Clocks() as clocks:
            whole = there.milliseconds(there.prepared(), repeats)
        plain = there.milliseconds(there.prepared(programmatic=False), repeats)
        kinds = []
        for nodes in _kinds(chain):
            first = chain.nodes[nodes[0]]
            times = there.milliseconds(there.prepared(nodes=nodes), max(20, repeats // 4))
            us = 1e3 * statistics.median(times) / len(nodes)
            kinds.append({"first": first.name, "nodes": len(nodes), "variant": first.variant, "us": round(us, 2)})
    return {
        "batch": batch,
        "nodes": len(chain.nodes),
        "launches": chain.launches,
        "ms": summary(whole),
        "gpu_clock": clocks.said,
        "plain_ms": summary(plain),
        "kinds_ms": round(sum(kind["us"] * kind["nodes"] for kind in kinds) / 1e3, 4),
        "kinds": kinds,
        "method": f"CUDA graph of the launches alone, {repeats} replays, random input, weights of the file",
    }


def _kinds(chain: Chain) -> list[list[int]]:
    """Numbers of the nodes that launch the same, in the order of their first."""
    kinds: dict[str, list[int]] = {}
    for index, node in enumerate(chain.nodes):
        kinds.setdefault(node.plan.text(), []).append(index)
    return list(kinds.values())


if __name__ == "__main__":
    sys.exit(main())
