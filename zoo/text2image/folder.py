"""Is a folder a diffusers pipeline that can be loaded without running anything that came with it? Needs no torch.

Weights are safetensors; classes are those of diffusers and transformers. A pickle, or Python that lies in the folder,
is code of whoever made it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from runtime.errors import InputError

INDEX = "model_index.json"
_INDEX_BYTES = 1 << 20
_LIBRARIES = ("diffusers", "transformers")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Before 0.20 diffusers kept some classes (the safety checker's) under their pipeline's name.
_PIPELINE_MODULE = re.compile(r"[a-z0-9_]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


def components(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class by component, of those that the pipeline in `folder` has.

    Raises InputError for what is no pipeline, needs code of its own, or has pickled weights alone.
    """
    index = _index(folder)
    found = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list):
            continue
        if value == [None, None]:
            continue
        if len(value) != 2 or not all(isinstance(part, str) for part in value) or not _NAME.fullmatch(name):
            raise InputError(
                f"{folder / INDEX}: component '{name[:64]}' is {str(value)[:80]}; expected [library, class]"
            )
        library, kind = value
        if not (library in _LIBRARIES or _is_of_diffusers(library)) or not _NAME.fullmatch(kind):
            raise InputError(
                f"{folder}: component '{name}' is a {kind[:64]} of '{library[:64]}', not of diffusers or transformers; "
                "code that comes with a model is not run"
            )
        found[name] = (library, kind)
        check_weights(folder / name)
    return found


def check_weights(folder: Path) -> None:
    """Raise InputError where `folder` is missing, or its weights are pickled and nothing else."""
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; expected the folder of that component, complete")
    names = [path.name for path in folder.iterdir()]
    pickled = sorted(name for name in names if name.endswith(_PICKLES))
    if pickled and not any(name.endswith(".safetensors") for name in names):
        raise InputError(
            f"{folder / pickled[0]} is pickled, which can run code when it is read; expected safetensors: save the "
            "model again with safe_serialization=True, where you trust it"
        )


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        with open(path, "rb") as file:
            content = file.read(_INDEX_BYTES + 1)
        index = json.loads(content) if len(content) <= _INDEX_BYTES else None
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no diffusers pipeline: it has no {INDEX}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise InputError(
            f"{path} names no pipeline of diffusers in _class_name; code that comes with a model is not run"
        )
    return index


def _is_of_diffusers(library: str) -> bool:
    if not _PIPELINE_MODULE.fullmatch(library):
        return False
    from diffusers import pipelines

    return (Path(pipelines.__path__[0]) / library).is_dir()
