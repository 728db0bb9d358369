"""What was measured of linear layers on a GPU, kept beside TensorRT's timing cache, so that it is measured once.

`linear.json` maps a hash of what was measured to the milliseconds of each combination of forms.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from runtime.errors import ToolchainError
from runtime.files import exclusive, write_text

Times = dict[tuple[str, ...], float]
FILE = "linear.json"
_MOST_BYTES = 16 << 20


def read_times(path: Path) -> dict[str, Times]:
    """What the file holds; nothing where it is missing or damaged, which costs a new measurement and no more."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        content = json.loads(data) if len(data) <= _MOST_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: times for key, value in content.items() if (times := _times(value))}


def add_times(path: Path, new: Mapping[str, Times]) -> None:
    """Add what was measured. Raises ToolchainError where the file cannot be written."""
    try:
        with exclusive(path):
            content = {**read_times(path), **new}
            texts = {
                key: {" ".join(forms): milliseconds for forms, milliseconds in times.items()}
                for key, times in content.items()
            }
            write_text(path, json.dumps(texts, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise ToolchainError(f"cannot write {path}: {error.strerror or error}") from error


def _times(value: object) -> Times:
    if not isinstance(value, dict):
        return {}
    fine = all(isinstance(number, float) and math.isfinite(number) and number > 0 for number in value.values())
    return {tuple(str(forms).split()): number for forms, number in value.items()} if fine else {}
