"""Parsers of what comes over the network."""

from __future__ import annotations

import numpy as np

from runtime.errors import InputError
from serving.front import _fit, _from_json, _parsed
from serving.function import Field, Refusal, checked
from serving.rows import request_id, rows_of, values_of
from soak.fuzz.targets import Target
from zoo.text2image.request import Request, decoded

_FIELDS = (
    Field("image", "bytes", "a picture", most=1 << 12),
    Field("format", "text", "png or jpeg", optional=True, most=16, choices=("png", "jpeg")),
    Field("steps", "int32", "how many", optional=True, least=1, most=200),
    Field("guidance", "float32", "how much", optional=True, least=0, most=50),
    Field("upscale", "bool", "larger", optional=True),
)
_KINDS = {field.name: field for field in _FIELDS}


def _json_body(data: bytes) -> None:
    checked(_FIELDS, _fit(_from_json(data, _KINDS)))


def _query(data: bytes) -> None:
    name, _, text = data.decode("latin-1").partition("=")
    checked(_FIELDS, _fit({"image": b"", name: _parsed(_KINDS.get(name), name, text)}))


def _row(data: bytes) -> None:
    """As Triton hands it over: arrays of objects, with the parameter base64 for half of the inputs."""
    image = np.empty((1, 1), object)
    image[0, 0] = data[1:]
    parameters = {"id": data[:64].decode("latin-1"), "base64": bool(data[:1] and data[0] & 1)}
    request_id(parameters)
    for row in rows_of({"image": image}, batched=True):
        values_of(_FIELDS, row, parameters)


def _prompt(data: bytes) -> None:
    Request(decoded(data))


TARGETS = (
    Target(
        "json_body", ("serving.front", "serving.function"), _json_body, (Refusal,),
        lambda: [b'{"image": "AAEC", "format": "png", "steps": 4, "guidance": 7.5, "upscale": true}'],
    ),
    Target("query", ("serving.front", "serving.function"), _query, (Refusal,), lambda: [b"steps=4", b"format=png"]),
    Target("row", ("serving.rows", "serving.function"), _row, (Refusal,), lambda: [b"\1AAEC", b"\0\xff\xd8"]),
    Target("prompt", ("zoo.text2image.request",), _prompt, (InputError,), lambda: [b"a dog", "ü".encode()]),
)  # fmt: skip
