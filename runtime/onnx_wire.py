"""ONNX files as protobuf's wire format, walked over without being loaded: no package, no objects, bounded work.

What walks it (`runtime.onnx_guard`) sees messages of the types that `_FIELDS` names, from onnx.proto3 of ONNX 1.23:
https://github.com/onnx/onnx. Weights inside the file are stepped over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Of each message: what its fields are, by number. "int", "bytes" and "text" are scalars, "ints" whole numbers, packed
# or not; "list" numbers that may be many; any other word is a message. Fields that are not named (newer ones) are
# stepped over.
_FIELDS: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "Model": {7: ("graph", "Graph"), 20: ("training", "Training"), 25: ("functions", "Function"),
              2: ("producer", "text"), 3: ("version", "text"), 4: ("domain", "text"), 6: ("doc", "text"),
              8: ("opset", "Opset"), 14: ("metadata", "Entry")},
    "Opset": {1: ("domain", "text"), 2: ("version", "int")},
    "Entry": {1: ("key", "text"), 2: ("value", "text")},
    "Training": {1: ("graph", "Graph"), 2: ("graph", "Graph"), 3: ("entry", "Entry"), 4: ("entry", "Entry")},
    "Graph": {1: ("nodes", "Node"), 2: ("name", "text"), 5: ("tensors", "Tensor"), 10: ("doc", "text"),
              11: ("inputs", "Value"), 12: ("outputs", "Value"), 13: ("values", "Value"),
              14: ("quantized", "Quantized"), 15: ("sparse", "Sparse"), 16: ("metadata", "Entry")},
    "Quantized": {1: ("tensor", "text"), 2: ("entry", "Entry")},
    "Node": {1: ("inputs", "text"), 2: ("outputs", "text"), 3: ("name", "text"), 4: ("op", "text"),
             5: ("attributes", "Attribute"), 6: ("doc", "text"), 7: ("domain", "text"), 8: ("overload", "text"),
             9: ("metadata", "Entry")},
    "Attribute": {1: ("name", "text"), 3: ("i", "int"), 4: ("s", "bytes"), 5: ("tensors", "Tensor"),
                  6: ("graphs", "Graph"), 8: ("ints", "ints"), 10: ("tensors", "Tensor"), 11: ("graphs", "Graph"),
                  13: ("doc", "text"), 14: ("types", "Type"), 15: ("types", "Type"), 21: ("ref", "text"),
                  22: ("sparse", "Sparse"), 23: ("sparse", "Sparse")},
    "Tensor": {1: ("dims", "ints"), 2: ("dtype", "int"), 4: ("floats", "list"), 5: ("int32s", "list"),
               6: ("strings", "bytes"), 7: ("int64s", "list"), 8: ("name", "text"), 9: ("raw", "bytes"),
               10: ("doubles", "list"), 11: ("uint64s", "list"), 12: ("doc", "text"), 13: ("external", "Entry"),
               14: ("location", "int"), 16: ("metadata", "Entry")},
    "Sparse": {1: ("values", "Tensor"), 2: ("indices", "Tensor"), 3: ("dims", "ints")},
    "Value": {1: ("name", "text"), 2: ("types", "Type"), 3: ("doc", "text"), 4: ("metadata", "Entry")},
    "Type": {1: ("tensor", "TensorType"), 4: ("of", "Container"), 5: ("of", "Map"), 6: ("denotation", "text"),
             8: ("tensor", "TensorType"), 9: ("of", "Container")},
    "Container": {1: ("types", "Type")},
    "Map": {1: ("key", "int"), 2: ("types", "Type")},
    "TensorType": {1: ("dtype", "int"), 2: ("shape", "Shape")},
    "Shape": {1: ("dims", "Dimension")},
    "Dimension": {1: ("size", "int"), 2: ("symbol", "text"), 3: ("denotation", "text")},
    "Function": {1: ("name", "text"), 4: ("inputs", "text"), 5: ("outputs", "text"), 6: ("attributes", "text"),
                 7: ("nodes", "Node"), 8: ("doc", "text"), 9: ("opset", "Opset"), 10: ("domain", "text"),
                 11: ("defaults", "Attribute"), 12: ("values", "Value"), 13: ("overload", "text"),
                 14: ("metadata", "Entry")},
}  # fmt: skip

Message = dict[str, list[Any]]
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MOST_INTEGERS = 256


class WireError(ValueError):
    """The bytes are no such message."""


class Walk:
    """Walks a file of `data`. `most_fields` bounds the work, `deepest` how far messages lie in one another.

    `seen(kind, message, graphs)` is called for every Tensor, Value, Function and Graph once it is complete, with how
    many graphs lie around it; a message holds what `_FIELDS` names: whole numbers, texts, messages, bytes and packed
    lists as (start, length), and under "loose" the numbers of lists that are not packed.
    """

    def __init__(self, data: Any, seen: Callable[[str, Message, int], None], most_fields: int, deepest: int):
        self._data, self._seen, self._left, self._deepest = data, seen, most_fields, deepest
        self._graphs = 0

    def model(self) -> Message:
        """All of it. Raises WireError."""
        return self._message("Model", 0, len(self._data), 0)

    def _message(self, kind: str, at: int, end: int, depth: int) -> Message:
        if depth > self._deepest:
            raise WireError(f"messages lie over {self._deepest} deep in one another")
        data, fields, found = self._data, _FIELDS[kind], Message()
        graph = kind == "Graph"
        self._graphs += graph
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise WireError("it has too many nodes, values and attributes")
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = self._varint(at - 1, end)
            wire = tag & 7
            known = fields.get(tag >> 3)
            if wire == _BYTES:
                size = data[at] if at < end else 128
                at += 1
                if size > 127:
                    size, at = self._varint(at - 1, end)
                if at + size > end:
                    raise WireError(f"a field of {size} bytes does not fit")
                if known is not None:
                    name, what = known
                    value: Any
                    if what == "text":
                        value = self._text(at, size)
                    elif what in ("bytes", "list"):
                        value = (at, size)
                    elif what == "ints":
                        value = self.integers(at, at + size)
                    elif what == "int":
                        raise WireError(f"{name} is no number")
                    else:
                        value = self._message(what, at, at + size, depth + 1)
                    if what == "ints":
                        found.setdefault(name, []).extend(value)
                    else:
                        found.setdefault(name, []).append(value)
                at += size
            elif wire == _VARINT:
                number, at = self._varint(at, end)
                if known is not None:
                    if known[1] not in ("int", "ints", "list"):
                        raise WireError(f"{known[0]} is a number")
                    signed = number - (1 << 64) if number >> 63 else number
                    found.setdefault("loose" if known[1] == "list" else known[0], []).append(signed)
            elif wire in (_FOUR, _EIGHT):
                at += 4 if wire == _FOUR else 8
                if at > end:
                    raise WireError("a number does not fit")
                if known is not None and known[1] == "list":
                    found.setdefault("loose", []).append(0)
            else:
                raise WireError(f"there is no wire type {wire}")
        if kind in ("Tensor", "Value", "Function", "Graph"):
            self._seen(kind, found, self._graphs)
        self._graphs -= graph
        if kind == "Value":
            return {}  # not looked at again: tens of thousands would fill the memory
        return found

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self._data[at]
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                return value & (1 << 64) - 1, at
            shift += 7
        raise WireError("a number does not end")

    def integers(self, at: int, end: int) -> list[int]:
        """Whole numbers that are packed from `at` to `end`, the first 256 or so. Raises WireError."""
        numbers: list[int] = []
        while at < end:
            number, at = self._varint(at, end)
            numbers.append(number - (1 << 64) if number >> 63 else number)
            if len(numbers) > _MOST_INTEGERS:  # no shape, nor what shapes are made of
                return numbers
        return numbers

    def _text(self, at: int, size: int) -> str:
        try:
            return bytes(self._data[at : at + size]).decode()
        except UnicodeDecodeError as error:
            raise WireError("a name is not UTF-8") from error
