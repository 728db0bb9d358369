"""What the GPU's clock and power were while something was timed: under sustained load both are limits of their own."""

from __future__ import annotations

import statistics
import subprocess
from typing import Any

_EVERY_MS = 20
_FIELDS = ("clocks.sm", "clocks.max.sm", "power.draw", "power.limit")


class Clocks:
    """Asks `nvidia-smi` every 20 ms while in the `with` block; `said` tells it afterwards.

    Without `nvidia-smi`, or in a block too short for an answer, `said` has the reason instead.
    """

    def __init__(self, gpu: int = 0):
        self._command = [
            "nvidia-smi",
            f"--id={gpu}",
            f"--query-gpu={','.join(_FIELDS)}",
            "--format=csv,noheader,nounits",
            f"--loop-ms={_EVERY_MS}",
        ]
        self._process: subprocess.Popen[str] | None = None
        self.said: dict[str, Any] = {"why_not": "not asked yet"}

    def __enter__(self) -> Clocks:
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError as error:
            self.said = {"why_not": f"nvidia-smi: {error.strerror or error}"}
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            text, _ = self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            text, _ = self._process.communicate()
        self._process = None
        self.said = _summary(text)


def _summary(text: str) -> dict[str, Any]:
    rows = []
    for line in text.splitlines():
        try:
            row = [float(cell) for cell in line.split(",")]
        except ValueError:  # cut off in the middle, or a field that this GPU does not tell
            continue
        if len(row) == len(_FIELDS):
            rows.append(row)
    if not rows:
        return {"why_not": "nvidia-smi told nothing in that time"}
    clock, most_clock, power, most_power = (sorted(column) for column in zip(*rows, strict=True))
    return {
        "sm_mhz": {"median": statistics.median(clock), "least": clock[0], "most": clock[-1], "limit": most_clock[-1]},
        "watts": {"median": statistics.median(power), "most": power[-1], "limit": most_power[-1]},
        "samples": len(rows),
    }
