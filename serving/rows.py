"""Triton's arrays ↔ a function's values. A request may hold several rows, each a request of its own to a function."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.function import BAD_INPUT, OK, TOO_LARGE, Answer, Field, Refusal, Value, checked

# Every function has these outputs beside its own. Triton knows one error for a whole batch only; so what is wrong with
# one request is told in its own response.
STATUS = Field("status", "int32", "200, or why there is no answer, with HTTP's meaning")
REASON = Field("reason", "text", "what was wrong and what to do; empty with status 200")

# Parameters of a request (not inputs): any JSON client can send them.
ID_PARAMETER = "id"
BASE64_PARAMETER = "base64"

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_DTYPES = {"bytes": np.bytes_, "text": np.bytes_, "int32": np.int32, "float32": np.float32, "bool": np.bool_}
_EMPTY: dict[str, Value] = {"bytes": b"", "text": b"", "int32": 0, "float32": 0.0, "bool": False}


def numpy_type(field: Field) -> type[np.generic]:
    """The numpy type that Triton is told; `bytes` and `text` are its BYTES."""
    return _DTYPES[field.kind]


def request_id(parameters: Mapping[str, Any]) -> str:
    """The id that the request has in its parameter `id`, where it is fit for a log, else a new one."""
    given = parameters.get(ID_PARAMETER)
    return given if isinstance(given, str) and _ID.fullmatch(given) else secrets.token_hex(8)


def rows_of(data: Mapping[str, np.ndarray], batched: bool) -> list[dict[str, Value]]:
    """The values of each row. Arrays are `[B,1]`, or `[1]` without batches; Triton has checked that they are."""
    flat = {name: array.reshape(-1) for name, array in data.items()}
    count = max((len(array) for array in flat.values()), default=0) if batched else 1
    return [{name: _python(array[row]) for name, array in flat.items()} for row in range(count)]


def values_of(fields: Sequence[Field], row: Mapping[str, Value], parameters: Mapping[str, Any]) -> dict[str, Value]:
    """The row's values, checked by their fields. Raises Refusal.

    With the parameter `base64`, what is of kind `bytes` is base64 in ASCII, since JSON has no bytes.
    """
    if not parameters.get(BASE64_PARAMETER):
        return checked(fields, row)
    kinds = {each.name: each for each in fields}
    return checked(fields, {name: _from_base64(kinds.get(name), value) for name, value in row.items()})


def response(
    outputs: Sequence[Field], results: Sequence[Answer | Refusal], parameters: Mapping[str, Any], batched: bool
) -> dict[str, np.ndarray]:
    """One array for each output and for status and reason, `[B,1]` (without batches `[1]`)."""
    shape = (len(results), 1) if batched else (1,)
    encode = bool(parameters.get(BASE64_PARAMETER))
    columns: dict[str, list[Any]] = {each.name: [] for each in (*outputs, STATUS, REASON)}
    for result in results:
        status, reason, values = OK, "", {}
        if isinstance(result, Refusal):
            status, reason = result.status, result.reason
        else:
            values = dict(result.values)
        for each in outputs:
            columns[each.name].append(_triton(each, values.get(each.name, _EMPTY[each.kind]), encode))
        columns["status"].append(status)
        columns["reason"].append(reason.encode())
    made = {}
    for each in (*outputs, STATUS, REASON):
        # Bytes go in arrays of objects: numpy's own byte strings lose zeros at their end.
        dtype = object if numpy_type(each) is np.bytes_ else numpy_type(each)
        array = np.empty(len(results), dtype)
        array[:] = columns[each.name]
        made[each.name] = array.reshape(shape)
    return made


def _python(value: Any) -> Value:
    return value if isinstance(value, (bytes, str)) else value.item()


def _triton(field: Field, value: Value, encode: bool) -> Value:
    raw = value.encode() if isinstance(value, str) else value
    return base64.b64encode(raw) if encode and field.kind == "bytes" and isinstance(raw, bytes) else raw


def _from_base64(field: Field | None, value: Value) -> Value:
    if field is None or field.kind != "bytes" or not isinstance(value, (bytes, str)):
        return value
    if field.most is not None and len(value) > 4 * ((field.most + 2) // 3):
        raise Refusal(
            TOO_LARGE, f"{field.name} has some {3 * len(value) // 4} bytes; at most {field.most:.0f} are taken"
        )
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(
            BAD_INPUT, f"{field.name} is not base64 ({error}); leave the parameter base64 out for bytes"
        ) from error
