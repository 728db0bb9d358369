"""Result files as rows of text: what the terminal, the report and Markdown show alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_DASH = "-"

LEVELS = ("network", "host", "picture", "stream")


def peer_rows(result: dict[str, Any], levels: Sequence[str] = LEVELS) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the peers that were measured: latency at these levels and each batch size, and what else is."""
    columns = [(level, batch) for level in levels for batch in batches(result, level)]
    head = ["peer", "precision", *(f"{level}, batch {batch}" for level, batch in columns)]
    head += ["images/s", "TFLOP/s", "MFU %", "PSNR dB mean (worst)", "start-up s", "memory MB"]
    rows = []
    for peer in (peer for peer in result["peers"] if peer["latency"]):
        cells = [peer["name"], peer["precision"], *(ms_text(latency(peer, *column)) for column in columns)]
        network = [each for each in peer["latency"] if each["level"] == "network"]
        first = latency(peer, "network", batches(result, "network")[0]) if network else None
        best = max((each["images_per_second"] for each in peer["latency"]), default=None)
        cells += [number(best), number((first or {}).get("tflops")), number((first or {}).get("mfu_percent"))]
        rows.append([*cells, psnr_text(peer), startup_text(peer), memory_text(peer)])
    return head, rows


def latency(peer: dict[str, Any], level: str, batch: int) -> dict[str, Any] | None:
    """The latency of a peer at a level and batch size, where it was measured."""
    return next((each for each in peer["latency"] if (each["level"], each["batch"]) == (level, batch)), None)


def batches(result: dict[str, Any], level: str) -> list[int]:
    """The batch sizes that any peer was measured at."""
    return sorted({each["batch"] for peer in result["peers"] for each in peer["latency"] if each["level"] == level})


def ms_text(row: dict[str, Any] | None) -> str:
    """`1.23 ± 0.02`."""
    return _DASH if row is None else f"{number(row['ms']['median'])} ± {number(row['ms']['spread'])}"


def psnr_text(peer: dict[str, Any]) -> str:
    """`60.1 (59.8)`."""
    if "psnr_db" not in peer:
        return _DASH
    mean, worst = peer["psnr_db"]["mean"], peer["psnr_db"]["worst"]
    return "equal" if mean is None else f"{mean:.1f} ({worst:.1f})"


def startup_text(peer: dict[str, Any]) -> str:
    """Seconds from process start to first picture; with ≤ where other peers started beside it."""
    if "startup" not in peer:
        return _DASH
    return f"{'' if peer['startup']['alone'] else '≤ '}{peer['startup']['total']:.1f}"


def memory_text(peer: dict[str, Any]) -> str:
    """MB after the first batch size."""
    return f"{peer['device_bytes'] / 1e6:.0f}" if "device_bytes" in peer else _DASH


def number(value: float | None) -> str:
    """Three digits, as many as a latency is worth."""
    if value is None:
        return _DASH
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.1g}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)])
