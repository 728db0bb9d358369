"""What is to be known of a finished training run, for `run.json` beside its checkpoint."""

from __future__ import annotations

import datetime
import platform
import shutil
import subprocess
from typing import Any

from training.draw import VERSION
from training.state import Record


def run_record(command: str, record: Record, device: str) -> dict[str, Any]:
    """Command, seed, how long on what, and the versions; the loss is the mean over the last few steps."""
    import numpy as np
    import torch

    cuda = device == "cuda"
    return {
        "command": command,
        "seed": record.seed,
        "steps": record.step,
        "pictures": record.pictures,
        "pairs_drawn": record.next_seed,
        "training_seconds": round(record.seconds, 1),
        "loss": round(record.history[-1][1], 4) if record.history else None,
        "generator_version": VERSION,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "driver": _driver() if cuda else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda if cuda else None,
            "numpy": np.__version__,
        },
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def _driver() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    asked = subprocess.run(
        [command, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return asked.stdout.split("\n")[0].strip() or None
