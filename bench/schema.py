"""Result files: one JSON schema for all that the bench measures, `schema.json`, checked on writing and on reading.

The part of JSON Schema that the file uses is checked here, without a package: results are written on machines that
have no network. Any other validator gives the same verdict.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import write_text

SCHEMA = "cat2dog-bench/1"
_FILE = Path(__file__).with_name("schema.json")
_TYPES = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "type", "const", "enum", "required", "properties",
    "additionalProperties", "items", "minimum",
}  # fmt: skip


def write_result(path: str | os.PathLike[str], result: Mapping[str, Any]) -> None:
    """Write a result, whole or not at all. Raises ValueError for one that is not of the schema."""
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    check_result(json.loads(text))
    write_text(path, text)


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A result file's content. Raises InputError where it cannot be read or is not of the schema."""
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        check_result(content)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no result of the bench: {error}; write it with `cat2dog bench`") from error
    return dict(content)


def check_result(content: Any) -> None:
    """Raise ValueError, naming the place, unless `content` is of the schema."""
    _check(content, _schema(), "result")


@functools.cache
def _schema() -> dict[str, Any]:
    return dict(json.loads(_FILE.read_text("utf-8")))


def _check(value: Any, rule: Any, where: str) -> None:
    unknown = set(rule) - _KNOWN
    assert not unknown, f"{_FILE.name} uses {unknown}, which is not checked here"
    if "$ref" in rule:
        _check(value, _schema()["$defs"][rule["$ref"].removeprefix("#/$defs/")], where)
        return
    if "const" in rule and value != rule["const"]:
        raise ValueError(f"{where} is {value!r}, expected {rule['const']!r}")
    if "enum" in rule and value not in rule["enum"]:
        raise ValueError(f"{where} is {value!r}, expected one of {', '.join(map(str, rule['enum']))}")
    if "type" in rule:
        kinds = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        if not any(_is(value, kind) for kind in kinds):
            raise ValueError(f"{where} is {type(value).__name__}, expected {' or '.join(kinds)}")
    if "minimum" in rule and _is(value, "number") and value < rule["minimum"]:
        raise ValueError(f"{where} is {value}, expected at least {rule['minimum']}")
    if isinstance(value, dict):
        _check_object(value, rule, where)
    if isinstance(value, list) and "items" in rule:
        for index, entry in enumerate(value):
            _check(entry, rule["items"], f"{where}[{index}]")


def _check_object(value: dict[str, Any], rule: Mapping[str, Any], where: str) -> None:
    for name in rule.get("required", ()):
        if name not in value:
            raise ValueError(f"{where} lacks '{name}'")
    properties, others = rule.get("properties", {}), rule.get("additionalProperties", True)
    for name, entry in value.items():
        if name in properties:
            _check(entry, properties[name], f"{where}.{name}")
        elif others is False:
            raise ValueError(f"{where} has an unknown field '{name}'")
        elif isinstance(others, dict):
            _check(entry, others, f"{where}.{name}")


def _is(value: Any, kind: str) -> bool:
    # In JSON, true is no number.
    return isinstance(value, _TYPES[kind]) and (not isinstance(value, bool) or kind == "boolean")
