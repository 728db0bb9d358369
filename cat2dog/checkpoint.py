"""Loading and saving of checkpoints: weights are mapped in, and streamed out; a folder appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from cat2dog.config import Config, load_config
from cat2dog.folder import CONFIG, WEIGHTS, find, refuse_existing
from cat2dog.model import Cat2Dog, parameter_shapes
from cat2dog.safetensors_file import read_entries
from cat2dog.tensors import map_tensors, write_fp32
from runtime.errors import InputError, ToolchainError

_LOADABLE = ("F32", "F16", "BF16")
_LISTED = 5


def load(folder: str | os.PathLike[str]) -> Cat2Dog:
    """The FP32 network of a checkpoint, in eval mode, its weights mapped from the file and read when first used.

    Weights stored as F16 or BF16 are widened, which copies them. Raises InputError, in one line, if the folder, its
    config or its weights are missing, damaged, not safetensors, or do not fit the config.
    """
    folder = find(folder)
    config = load_config(folder)
    path = folder / WEIGHTS
    entries = read_entries(path)
    wanted = parameter_shapes(config)
    problems = [
        *(f"missing {name} {list(shape)}" for name, shape in wanted.items() if name not in entries),
        *(f"extra {name[:80]}" for name in entries if name not in wanted),
        *(
            f"{name} is {entries[name].dtype} {list(entries[name].shape)}, expected F32 {list(shape)}"
            for name, shape in wanted.items()
            if name in entries and (entries[name].shape != shape or entries[name].dtype not in _LOADABLE)
        ),
    ]
    if problems:
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(f"{path} does not fit {CONFIG}: {'; '.join(problems[:_LISTED])}{more}")
    with torch.device("meta"):
        model = Cat2Dog(config)
    tensors = {name: tensor.float() for name, tensor in map_tensors(path, entries).items()}
    model.load_state_dict(tensors, assign=True)
    model.fill_tables()
    return model.eval().requires_grad_(False)


def save(
    folder: str | os.PathLike[str],
    config: Config,
    tensors: nn.Module | Iterable[tuple[str, Tensor]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint from a module, or from (name, tensor) pairs as they come: one tensor in memory at a time.

    The folder appears whole, by a rename, or not at all. Raises InputError if it exists and `overwrite` is false, or
    cannot be made; ToolchainError if the disk is full; ValueError if the tensors are not the config's.
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    pairs = tensors.named_parameters() if isinstance(tensors, nn.Module) else tensors
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Not mkdtemp, which makes 0700: a checkpoint is shared like any other. The kernel applies the umask here;
        # reading it means changing it for a moment, in which other threads may write files.
        temporary = folder.parent / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
        temporary.mkdir()
    except OSError as error:
        raise InputError(
            f"cannot make {folder}: {error.strerror or error}; choose a place that can be written"
        ) from None
    try:
        write_fp32(temporary / WEIGHTS, parameter_shapes(config), pairs)
        (temporary / CONFIG).write_text(config.to_json())
        refuse_existing(folder, overwrite)
        _put(temporary, folder)
    except OSError as error:
        raise ToolchainError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, folder: Path) -> None:
    """Rename onto `folder`. POSIX cannot swap folders, so an old one steps aside first and comes back on failure."""
    aside = temporary.with_name(temporary.name + "-old")
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except BaseException:
        if aside.exists():
            os.rename(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
