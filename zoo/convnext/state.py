"""A row of training that can go on where it stopped: weights, the optimiser's moments, the scaler, what was measured.

One safetensors file, the rest as JSON in its header: written whole or not at all, and reading it runs no code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from runtime.errors import InputError
from runtime.files import atomic_path

_KEY, _FORMAT = "row", 1
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Record:
    """What a row has done: of each epoch its seconds, mean loss, and the share of validation pictures it gets right."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    compile_seconds: float | None = None


def save_state(
    path: str | os.PathLike[str],
    about: Mapping[str, Any],
    record: Record,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write the row's state; `about` is what a run that goes on must have in common with this one."""
    from safetensors.torch import save_file

    tensors = {}
    for name, weight in model.named_parameters():
        tensors[f"weight.{name}"] = weight.detach()
        for key, value in optimiser.state.get(weight, {}).items():
            tensors[f"optimiser.{key}.{name}"] = value.detach()
    header = {"format": _FORMAT, "about": dict(about), "record": vars(record), "scaler": scaler.state_dict()}
    with atomic_path(path) as temporary:
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})


def load_state(
    path: str | os.PathLike[str],
    about: Mapping[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> Record:
    """Fill model, optimiser and scaler from `path`; returns the record.

    Raises InputError for a file that is no such state, or of another run: what differs is named.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header, record = _header(path, (file.metadata() or {}).get(_KEY, ""))
            for name, mine in about.items():
                if (theirs := header["about"].get(name)) != mine:
                    raise InputError(f"{path} is of a run with {name} {theirs}, not {mine}; give another --out folder")
            names = set(file.keys())
            for name, weight in model.named_parameters():
                wanted = [f"weight.{name}", *(f"optimiser.{key}.{name}" for key in _MOMENTS)]
                if missing := [each for each in wanted if each not in names]:
                    raise InputError(f"{path} lacks {missing[0]}: it is no whole state; remove it to start anew")
                for each in wanted:
                    shape = list(file.get_slice(each).get_shape())
                    if shape != ([] if ".step." in each else list(weight.shape)):
                        raise InputError(f"{path} holds {each} {shape}, expected {list(weight.shape)}; remove it")
                weight.data.copy_(file.get_tensor(wanted[0]))
                moments = {key: file.get_tensor(each) for key, each in zip(_MOMENTS, wanted[1:], strict=True)}
                fused = weight.device if optimiser.defaults.get("fused") else torch.device("cpu")
                optimiser.state[weight] = {
                    key: value.to(fused if key == "step" else weight.device) for key, value in moments.items()
                }
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot go on from {path} ({str(error)[:200]}); remove it to start anew") from error
    if header["scaler"]:
        scaler.load_state_dict(header["scaler"])
    return record


def _header(path: str | os.PathLike[str], text: str) -> tuple[dict[str, Any], Record]:
    try:
        header: dict[str, Any] = json.loads(text)
        record = Record(**header["record"])
        if header["format"] != _FORMAT or not isinstance(header["about"], dict):
            raise ValueError
        for epoch in record.epochs:
            float(epoch["seconds"]) + float(epoch["loss"]) + float(epoch["accuracy"])
        scaler = header["scaler"]
        if scaler and not 0 < float(scaler["scale"]) <= 2.0**32:
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} has no record of a row of training; remove it to start anew") from error
    return header, record
