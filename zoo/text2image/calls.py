"""What a pipeline gives its denoiser: seen in a run of it, so that no family needs to be known beforehand."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from runtime.errors import InputError
from runtime.runner import TensorSpec
from zoo.text2image.parts import denoiser_name

# Says how the answer is wrapped, not what it is.
_NOT_INPUTS = ("return_dict",)
Path = tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One call of a denoiser: `tensors` by their path in its keyword arguments, those of one value a sample.

    A scalar timestep is repeated for each sample. `constants` are the other tensors, which depend on the picture's size
    alone (where patches lie, for rotary positions).
    """

    tensors: Mapping[Path, torch.Tensor]
    constants: Mapping[Path, torch.Tensor]

    @classmethod
    def of(cls, parameters: inspect.Signature, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Call:
        """Raises InputError for lists of tensors, such as a ControlNet's."""
        bound = parameters.bind(*arguments, **named).arguments
        found = dict(_tensors({name: value for name, value in bound.items() if name not in _NOT_INPUTS}, ()))
        if not found:
            raise InputError("the denoiser was given no tensors by name; this family of pipelines cannot be exported")
        batch = len(next(iter(found.values())))
        tensors, constants = {}, {}
        for path, tensor in found.items():
            if not tensor.ndim:
                tensors[path] = tensor.expand(batch)
            elif len(tensor) == batch:
                tensors[path] = tensor
            else:
                constants[path] = tensor
        return cls(tensors, constants)

    @property
    def names(self) -> dict[Path, str]:
        """A name for each of `tensors`, as a network's inputs are called: `sample`, `timestep`, `text_embeds`."""
        return {path: path[-1] for path in self.tensors}

    def feed(self) -> dict[str, np.ndarray]:
        """The tensors as arrays, by name."""
        return {self.names[path]: as_array(tensor) for path, tensor in self.tensors.items()}

    def specs(self) -> list[TensorSpec]:
        """The inputs of a network that takes such calls, the batch left open."""
        return [TensorSpec(name, array.dtype.name, (-1, *array.shape[1:])) for name, array in self.feed().items()]


@contextlib.contextmanager
def recorded(pipeline: Any) -> Iterator[list[Call]]:
    """Every call of the pipeline's denoiser within the block."""
    denoiser = getattr(pipeline, denoiser_name(pipeline))
    parameters = inspect.signature(denoiser.forward)
    calls: list[Call] = []

    def hook(module: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        call = Call.of(parameters, arguments, named)
        # The pipeline goes on with the same memory.
        calls.append(
            Call(*({path: t.detach().cpu().clone() for path, t in each.items()} for each in vars(call).values()))
        )

    handle = denoiser.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def nested(values: Mapping[Path, Any]) -> dict[str, Any]:
    """Paths to the dictionaries they are paths of."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = value
    return tree


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor of any device; half precision as float32, which is what a network takes at its door."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).contiguous().numpy()


def _tensors(value: Any, path: Path) -> Iterator[tuple[Path, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _tensors(each, (*path, name))
    elif isinstance(value, (list, tuple)) and any(isinstance(each, torch.Tensor) for each in value):
        raise InputError(
            f"the denoiser takes a list of tensors as '{'.'.join(path)}'; such pipelines cannot be exported"
        )
