"""The ladder: from the form a network has in research code to the engine and the path around it, one switch a rung."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.conductor import Entry
from bench.lineup import Subject, lineup
from runtime.flavors import Flavor
from runtime.gpu import find_gpus

_ONE_BY_ONE = ("network", "picture")
_STREAMED = ("network", "stream")


def ladder(subject: Subject, flavors: Sequence[Flavor], given: Sequence[tuple[str, Path]] = ()) -> list[Entry]:
    """Rungs in order. `given` engines are rungs of their own above the plugin's, in the order given.

    A rung that cannot be climbed here is listed with the reason, and the next one builds on the last that could.
    """
    peers = {entry.name: entry for entry in lineup(subject, flavors, given)}
    rungs = [*_in_torch(subject, peers), *_in_engines(peers, [name for name, _ in given])]
    top = next((rung for rung in reversed(rungs) if rung.spec), None)
    if top is not None:
        codec = replace(
            top, name="codec", about="codecs chosen by measuring", spec={**(top.spec or {}), "codec": ".png"}
        )
        rungs.append(codec)
        rungs.append(
            replace(codec, name="overlap", about="codecs beside the network, many pictures at once", levels=_STREAMED)
        )
    return [replace(rung, most_batch=1, startups=1, levels=rung.levels or _ONE_BY_ONE) for rung in rungs]


def _in_torch(subject: Subject, peers: dict[str, Entry]) -> list[Entry]:
    naive, sdpa = peers["torch-naive"], peers["torch-sdpa"]
    steps = [
        ("research form", "PyTorch eager FP32, attention written out, float pictures", naive, "fp32", "float"),
        ("SDPA", "scaled_dot_product_attention", sdpa, "fp32", "float"),
        (subject.precision, f"weights and activations in {subject.precision}", sdpa, subject.precision, "float"),
        ("uint8 I/O", "uint8 pictures across the bus, normalised on the device", sdpa, subject.precision, "uint8"),
    ]
    rungs = []
    if subject.precision == "fp32":
        del steps[2]
    for name, about, peer, precision, io in steps:
        if not find_gpus():
            if precision != "fp32" and name == subject.precision:
                reason = f"{subject.precision} is a rung for GPUs: on CPUs the rungs are in FP32"
                rungs.append(Entry(name, about, "cpu", precision, sys.executable, None, reason))
                continue
            precision = "fp32"
        rungs.append(
            _switched(
                replace(peer, name=name, about=about, precision=precision, alone=False), precision=precision, io=io
            )
        )
    return rungs


def _in_engines(peers: dict[str, Entry], given: Sequence[str]) -> list[Entry]:
    if not find_gpus():
        rung = replace(peers["onnxruntime-cpu"], name="ONNX Runtime", about="the exported graph, in ONNX Runtime")
        return [_switched(rung)]
    forms = {
        "decomposed": "TensorRT",
        "native": "native attention",
        "plugin": "fused attention",
        "plugin-linear": "fused linear layers",
    }
    rungs = []
    for name, peer in peers.items():
        form = name.partition("-")[2]
        if peer.spec and peer.spec["kind"] == "tensorrt" and name not in given and form in forms:
            rungs.append(_switched(replace(peer, name=forms[form]), cuda_graph=False))
    rungs += [_switched(peers[name], cuda_graph=False) for name in given]
    top = next((rung for rung in reversed(rungs) if rung.spec), None)
    if top is not None:
        rungs.append(
            _switched(replace(top, name="CUDA graph", about="one launch for the whole network"), cuda_graph=True)
        )
    return rungs


def _switched(entry: Entry, **switches: Any) -> Entry:
    """`entry` with these in its spec, and research code's codecs until their own rung."""
    return replace(entry, spec={**entry.spec, "codec": "research", **switches} if entry.spec else None)
