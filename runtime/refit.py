"""New weights into an engine that is loaded, without building it again; the engine was built with `refit`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InputError, ToolchainError


@dataclass(frozen=True)
class Refitted:
    """How many weights were set, and seconds: to hand them over, and until TensorRT had them in place."""

    weights: int
    given_seconds: float
    placed_seconds: float


def refit(trt: Any, log: Any, engine: Any, weights: Mapping[str, np.ndarray]) -> Refitted:
    """Replace the weights of `engine` (an ICudaEngine) by those of the same names; nothing may run it meanwhile.

    `weights` are all of the graph that the engine was built from: named, shaped and typed as its initializers. Raises
    InputError where one is missing, unknown or of another size, and nothing is changed then; ToolchainError where
    TensorRT cannot put them in place, and what the engine holds then is undefined.
    """
    began = time.perf_counter()
    refitter = trt.Refitter(engine, log)
    named = {str(name) for name in refitter.get_all_weights()}
    constants = _constants(trt, refitter)
    if not named and not constants:
        raise InputError("this engine takes no new weights: build it with --refit")
    _check_names(named, constants, weights)
    held = []  # TensorRT keeps pointers, not copies, until the end
    for name, array in weights.items():
        held.append(np.ascontiguousarray(array))
        given = _weights(trt, held[-1])
        if name in named:
            done = refitter.set_named_weights(name, given)
        else:
            done = refitter.set_weights(name, trt.WeightsRole.CONSTANT, given)
        if not done:
            raise InputError(f"TensorRT refused {array.dtype} {list(array.shape)} for the weights '{name}'{log.last()}")
    if missing := list(refitter.get_missing_weights()):
        raise InputError(f"TensorRT wants new weights for {_some(missing)}, too, which the new graph does not have")
    placed = time.perf_counter()
    if not refitter.refit_cuda_engine():
        raise ToolchainError(f"TensorRT could not put the new weights in place{log.last()}; load the engine anew")
    end = time.perf_counter()
    return Refitted(len(weights), round(placed - began, 6), round(end - placed, 6))


def _constants(trt: Any, refitter: Any) -> set[str]:
    """Constants that TensorRT knows as layers: its parser names the layer after the initializer, not the weights."""
    layers, roles = refitter.get_all()
    return {str(layer) for layer, role in zip(layers, roles, strict=True) if role == trt.WeightsRole.CONSTANT}


def _check_names(named: set[str], constants: set[str], weights: Mapping[str, np.ndarray]) -> None:
    """A weight that TensorRT does not know would keep its old value, and nobody would see it."""
    if missing := sorted(named - set(weights)):
        raise InputError(
            f"the engine's weights {_some(missing)} are not among those given: give those of its own graph"
        )
    if unknown := sorted(set(weights) - named - constants):
        raise InputError(
            f"the engine knows no weights {_some(unknown)}: another graph, or TensorRT joined them with others when it "
            "built; build an engine of the new graph"
        )


def _weights(trt: Any, array: np.ndarray) -> Any:
    if array.dtype.name == "bfloat16":  # numpy has no such type of its own
        return trt.Weights(trt.DataType.BF16, array.ctypes.data, array.size)
    return trt.Weights(array)


def _some(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
