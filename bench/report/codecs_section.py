"""Codecs: which library does each step of the path from file to file fastest, at each size."""

from __future__ import annotations

from typing import Any

from bench.report.document import Block, Figure, Heading, Paragraph, Table
from bench.report.found import Result
from bench.report.svg import COLOURS, Bar, bars
from bench.tables import number

_SHOWN = ("decode and fit", "encode png", "encode jpeg", "encode webp")


def codecs_section(result: Result) -> list[Block]:
    """All of one result file of kind "codecs"."""
    content = result.content
    machine = content["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    rows = content["codecs"]
    sizes = sorted({row["pixels"] for row in rows})
    blocks: list[Block] = [
        Heading(f"Codecs on {result.place}"),
        Paragraph(
            f"Milliseconds a picture in {content['method']}. `decode and fit` begins with a photo of a camera's size, "
            f"the others with pictures of the size. Measured {machine['date']}, {versions}, by `{machine['command']}`."
        ),
    ]
    for step in _SHOWN:
        blocks += _bars(result.name, [row for row in rows if (row["step"], row["pixels"]) == (step, sizes[0])])
    for step in dict.fromkeys(row["step"] for row in rows):
        blocks.append(_table([row for row in rows if row["step"] == step], sizes))
    return blocks


def _bars(name: str, rows: list[dict[str, Any]]) -> list[Block]:
    items = [
        Bar(_title(row), row["ms"]["median"], _colour(row), row["ms"]["low"], row["ms"]["high"])
        for row in rows
        if "ms" in row
    ]
    if not items:
        return []
    step, side = rows[0]["step"], rows[0]["pixels"]
    items.sort(key=lambda item: item.value)
    caption = f"{step}, {side} px, fastest first."
    return [Figure(f"{name}_{step.replace(' ', '_')}", bars(items, "ms"), caption)]


def _table(rows: list[dict[str, Any]], sizes: list[int]) -> Table:
    step = rows[0]["step"]
    head = [step, *(f"{side} px, ms" for side in sizes), "KB", "worst PSNR dB", "state"]
    lines = []
    for title in dict.fromkeys(map(_title, rows)):
        by_size = {row["pixels"]: row for row in rows if _title(row) == title}
        last = by_size[max(by_size)]
        times = [_ms(by_size.get(side)) for side in sizes]
        kilobytes = " / ".join(
            number(by_size[side]["bytes"] / 1e3) for side in sizes if "bytes" in by_size.get(side, {})
        )
        state = last["status"] if last["status"] == "measured" else f"{last['status']}: {last['reason']}"
        lines.append([title, *times, kilobytes or "-", _psnr(by_size.values()), state])
    return Table(head, lines)


def _title(row: dict[str, Any]) -> str:
    return f"{row['library']}{', ' if row['settings'] else ''}{row['settings'].replace('`', '')}"


def _ms(row: dict[str, Any] | None) -> str:
    return f"{number(row['ms']['median'])} ± {number(row['ms']['spread'])}" if row and "ms" in row else "-"


def _psnr(rows: Any) -> str:
    scores = [row["psnr_db"] for row in rows if "psnr_db" in row]
    if not scores:
        return "-"
    finite = [score for score in scores if score is not None]
    return f"{min(finite):.1f}" if finite else "equal"


def _colour(row: dict[str, Any]) -> str:
    return COLOURS["tensorrt"] if row["library"] == "runtime" else COLOURS["torch"]
