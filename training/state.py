"""A run that can go on where it stopped: weights, their average, the optimiser's moments and the record, in one file.

The file is safetensors, with the record as JSON in its header, so it is written whole or not at all, and reading it
runs no code.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cat2dog.config import Config
from runtime.errors import InputError
from runtime.files import atomic_path

_FORMAT = 1


@dataclass
class Record:
    """What happened so far. `seconds` is time spent training; `history` holds (step, loss, learning rate)."""

    step: int = 0
    seconds: float = 0.0
    pictures: int = 0
    next_seed: int = 0
    seed: int = 0
    history: list[tuple[int, float, float]] = field(default_factory=list)


def initial_weights(model: nn.Module, seed: int) -> None:
    """GPT-2's initialisation: normal with deviation 0.02, less by sqrt(2 depth) where a branch joins the stream."""
    generator = torch.Generator().manual_seed(seed)
    depth = len(model.blocks)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            joins = name.endswith(("attention.out.weight", "mlp.down.weight"))
            scale = 0.02 / (2 * depth) ** 0.5 if joins else 0.02
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * scale)
        elif name.endswith("bias"):
            weight.data.zero_()


def save_state(
    path: str | os.PathLike[str],
    config: Config,
    record: Record,
    model: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write the run's state to `path`, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {}
    for name, weight in model.named_parameters():
        tensors[f"weight.{name}"] = weight.detach()
        tensors[f"average.{name}"] = average[name]
        for key, value in optimiser.state.get(weight, {}).items():
            tensors[f"optimiser.{key}.{name}"] = value.detach()
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    header = {"format": _FORMAT, "config": asdict(config), "record": asdict(record)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"run": json.dumps(header)})


def load_state(
    path: str | os.PathLike[str],
    config: Config,
    model: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> Record:
    """Fill model, average and optimiser from `path`; returns the record. InputError if it is not of this config."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            record = _record_of(path, (file.metadata() or {}).get("run", ""), config)
            names = set(file.keys())
            for name, weight in model.named_parameters():
                if {f"weight.{name}", f"average.{name}"} - names:
                    raise InputError(f"{path} lacks {name}: it is not a whole training state; give another")
                shape = list(file.get_slice(f"weight.{name}").get_shape())
                if shape != list(weight.shape):
                    raise InputError(f"{path} holds {name} {shape}, expected {list(weight.shape)}; give another")
                weight.data.copy_(file.get_tensor(f"weight.{name}"))
                average[name].copy_(file.get_tensor(f"average.{name}"))
                moments = {}
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if f"optimiser.{key}.{name}" in names:
                        value = file.get_tensor(f"optimiser.{key}.{name}")
                        moments[key] = (
                            value if key == "step" and weight.device.type == "cpu" else value.to(weight.device)
                        )
                if moments:
                    optimiser.state[weight] = moments
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot resume from {path} ({error}): expected a state.safetensors of training.train"
        ) from None
    return record


def load_weights(folder: str | os.PathLike[str], config: Config, model: nn.Module, average: dict[str, Tensor]) -> None:
    """Fill model and average from a checkpoint folder; InputError if it is not of `config`."""
    from cat2dog.checkpoint import load

    given = load(folder)
    if given.config != config:
        raise InputError(f"{folder} is of another network ({given.config}): expected {config}; give its own --model")
    for name, weight in given.named_parameters():
        model.get_parameter(name).data.copy_(weight)
        average[name].copy_(weight)


def _record_of(path: Path, text: str, config: Config) -> Record:
    try:
        header: dict[str, Any] = json.loads(text)
        known, record = header["config"], Record(**header["record"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} has no record of a run: expected a state.safetensors of training.train") from None
    if known != asdict(config):
        raise InputError(f"{path} is of another network ({known}): expected {asdict(config)}; give its own --model")
    record.history = [tuple(entry) for entry in record.history]
    return record
