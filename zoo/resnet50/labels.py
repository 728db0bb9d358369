"""Names of the classes: a file's lines, torchvision's list where that is installed, else `class 123`.

`python -m zoo.resnet50.labels` prints them, for a `--labels` file.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from runtime.errors import InputError

CLASSES = 1000
_MOST_BYTES = 1 << 20


def labels_of(path: str | os.PathLike[str] | None) -> list[str]:
    """The 1000 names. Raises InputError where `path` is not a text file with a name a line."""
    return _read(Path(path)) if path is not None else torchvisions() or [f"class {i}" for i in range(CLASSES)]


def torchvisions() -> list[str] | None:
    """The names that come with torchvision, or None. Its one file of lists is read: importing it needs its torch."""
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "models" / "_meta.py"
        if file.is_file():
            return _list_in(file)
    return None


def _list_in(file: Path) -> list[str] | None:
    spec = importlib.util.spec_from_file_location("_torchvision_meta", file)
    if spec is None or spec.loader is None:
        return None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = getattr(module, "_IMAGENET_CATEGORIES", None)
    return list(names) if names is not None and len(names) == CLASSES else None


def _read(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        names = data.decode().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"labels {path} cannot be read: {reason}") from error
    if len(data) > _MOST_BYTES or len(names) != CLASSES:
        raise InputError(f"labels {path} has {len(names)} lines; expected {CLASSES}, a name each")
    if any(ord(character) < 32 for name in names for character in name):
        raise InputError(f"labels {path} has control characters; expected {CLASSES} lines, a name each")
    return names


if __name__ == "__main__":
    sys.stdout.write("".join(f"{name}\n" for name in labels_of(None)))
