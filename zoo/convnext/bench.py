"""`python -m zoo.convnext.bench`: inference in every form there is here, at batch 1 and 64, with accuracy.

PyTorch in this process; ONNX Runtime and TensorRT engines each in a worker of the bench's, an engine under the Python
of its flavor (CAT2DOG_PYTHON_TENSORRT). INT8 on TensorRT 8 is timed by `bench.int8_engines`, beside FP16.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError, ToolchainError
from zoo.command import Parser, run
from zoo.convnext import source
from zoo.convnext.rows import FORMS

OUTPUT = Path("bench/results/zoo")
METHOD = (
    "all forms ready at once and timed in rounds, one turn a form (A B C A B C); uint8 pictures and logits stay on the "
    "device, normalising is part of it; between events on a GPU, by the clock on a CPU and for ONNX Runtime; accuracy "
    "by the uncompiled module in the same precision; agree: the same likeliest class as PyTorch FP32"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    parser = Parser(
        "python -m zoo.convnext.bench",
        "A ConvNeXt in every form that runs here, into one result file.",
        "python -m zoo.convnext.bench --checkpoint both.safetensors --synthetic 10 --seconds 60",
    )
    source.add_data(parser, required=False)
    source.add_network(parser)
    source.add_device(parser)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64], help="sizes (default: 1 64)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these of PyTorch's forms (default: all)")
    parser.add_argument("--onnx", type=Path, nargs="+", default=[], help="ONNX files of it, for ONNX Runtime")
    parser.add_argument("--engine", type=Path, nargs="+", default=[], help="engines of it, as cat2dog build files them")
    parser.add_argument("--int8", type=Path, nargs="+", default=[], help="Q/DQ files of it, for TensorRT 8")
    parser.add_argument("--kernels", action="store_true", help="the fused operators alone, too, stage by stage")
    parser.add_argument("--seconds", type=float, default=60, help="nothing new is begun after so many (default: 60)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each form (default: 4)")
    parser.add_argument("--turn-ms", type=float, default=100, metavar="MS", help="length of a turn (default: 100)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help=f"(default: NAME_DEVICE.json in {OUTPUT})")
    return run(parser, _bench, arguments)


def _bench(args: argparse.Namespace) -> int:
    if not args.batch or not all(1 <= batch <= 4096 for batch in args.batch):
        raise InputError(f"--batch {args.batch}; expected sizes of 1 to 4096")
    for name, least, most in (("seconds", 1, 3600), ("rounds", 2, 100), ("turn_ms", 1, 60_000)):
        if not least <= getattr(args, name) <= most:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name):g}; expected {least} to {most}")
    names = [form.name for form in FORMS]
    for name in args.rows or ():
        if name not in names:
            raise InputError(f"there is no form '{name}'; expected some of {', '.join(names)}")
    from bench.machine import machine
    from bench.schema import SCHEMA, write_result
    from zoo.convnext.measured import Bench

    device, data = source.device_of(args), source.data_of(args)
    network = source.network_of(args, data.classes)
    name = source.name_of(args, network)
    output = args.output or OUTPUT / f"{name}_{'gpu' if device == 'cuda' else 'cpu'}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    packages = ("torch", "triton", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy")
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "network",
        "complete": False,
        "machine": machine(packages),
        "method": METHOD,
        "subject": source.subject(name, network.config, "fp16" if device == "cuda" else "fp32", len(data.val)),
    }
    bench = Bench(name, network, data, device, args.rounds, args.turn_ms, time.monotonic() + args.seconds, _say)
    bench.begin(args.rows or names, args.onnx, args.engine)
    try:
        for batch in args.batch:
            bench.measure(batch)
            result.update(peers=bench.peers())
            write_result(output, result)
    finally:
        bench.end()
    if args.int8:
        bench.int8_engines(args.int8, args.batch)
    if args.kernels:
        result["kernels"] = bench.kernels(args.batch)
    result.update(peers=bench.peers(), complete=True)
    write_result(output, result)
    for line in table(result["peers"], args.batch):
        print(line)
    print(
        f"{output}: {sum(peer['status'] == 'measured' for peer in result['peers'])} of {len(result['peers'])} measured"
    )
    if not any(peer["latency"] for peer in result["peers"]):
        raise ToolchainError(f"nothing could be measured; {output} says why of each")
    return 0


def table(peers: Sequence[dict[str, Any]], batches: Sequence[int]) -> list[str]:
    """Rows of text: milliseconds at each batch, accuracy, or why there is nothing."""
    lines = [f"{'form':34}" + "".join(f"{f'batch {batch}':>12}" for batch in batches) + "   right %   agree %"]
    for peer in peers:
        times = {row["batch"]: row["ms"]["median"] for row in peer["latency"]}
        cells = "".join(f"{times[batch]:12.3f}" if batch in times else f"{'':12}" for batch in batches)
        told = peer.get("accuracy")
        judged = f"{100 * told['right']:10.2f}{100 * told['agree']:10.2f}" if told else ""
        lines.append(f"{peer['name']:34}{cells}{judged}" + (f"  {peer['reason'][:80]}" if "reason" in peer else ""))
    return lines


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
