"""A trained network as one safetensors file, its config in the header. Reading it runs no code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import torch

from runtime.errors import InputError
from runtime.files import atomic_path
from zoo.convnext.config import Config
from zoo.convnext.model import ConvNeXt

_KEY = "convnext"


def save(path: str | os.PathLike[str], model: ConvNeXt) -> None:
    """Write `model`, FP32, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: weight.detach().float().cpu().contiguous() for name, weight in model.named_parameters()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(asdict(model.config))})


def load(path: str | os.PathLike[str]) -> ConvNeXt:
    """The network of a file, FP32 on the CPU, in eval mode.

    Raises InputError for a file that is no such checkpoint, or whose weights are not those that its config asks for;
    nothing is allocated for it before both are known to fit.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            config = config_of((file.metadata() or {}).get(_KEY, ""), str(path))
            with torch.device("meta"):
                expected = {name: list(weight.shape) for name, weight in ConvNeXt(config).named_parameters()}
            given = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
            for name in (name for name in sorted({*given, *expected}) if given.get(name) != expected.get(name)):
                raise InputError(
                    f"{path} holds {name} {given.get(name, 'not at all')}, expected {expected.get(name, 'not at all')}"
                )
            tensors = {name: file.get_tensor(name) for name in given}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is no checkpoint of a ConvNeXt ({str(error)[:200]}): give a .safetensors file"
        ) from error
    with torch.device("meta"):
        model = ConvNeXt(config)
    model.load_state_dict(tensors, assign=True)
    return model.float().requires_grad_(True).eval()


def config_of(text: str, name: str) -> Config:
    """The config that a header holds as JSON. Raises InputError, naming the file, for anything else."""
    try:
        told: dict[str, Any] = json.loads(text)
        return Config(**{**told, "blocks": tuple(told["blocks"]), "channels": tuple(told["channels"])})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{name} has no config of a ConvNeXt in its header: give a file that zoo.convnext wrote"
        ) from error
