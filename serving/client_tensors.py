"""A client's values ↔ Triton's tensors; what the server refuses, as an exception. Of `serving.client`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Value = bytes | str | int | float | bool

_OK = 200
FAILED = 500
_BUSY = 503
TIMED_OUT = 504


class ServerRefused(Exception):
    """The server's answer is no: `status` with HTTP's meaning, `reason` one line of what to do."""

    def __init__(self, status: int, reason: str):
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason

    @property
    def is_busy(self) -> bool:
        """Whether trying again later may help."""
        return self.status in (_BUSY, TIMED_OUT)


def inputs_of(triton: Any, values: Mapping[str, Value], types: Mapping[str, str], batched: bool = True) -> list[Any]:
    """Triton's inputs, each of one value, of the type that the server names; of the value's own where it has none."""
    inputs = []
    for name, value in values.items():
        array, datatype = _array(float(value) if types.get(name) == "FP32" and type(value) is int else value)
        tensor = triton.InferInput(name, [1, 1] if batched else [1], datatype)
        tensor.set_data_from_numpy(array.reshape(tensor.shape()))
        inputs.append(tensor)
    return inputs


def outputs_of(result: Any) -> dict[str, Value]:
    """The outputs of one answer. Raises ServerRefused where its status is not 200."""
    names = [output.name for output in result.get_response().outputs]
    outputs = {name: result.as_numpy(name).reshape(-1)[0] for name in names}
    status = int(outputs.pop("status", _OK))
    reason = outputs.pop("reason", b"")
    if status != _OK:
        raise ServerRefused(status, reason.decode("utf-8", "replace"))
    return {name: value if isinstance(value, (bytes, str)) else value.item() for name, value in outputs.items()}


def pixels_of(triton: Any, images: np.ndarray) -> list[Any]:
    """uint8 `[B,R,R,3]` as Triton's input."""
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(np.ascontiguousarray(images))
    return [tensor]


def dogs_of(result: Any) -> np.ndarray:
    """uint8 `[B,R,R,3]` of one answer, not to be written to. Raises ServerRefused where its status is not 200."""
    status = int(result.as_numpy("status").reshape(-1)[0])
    if status != _OK:
        raise ServerRefused(status, result.as_numpy("reason").reshape(-1)[0].decode("utf-8", "replace"))
    dogs: np.ndarray = result.as_numpy("dog")
    return dogs


def refused(error: Exception) -> ServerRefused:
    """What Triton itself refused (its queue is full, its time is up, it stops) with the status that HTTP gives it.

    `error` is Triton's client's, or gRPC's own, which async streams end with.
    """
    named = getattr(error, "status", None) or getattr(error, "code", None)
    code = str(named() if named else "").rpartition(".")[2]
    known = {"UNAVAILABLE": _BUSY, "DEADLINE_EXCEEDED": TIMED_OUT, "INVALID_ARGUMENT": 400, "NOT_FOUND": 404}
    told = getattr(error, "message", None) or getattr(error, "details", None)
    message = (told() if told else None) or str(error)
    return ServerRefused(known.get(code, 500), " ".join(str(message).split()))


def parameters(id: str, more: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """What goes along with a request beside its inputs."""
    return {**({"id": id} if id else {}), **(more or {})} or None


def _array(value: Value) -> tuple[np.ndarray, str]:
    if isinstance(value, bool):
        return np.array([value], np.bool_), "BOOL"
    if isinstance(value, int):
        return np.array([value], np.int32), "INT32"
    if isinstance(value, float):
        return np.array([value], np.float32), "FP32"
    array = np.empty(1, object)  # numpy's own byte strings lose zeros at their end
    array[0] = value.encode() if isinstance(value, str) else value
    return array, "BYTES"


def has_outputs(result: Any) -> bool:
    """Whether this is an answer, and not only the end of a stream."""
    return len(result.get_response().outputs) > 0


def is_final(result: Any) -> bool:
    """Whether nothing follows in this stream."""
    parameter = result.get_response().parameters.get("triton_final_response")
    return bool(parameter and parameter.bool_param)
