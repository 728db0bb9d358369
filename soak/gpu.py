"""`python -m soak.gpu`: on a GPU, long runs of a real engine, and the GPU taken away from under it in five ways.

    CAT2DOG_PYTHON_TENSORRT=/path/to/python3.10 python -m soak.gpu --seconds 60

Builds the tiny network's engine, then runs each case (`soak/gpu_cases.py`) in a process of its own, under the Python of
the engine's TensorRT. After each, another process loads the engine and has to get the first answer's bits.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.build import build
from runtime.errors import ToolchainError
from runtime.flavors import Flavor, find_flavor
from soak.gpu_cases import CASES
from soak.result import Broken, measured, promise
from soak.tiny import request_of, validation_of, write_tiny

_ROOT = Path(__file__).resolve().parent.parent
_SLACK_SECONDS = 30


def run(folder: Path, seconds: float, flavor: Flavor) -> dict[str, Any]:
    """Build, then every case; what each said. Raises Broken, with all of them, where promises are not kept."""
    ends = time.monotonic() + seconds
    onnx_file = write_tiny(folder / "onnx/tiny.onnx")
    request = request_of(
        onnx_file, validation_of(onnx_file), folder / "engines", flavor=flavor, targets=(), precision="fp16"
    )
    began = time.monotonic()
    engine = build(request).path
    found: dict[str, Any] = {"build_seconds": round(time.monotonic() - began, 1)}
    first = _case("first", engine, flavor, 1.0)["sha256"]
    long_seconds = max(3.0, (ends - time.monotonic() - 4 * len(CASES)) / 2)
    broken = []
    for name in CASES:
        if name == "first":
            continue
        share = long_seconds if name in ("inferences", "loads") else 1.0
        try:
            found[name] = _case(name, engine, flavor, share)
            promise(_case("first", engine, flavor, 1.0)["sha256"] == first, f"after {name} the engine gives other bits")
        except (Broken, subprocess.TimeoutExpired) as error:  # a GPU is lent for minutes: the other cases are run, too
            broken.append(f"{name}: {' '.join(str(error).split())}")
        print(broken[-1] if broken and broken[-1].startswith(f"{name}:") else f"{name}: {found[name]}", flush=True)
    promise(not broken, "; ".join(broken))
    return found


def _case(name: str, engine: Path, flavor: Flavor, seconds: float) -> dict[str, Any]:
    """What the case reports; how its process ended, where it ended without a report."""
    words = [flavor.python, "-m", "soak.gpu_cases", name, str(engine), flavor.name, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        words, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=seconds + _SLACK_SECONDS
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        report: dict[str, Any] = json.loads(lines[-1])
        promise("broken" not in report, str(report.get("broken")))
        return report
    ended = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
    # A destroyed context may end a process inside the driver; its parent goes on and is told how.
    promise(name == "lost_context" and done.returncode < 0, f"it ended with {ended}: {done.stderr[-500:]}")
    return {"ended": ended}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, file what was said; exit code 1 where a promise was broken, 2 where no GPU or TensorRT is here."""
    parser = argparse.ArgumentParser(prog="python -m soak.gpu", description="Long runs and faults of a GPU.")
    parser.add_argument("--seconds", type=float, default=60, help="about how long (default: 60)")
    parser.add_argument("--flavor", default="tensorrt", help="(default: tensorrt)")
    parser.add_argument("--output", type=Path, help="result file (default: bench/results/reliability/gpu.json)")
    args = parser.parse_args(arguments)
    try:
        flavor = find_flavor(args.flavor)
        if not flavor.can_run:
            print(f"error: {flavor.name} runs no engine here: {flavor.reason}", file=sys.stderr)
            return 2
        with tempfile.TemporaryDirectory(prefix="cat2dog-soak-") as folder:
            measured("gpu", lambda: run(Path(folder), args.seconds, flavor), args.output)
    except (AssertionError, ToolchainError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
