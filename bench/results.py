"""A result as the schema has it, put together from what was measured."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from bench.peaks import peak_tflops
from bench.schema import SCHEMA


def peers_result(
    kind: str,
    machine: dict[str, Any],
    subject: dict[str, Any],
    method: str,
    peers: Sequence[dict[str, Any]],
    ceilings: Sequence[dict[str, Any]],
    complete: bool,
) -> dict[str, Any]:
    """Peers or rungs with their MFU, which needs what the devices reach. Nothing given is changed."""
    known = [_with_peak(each, machine["gpu"]) for each in ceilings]
    rows = copy.deepcopy(list(peers))
    for row in rows:
        ceiling = ceiling_of(known, row)
        for latency in row["latency"]:
            if ceiling and "tflops" in latency:
                best = ceiling["peak_tflops"] or ceiling["tflops"]
                latency["mfu_percent"] = float(f"{100 * latency['tflops'] / best:.4g}")
                latency["mfu_of_tflops"] = best
    return {
        "schema": SCHEMA,
        "kind": kind,
        "complete": complete,
        "machine": machine,
        "method": method,
        "subject": subject,
        "ceilings": known,
        "peers": rows,
    }


def ceiling_of(ceilings: Sequence[dict[str, Any]], peer: dict[str, Any]) -> dict[str, Any] | None:
    """What the device of a peer reaches in its precision; on a CPU always that of FP32."""
    precision = peer["precision"] if peer["device"] == "gpu" else "fp32"
    return next((each for each in ceilings if (each["device"], each["precision"]) == (peer["device"], precision)), None)


def floor_ms(subject: dict[str, Any], ceiling: dict[str, Any], batch: int) -> float:
    """The roofline: milliseconds that the arithmetic takes at best, or reading the weights once, whichever is more."""
    width = {"fp32": 4, "fp16": 2, "bf16": 2}[ceiling["precision"]]
    arithmetic = batch * subject["flops"] / (ceiling["tflops"] * 1e12)
    weights = subject["parameters"] * width / (ceiling["gb_per_s"] * 1e9)
    return 1000 * max(arithmetic, weights)


def _with_peak(ceiling: dict[str, Any], gpu: str | None) -> dict[str, Any]:
    peak, source = peak_tflops(gpu if ceiling["device"] == "gpu" else None, ceiling["precision"])
    return {**ceiling, "peak_tflops": peak, "peak_source": source}
