"""The ladder: what each step from the research form to the engine brought."""

from __future__ import annotations

from bench.report.document import Block, Figure, Heading, Paragraph, Table
from bench.report.found import Result
from bench.report.peers_section import colour_of
from bench.report.svg import Bar, bars
from bench.tables import latency, ms_text, number, psnr_text


def ladder_section(result: Result) -> list[Block]:
    """All of one result file of kind "ladder"."""
    content, subject = result.content, result.content["subject"]
    rows, items = [], []
    before = first = None
    for rung in content["peers"]:
        whole = latency(rung, "picture", 1) or latency(rung, "stream", 1)
        if whole is None:
            rows.append([rung["name"], rung["about"], "-", "-", "-", "-", "-", rung.get("reason", "")])
            continue
        ms = whole["ms"]["median"]
        gain = "-" if before is None else f"{before / ms:.2f}"
        first = first or ms
        network = latency(rung, "network", 1)
        times = [ms_text(network), ms_text(whole), gain, f"{first / ms:.2f}"]
        rows.append([rung["name"], rung["about"], *times, psnr_text(rung), rung.get("reason", "")])
        kind = "torch" if rung["name"] in ("research form", "SDPA", "uint8 I/O", subject["precision"]) else "tensorrt"
        note = f", {first / ms:.3g} times as fast"
        items.append(Bar(rung["name"], ms, colour_of(kind), whole["ms"]["low"], whole["ms"]["high"], note))
        before = ms
    blocks: list[Block] = [
        Heading(f"The ladder: {subject['checkpoint']} on {result.place}"),
        Paragraph(
            "One switch a rung, JPEG bytes to PNG bytes, batch 1; the last rung is milliseconds a picture with many at "
            f"once. Measured {content['machine']['date']} by `{content['machine']['command']}`."
        ),
    ]
    if items:
        caption = "Milliseconds a picture on each rung, and how many times faster than the research form."
        blocks.append(Figure(f"{result.name}_rungs", bars(items, "ms"), caption))
    head = [
        "rung",
        "what changed",
        "network ms",
        "picture ms",
        "times the last",
        "times the first",
        "PSNR dB",
        "not measured",
    ]
    return [*blocks, Table(head, rows)]


def best(result: Result) -> str:
    """How many times faster the last rung is than the first."""
    times = [latency(rung, "picture", 1) or latency(rung, "stream", 1) for rung in result.content["peers"]]
    known = [each["ms"]["median"] for each in times if each]
    return number(known[0] / known[-1]) if known else "-"
