"""How the cost grows: latency and memory against resolution, batch and model size, beside the floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.report.document import Block, Figure, Heading, Paragraph
from bench.report.found import Result
from bench.report.svg import Line, lines
from bench.results import ceiling_of, floor_ms
from bench.tables import batches, latency

_MOST_LINES = 6


def growth_section(results: Sequence[Result]) -> list[Block]:
    """Figures for everything that was measured at more than one value of what it grows with.

    `results` are of the kinds "peers" and "growth"; where both have a figure of one peer, the former's is shown.
    """
    ordered = sorted(results, key=lambda result: result.content["kind"] == "growth")
    blocks: list[Block] = []
    for result in ordered:
        if len(batches(result.content, "network")) > 1:
            blocks += _by_batch(result, ordered)
    for place in dict.fromkeys(result.place for result in ordered):
        here = [result for result in ordered if result.place == place]
        blocks += _across(here, place, "resolution", _size, lambda subject: subject["resolution"], "pixels a side")
        blocks += _across(
            here, place, "size", _resolution, lambda subject: subject["parameters"] / 1e6, "million parameters"
        )
    if not blocks:
        return []
    about = (
        "Both axes are logarithmic. The dashed line is theory. Of latency it is the roofline of the same machine, "
        "which is flat while reading the weights bounds it and then grows with the arithmetic: with the tokens in "
        "linear layers, with their square in attention. Of memory it is the weights alone, which neither batch nor "
        "resolution changes."
    )
    return [Heading("How the cost grows"), Paragraph(about), *blocks]


def _by_batch(result: Result, all_of_them: Sequence[Result]) -> list[Block]:
    content = result.content
    sizes = batches(content, "network")
    times, memory = [], []
    for peer in _fastest(content):
        points = [(float(batch), row["ms"]["median"]) for batch in sizes if (row := latency(peer, "network", batch))]
        if len(points) > 1:
            times.append(Line(peer["name"], points))
        taken = {int(batch): size / 1e6 for batch, size in peer.get("device_bytes_at", {}).items() if size}
        if len(taken) > 1:
            memory.append(Line(peer["name"], [(float(batch), taken[batch]) for batch in sorted(taken)]))
    if not times:
        return []
    floor = _floor(result, all_of_them, [float(size) for size in sizes])
    name = f"{content['subject']['checkpoint']} on {result.place}"
    blocks: list[Block] = [
        Figure(
            f"{result.name}_by_batch",
            lines([*times, *floor], "images a batch", "ms a batch"),
            f"Latency by batch: {name}.",
        )
    ]
    if memory:
        memory.append(Line("weights", [(float(size), _weights_mb(content)) for size in sizes], dashed=True))
        drawn = lines(memory, "images a batch", "MB")
        blocks.append(Figure(f"{result.name}_memory", drawn, f"Memory by batch (a process's peak on a CPU): {name}."))
    return blocks


def _weights_mb(content: dict[str, Any]) -> float:
    device = content["peers"][0]["device"] if content["peers"] else "gpu"
    width = 4 if device == "cpu" else {"fp32": 4, "fp16": 2, "bf16": 2}[content["subject"]["precision"]]
    return float(content["subject"]["parameters"] * width / 1e6)


def _fastest(content: dict[str, Any]) -> list[dict[str, Any]]:
    first = batches(content, "network")[0]
    timed = [
        (row["ms"]["median"], peer["name"], peer)
        for peer in content["peers"]
        if (row := latency(peer, "network", first))
    ]
    ordered = [peer for _, _, peer in sorted(timed, key=lambda entry: entry[:2])]
    return [peer for peer in ordered if peer["device"] == ordered[0]["device"]][:_MOST_LINES]


def _floor(result: Result, all_of_them: Sequence[Result], sizes: Sequence[float]) -> list[Line]:
    """By what the machine reaches: as this result has it, else as another of the same machine."""
    content = result.content
    fastest = _fastest(content)
    if not fastest:
        return []
    known = [
        *content["ceilings"],
        *(c for each in all_of_them if each.place == result.place for c in each.content["ceilings"]),
    ]
    ceiling = ceiling_of(known, fastest[0])
    if ceiling is None:
        return []
    return [Line("floor", [(size, floor_ms(content["subject"], ceiling, int(size))) for size in sizes], dashed=True)]


def _size(checkpoint: str) -> str:
    return checkpoint.rpartition("-")[0]


def _resolution(checkpoint: str) -> str:
    return checkpoint.rpartition("-")[2] + " px"


def _across(
    results: Sequence[Result],
    place: str,
    what: str,
    family: Callable[[str], str],
    position: Callable[[dict[str, Any]], float],
    title: str,
) -> list[Block]:
    """One figure for each family of checkpoints that differ in this one thing, at batch 1."""
    blocks: list[Block] = []
    keys = dict.fromkeys(
        (family(r.content["subject"]["checkpoint"]), r.content["subject"]["precision"]) for r in results
    )
    for name, precision in keys:
        members = [
            r
            for r in results
            if (family(r.content["subject"]["checkpoint"]), r.content["subject"]["precision"]) == (name, precision)
        ]
        if len({position(r.content["subject"]) for r in members}) < 2:
            continue
        times: dict[str, dict[float, float]] = {}
        memory: dict[str, dict[float, float]] = {}
        floor: dict[float, float] = {}
        weights: dict[float, float] = {}
        for result in members:
            content, x = result.content, float(position(result.content["subject"]))
            for peer in content["peers"]:
                if row := latency(peer, "network", 1):
                    times.setdefault(peer["name"], {}).setdefault(x, row["ms"]["median"])
                if size := peer.get("device_bytes_at", {}).get("1"):
                    memory.setdefault(peer["name"], {}).setdefault(x, size / 1e6)
            for line in _floor(result, results, [1.0]):
                floor.setdefault(x, line.points[0][1])
            weights.setdefault(x, _weights_mb(content))
        for kind, measured, theory, unit in (
            ("Latency", times, Line("floor", sorted(floor.items()), dashed=True), "ms"),
            ("Memory", memory, Line("weights", sorted(weights.items()), dashed=True), "MB"),
        ):
            drawn = [Line(peer, sorted(each.items())) for peer, each in measured.items() if len(each) > 1]
            drawn = sorted(drawn, key=lambda line: line.points[0][1])[:_MOST_LINES]
            if drawn:
                drawn += [theory] if theory.points else []
                suffix = "" if kind == "Latency" else "_memory"
                file = f"by_{what}_{name.replace(' ', '')}_{precision}{suffix}_{len(blocks)}"
                caption = f"{kind} by {what}, batch 1: {name} {precision} on {place}."
                blocks.append(Figure(file, lines(drawn, title, unit), caption))
    return blocks
