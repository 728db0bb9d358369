#!/usr/bin/env python3
"""Measures what works without a GPU and files it: export, ahead-of-time builds and their PSNR by proxy.

    .venv/bin/python scripts/record_no_gpu.py --models models/tiny-128 models/500m-256 --out bench/results/no_gpu.json
    .venv/bin/python scripts/record_no_gpu.py --table bench/results/no_gpu.json      # the table in the README

Each step is the real command in a process of its own, so that its seconds and peak memory are a user's. Rows are added
to the file as they come; a row measured again replaces the old one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "tensorrt-rtx-cu13-bindings")


def measure(*words: str) -> dict[str, Any]:
    """Run `cat2dog words --json`; its answer, with wall seconds and peak memory of the whole process in bytes."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "cli", *words, "--json"], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    answer = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"cat2dog {' '.join(words)} failed with {os.waitstatus_to_exitcode(status)}")
    peak = usage.ru_maxrss * 1024
    return {"answer": json.loads(answer), "wall_seconds": round(seconds, 2), "peak_memory_bytes": peak}


def export_row(model: str, precision: str) -> dict[str, Any]:
    """One export, forced by removing the manifest of the last one."""
    Path(f"build/onnx/{Path(model).name}_{precision}.json").unlink(missing_ok=True)
    got = measure("export", "--model", model, "--precision", precision)
    weights = Path(model, "model.safetensors").stat().st_size
    return {
        "step": "export", "model": Path(model).name, "precision": precision, "wall_seconds": got["wall_seconds"],
        "peak_memory_bytes": got["peak_memory_bytes"], "checkpoint_bytes": weights,
        "attention_nodes": got["answer"]["attention_nodes"],
    }  # fmt: skip


def build_row(model: str, precision: str, attention: str) -> dict[str, Any]:
    """One ahead-of-time build, and the seconds of asking for it again."""
    words = ("build", "--model", model, "--precision", precision, "--attention", attention, "--flavor", "tensorrt_rtx")
    answer = measure(*words, "--force")["answer"]
    again = measure(*words)
    assert not again["answer"]["fresh"]
    gate = answer["gate"]
    return {
        "step": "build", "model": Path(model).name, "precision": precision, "attention": attention,
        "build_seconds": answer["build_seconds"], "peak_memory_bytes": answer["peak_memory_bytes"],
        "plan_bytes": answer["size"], "targets": answer["targets"], "flavor_version": answer["flavor_version"],
        "gate": gate["state"], "proxy_psnr_db": gate["proxy_scores"], "seconds_again": again["wall_seconds"],
    }  # fmt: skip


def record(row: dict[str, Any], path: Path) -> None:
    """Add a row with machine, versions and date."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    identity = ("step", "model", "precision", "attention")
    rows = [old for old in rows if any(old.get(name) != row.get(name) for name in identity)]
    row["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    row["versions"] = {package: version(package) for package in PACKAGES}
    row["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, no GPU, Python {platform.python_version()}"
    command = "scripts/record_no_gpu.py --models models/... --out bench/results/no_gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"command": command, "rows": [*rows, row]}, indent=1) + "\n")
    print(json.dumps(row), flush=True)


def table(path: Path) -> str:
    """The README's table, as Markdown."""
    from cat2dog.config import NAMED

    rows = sorted(json.loads(path.read_text())["rows"], key=lambda row: list(NAMED).index(row["model"]))
    exports = {(row["model"], row["precision"]): row for row in rows if row["step"] == "export"}
    lines = [
        "| checkpoint | precision | attention | export s (GB) | build s (GB) | plan MB | worst PSNR dB, by proxy |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["step"] == "build":
            export = exports.pop((row["model"], row["precision"]), None)
            made = _cost(export, "wall_seconds") if export else ""
            built = _cost(row, "build_seconds")
            worst = f"{min(float(score) for score in row['proxy_psnr_db']):.1f} of {len(row['proxy_psnr_db'])}"
            cells = (
                row["model"],
                row["precision"],
                row["attention"],
                made,
                built,
                f"{row['plan_bytes'] / 1e6:.0f}",
                worst,
            )
            lines.append("| " + " | ".join(cells) + " |")
    for (model, precision), row in exports.items():
        lines.append(f"| {model} | {precision} |  | {_cost(row, 'wall_seconds')} |  |  |  |")
    return "\n".join(lines)


def _cost(row: dict[str, Any], seconds: str) -> str:
    return f"{row[seconds]:.0f} ({row['peak_memory_bytes'] / 1e9:.1f})"


def main() -> None:
    """Measure, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="example: see the head of this file")
    parser.add_argument("--models", nargs="+", default=["models/tiny-128"], metavar="FOLDER")
    parser.add_argument("--precisions", nargs="+", default=["fp16", "bf16"])
    parser.add_argument("--attention", nargs="*", default=["native", "decomposed"], help="none: export only")
    parser.add_argument("--out", type=Path, default=Path("bench/results/no_gpu.json"))
    parser.add_argument("--table", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    for model in args.models:
        if not Path(model, "config.json").exists():
            measure("init", "--model", model)
        for precision in args.precisions:
            record(export_row(model, precision), args.out)
            for attention in args.attention:
                record(build_row(model, precision, attention), args.out)


if __name__ == "__main__":
    main()
