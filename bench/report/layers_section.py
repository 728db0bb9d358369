"""Where the time goes: an engine's layers as a flame, from the whole network down to each layer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.report.document import Block, Figure, Heading, Paragraph, Table
from bench.report.found import Result
from bench.report.svg import flame
from bench.tables import number

# What a layer's name or type says of it, the first that fits.
_KINDS = (
    ("attention", "#d55e00", r"attention.*plugin|FusedAttention|/attend|\battention\b(?!.*\.(qkv|out))"),
    ("linear, norm and what is fused with them", "#0072b2", r"Myelin|MatrixMultiply|FusedLinear|MatMul|gemm|\.weight"),
    ("copies and casts", "#999999", r"Reformat|Cast|FusedPixels|Shuffle|NoOp|Constant"),
)
_OTHER = ("other", "#009e73")


def layers_section(results: Sequence[Result], engine_files: Sequence[Path]) -> list[Block]:
    """A flame for every engine whose layers were timed; the newer way of measuring first."""
    blocks: list[Block] = []
    for result in results:
        for peer in result.content["peers"]:
            if peer.get("layers"):
                name = f"{result.name} {peer['name']}"
                blocks += _flame(name, peer["layers"])
    for path in engine_files:
        for row in json.loads(path.read_text("utf-8"))["engines"]:
            if row.get("layers"):
                blocks += _flame(row["engine"].removesuffix(".engine"), row["layers"])
    if not blocks:
        return []
    about = (
        "Each layer as TensorRT's profiler times it, without a CUDA graph and with the profiler's own cost: shares say "
        "more than sums. The top row is the network, then what kind of work it is, then blocks, then layers in order."
    )
    return [Heading("Where the time goes"), Paragraph(about), *blocks]


def _flame(name: str, layers: Sequence[dict[str, Any]]) -> list[Block]:
    known = [(layer["name"], layer["us"], *_kind(layer)) for layer in layers if layer["us"] > 0]
    total = sum(us for _, us, _, _ in known)
    kinds = _summed((kind, us, colour) for _, us, kind, colour in known)
    blocks = _grouped((_block(layer), us, "#777777") for layer, us, _, _ in known)
    rows = [[("network", total, "#444444")], kinds, blocks, [(layer, us, colour) for layer, us, _, colour in known]]
    file = re.sub(r"[^\w.-]+", "_", name)
    shares = [[kind, number(us), f"{100 * us / total:.1f}"] for kind, us, _ in kinds]
    return [
        Figure(f"layers_{file}", flame(rows, "µs"), f"{name}: {number(total)} µs in {len(known)} layers."),
        Table([name, "µs", "%"], shares),
    ]


def _kind(layer: dict[str, Any]) -> tuple[str, str]:
    text = f"{layer['name']} {layer.get('type') or ''}"
    if re.search("Plugin", layer.get("type") or ""):
        return (_KINDS[0] if re.search("/Attention|FusedAttention", layer["name"]) else _KINDS[1])[:2]
    return next(((kind, colour) for kind, colour, pattern in _KINDS if re.search(pattern, text)), _OTHER)


def _block(name: str) -> str:
    found = re.search(r"blocks[./](\d+)", name)
    return f"{found[1]}" if found else "ends"


def _summed(parts: Iterable[tuple[str, float, str]]) -> list[tuple[str, float, str]]:
    sums: dict[tuple[str, str], float] = {}
    for name, us, colour in parts:
        sums[name, colour] = sums.get((name, colour), 0.0) + us
    return sorted(((name, us, colour) for (name, colour), us in sums.items()), key=lambda part: -part[1])


def _grouped(parts: Iterable[tuple[str, float, str]]) -> list[tuple[str, float, str]]:
    """Neighbours of one name become one part."""
    out: list[tuple[str, float, str]] = []
    for name, us, colour in parts:
        if out and out[-1][0] == name:
            out[-1] = (name, out[-1][1] + us, colour)
        else:
            out.append((name, us, "#777777" if len(out) % 2 else "#999999"))
    return out
