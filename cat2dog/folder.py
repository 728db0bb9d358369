"""Where a checkpoint is: the folder `models/{name}/` with `config.json` and `model.safetensors`. No torch here."""

from __future__ import annotations

import os
from pathlib import Path

from cat2dog.config import nearest_name
from runtime.errors import InputError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def find(folder: str | os.PathLike[str]) -> Path:
    """The folder, if it looks like a checkpoint; otherwise InputError with the nearest that exists or could be made."""
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"{folder} is a file; expected a checkpoint folder with {CONFIG} and {WEIGHTS}")
    if not folder.is_dir():
        beside = [path.parent.name for path in folder.parent.glob(f"[!.]*/{CONFIG}")] if folder.parent.is_dir() else []
        near = nearest_name(folder.name, beside)
        advice = "which is there" if near in beside else f"made by: cat2dog init --model {folder.parent / near}"
        raise InputError(f"no checkpoint {folder}; the nearest is {folder.parent / near}, {advice}")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}; expected a checkpoint folder with {CONFIG} and {WEIGHTS}")
    return folder


def refuse_existing(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """InputError if something is at `folder` and may not, or cannot, be replaced by a checkpoint."""
    folder = Path(folder)
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise InputError(f"{folder} exists already; remove it, or replace it with --overwrite")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} exists and is not a checkpoint, so it is not overwritten; choose another folder")
