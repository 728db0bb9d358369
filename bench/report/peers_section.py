"""A checkpoint beside its peers: latency against the floor, start-up by stage, PSNR, and the pictures themselves."""

from __future__ import annotations

from typing import Any

from bench.report.document import Block, Figure, Heading, Paragraph, Picture, Table
from bench.report.found import Result
from bench.report.svg import COLOURS, Bar, bars
from bench.results import ceiling_of, floor_ms
from bench.sheet import GAIN, pictured
from bench.tables import batches, latency, number, peer_rows


def peers_section(result: Result) -> list[Block]:
    """All of one result file of kind "peers"."""
    content, name = result.content, result.name
    subject = content["subject"]
    title = f"{subject['checkpoint']} {subject['precision']} on {result.place}"
    blocks: list[Block] = [Heading(title), Paragraph(_about(content))]
    if not any(peer["latency"] for peer in content["peers"]):
        return [*blocks, Paragraph("Nothing could be measured."), *_absent(content)]
    for batch in batches(content, "network"):
        blocks.append(_latency_bars(content, name, batch))
    head, rows = peer_rows(content)
    blocks += [
        Paragraph("Milliseconds as median ± spread (the highest less the lowest median of a round)."),
        Table(head, rows),
    ]
    blocks += [*_startup(content, name), *_engines(content), *_steps(content), *_absent(content), *_pictures(result)]
    return blocks


def _about(content: dict[str, Any]) -> str:
    subject, machine = content["subject"], content["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    work = f"{subject['parameters'] / 1e6:.0f} M parameters, {subject['tokens']} tokens"
    share = 100 * subject["attention_flops"] / subject["flops"]
    ceilings = "; ".join(map(_ceiling, content["ceilings"]))
    unfinished = "" if content["complete"] else " The run was interrupted: what stands here is what it had by then."
    driver = f", driver {machine['driver']}" if machine["gpu"] else ""
    return (
        f"{work}, {subject['flops'] / 1e12:.3g} TFLOP an image ({share:.0f} % of it attention). "
        f"Measured {machine['date']}{driver}, Python {machine['python']}, {versions}, by `{machine['command']}`. "
        f"In the same run {ceilings}.{unfinished}"
    )


def _ceiling(told: dict[str, Any]) -> str:
    peak = f" (its vendor's peak: {number(told['peak_tflops'])})" if told["peak_tflops"] else ""
    rate = f"{number(told['tflops'])} TFLOP/s{peak} in {told['precision']} and {number(told['gb_per_s'])} GB/s"
    return f"the {told['device'].upper()} reached {rate}"


def _latency_bars(content: dict[str, Any], name: str, batch: int) -> Figure:
    timed = [peer for peer in content["peers"] if latency(peer, "network", batch)]
    # A CPU beside GPUs takes a thousand times as long: it stands in the table only, or nothing else could be seen.
    device = "gpu" if any(peer["device"] == "gpu" for peer in timed) else "cpu"
    items: list[Bar] = []
    floors: dict[float, None] = {}
    for peer in (peer for peer in timed if peer["device"] == device):
        row = latency(peer, "network", batch)
        assert row is not None
        mfu = f", {row['mfu_percent']:.0f} % MFU" if "mfu_percent" in row else ""
        ms = row["ms"]
        items.append(Bar(peer["name"], ms["median"], colour_of(peer["name"]), ms["low"], ms["high"], mfu))
        if ceiling := ceiling_of(content["ceilings"], peer):
            floors[floor_ms(content["subject"], ceiling, batch)] = None
    items.sort(key=lambda item: item.value)
    floor = ("floor", min(floors)) if floors else None
    caption = (
        f"Network latency at batch {batch}, fastest first; the whisker is the spread. The floor is the roofline: the "
        "arithmetic at the rate of a large matrix product, or reading the weights once, whichever takes longer."
    )
    return Figure(f"{name}_batch{batch}", bars(items, "ms", floor), caption)


def colour_of(name: str) -> str:
    """By what runs it."""
    kinds = ("torch", "onnxruntime", "tensorrt")
    return next((COLOURS[kind] for kind in kinds if name.startswith(kind)), COLOURS["other"])


def _startup(content: dict[str, Any], name: str) -> list[Block]:
    items = []
    for peer in content["peers"]:
        if "startup" in peer:
            told = peer["startup"]
            note = "" if told["alone"] else " (beside others)"
            items.append(
                Bar(peer["name"], sum(told["seconds"].values()), "", note=note, parts=list(told["seconds"].items()))
            )
    if not items:
        return []
    items.sort(key=lambda item: item.value)
    stages = list(dict.fromkeys(stage for item in items for stage, _ in item.parts))
    # Compilers take minutes, and start beside others: drawn together with them, no stage of an engine could be seen.
    drawn = [item for item in items if not item.note] or items
    rows = [[item.label + item.note, *(number(dict(item.parts).get(stage)) for stage in stages)] for item in items]
    caption = (
        "Start-up in fresh processes, from process start to the first picture and whatever makes the second one fast."
    )
    return [
        Figure(f"{name}_startup", bars(drawn, "s"), caption),
        Table(["start-up, s", *stages], rows),
    ]


def _engines(content: dict[str, Any]) -> list[Block]:
    rows = []
    for peer in content["peers"]:
        if engine := peer.get("engine"):
            scores = engine["gate"]["scores"] or engine["gate"]["proxy_scores"]
            by = "" if engine["gate"]["scores"] or not scores else " by proxy"
            rows.append([
                peer["name"], engine["flavor"], engine["attention"], "-".join(map(str, engine["batch"])),
                f"{engine['bytes'] / 1e6:.0f}", f"{engine['build_seconds']:.0f}",
                f"{engine['gate']['state']}{f', worst {min(map(float, scores)):.1f} dB{by}' if scores else ''}",
            ])  # fmt: skip
    head = ["engine", "flavor", "attention", "batch", "MB", "build s", "gate"]
    return [Table(head, rows)] if rows else []


def _steps(content: dict[str, Any]) -> list[Block]:
    rows = [
        [
            step["command"],
            number(step["seconds"]),
            f"{step['peak_memory_bytes'] / 1e6:.0f}",
            f"{step['bytes'] / 1e6:.0f}",
        ]
        for step in content.get("steps", ())
    ]
    return [Table(["step", "s", "peak memory MB", "file MB"], rows)] if rows else []


def _absent(content: dict[str, Any]) -> list[Block]:
    rows = [[peer["name"], peer["status"], peer["reason"]] for peer in content["peers"] if peer.get("reason")]
    return [Table(["not, or not wholly measured", "state", "why"], rows)] if rows else []


def _pictures(result: Result) -> list[Block]:
    path = result.path.with_name(f"{result.name}_pictures.jpg")
    if not path.is_file():
        return []
    shown = pictured(result.content)
    caption = (
        f"From the left: the picture given, FP32 PyTorch's answer, that of {shown}, {GAIN} times their difference."
    )
    return [Picture(f"{result.name}_pictures", path.read_bytes(), ".jpg", caption)]
