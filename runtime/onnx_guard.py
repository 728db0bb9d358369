"""Is an ONNX file fit to be loaded? Asked before any package reads it, in bounded time and memory.

A file may come from anywhere. What it may not do is read other files, run without end, or ask for more memory than a
machine has: external data stays in the file's own folder and has the sizes that tensors promise; there are no loops;
graphs, functions and shapes have bounds. Sizes that only come about while a graph runs are not seen here.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.onnx_wire import Message, Walk, WireError

MOST_BYTES = 2 << 30  # protobuf's own bound
_MOST_FIELDS = 600_000
_MOST_NODES = 100_000  # with functions in place of their calls
_DEEPEST_MESSAGE, _DEEPEST_GRAPH = 40, 4
# Of a value that is computed, and of one that is made of constants alone: those are computed when a file is loaded.
_MOST_ELEMENTS, _MOST_CONSTANT = 1 << 36, 1 << 26
_LOOPS = ("Loop", "Scan", "SequenceMap")
# onnx.TensorProto.DataType to bits; 8 is a list of texts.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
         17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}  # fmt: skip
_INT64, _TEXTS, _COMPLEX = 7, 8, (14, 15)
_CHUNK, _CONTINUED = 1 << 20, bytes(range(128, 256))


def check_onnx(path: str | os.PathLike[str]) -> None:
    """Raise InputError, in one line, for a file that is no ONNX model or not fit to be loaded.

    An unchanged file is looked at once in a process.
    """
    path = Path(path)
    try:
        status = os.stat(path)
        stamps = (status.st_size, status.st_mtime_ns, status.st_ino)
        _checked(os.path.abspath(path), stamps)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; expected an ONNX file") from error
    except WireError as error:
        raise InputError(f"{path} is not an ONNX file ({error})") from error
    except _Unfit as error:
        raise InputError(f"{path} cannot be loaded: {error}") from error


class _Unfit(Exception):
    """Why a model is not loaded, in one line."""


@functools.lru_cache(maxsize=256)
def _checked(path: str, stamps: tuple[int, int, int]) -> None:
    size = stamps[0]
    if not size:
        raise WireError("it is empty")
    if size > MOST_BYTES:
        raise _Unfit(f"it has {size} bytes; expected at most {MOST_BYTES}: weights belong into external data")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        look = _Look(Path(path), data)
        model = Walk(data, look.seen, _MOST_FIELDS, _DEEPEST_MESSAGE).model()
        if len(model.get("graph", [])) != 1:
            raise WireError("it holds no graph")
        look.check_functions(model["graph"][0])


class _Look:
    def __init__(self, path: Path, data: Any):
        self._folder, self._data = Path(os.path.realpath(path)).parent, data
        self._real: dict[str, int] = {}  # external files and their sizes
        self._functions: dict[tuple[str, str], Message] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}  # of values that are made of constants alone
        self._numbers: dict[str, list[int]] = {}  # what they hold, where they may be shapes

    def seen(self, kind: str, message: Message, depth: int) -> None:
        if kind == "Tensor":
            self._tensor(message)
        elif kind == "Value":
            self._value(message)
        elif kind == "Function":
            self._functions[_one(message, "domain", ""), _one(message, "name", "")] = message
        elif depth > _DEEPEST_GRAPH:
            raise _Unfit(f"graphs lie over {_DEEPEST_GRAPH} deep in one another")
        for node in message.get("nodes", ()):  # of a graph or function, whose constants are known by now
            self._node(node)

    def _tensor(self, tensor: Message) -> None:
        name, dims, dtype = _one(tensor, "name", ""), tensor.get("dims", []), _one(tensor, "dtype", 0)
        count = _count(dims, f"tensor {name[:80]!r}")
        if dtype not in _BITS and dtype != _TEXTS:
            raise _Unfit(f"tensor {name[:80]!r} is of no type that is known ({dtype})")
        if _one(tensor, "location", 0) == 1:
            told = {_one(each, "key", ""): _one(each, "value", "") for each in tensor.get("external", [])}
            self._external(name, told, (count * _BITS.get(dtype, 8) + 7) // 8)
            self._shapes[name] = tuple(dims)
            return
        if "raw" in tensor:
            have, need = tensor["raw"][-1][1], (count * _BITS.get(dtype, 8) + 7) // 8
        elif dtype == _TEXTS:
            have, need = len(tensor.get("strings", [])), count
        else:
            have, need = self._listed(tensor), count * (2 if dtype in _COMPLEX else 1)
            need = min(have, need) if _BITS[dtype] < 8 and 8 * have >= need else need  # several to a number
        if have != need:
            raise _Unfit(f"tensor {name[:80]!r} has {have} bytes or numbers, its shape {dims[:16]} needs {need}")
        self._note(name, tensor, dims, dtype)

    def _listed(self, tensor: Message) -> int:
        """How many numbers the tensor's lists hold."""
        numbers = len(tensor.get("loose", []))
        numbers += sum(size // 4 for _, size in tensor.get("floats", []))
        numbers += sum(size // 8 for _, size in tensor.get("doubles", []))
        for at, size in (each for field in ("int32s", "int64s", "uint64s") for each in tensor.get(field, [])):
            for start in range(at, at + size, _CHUNK):  # the last byte of each number is below 128
                numbers += len(self._data[start : min(start + _CHUNK, at + size)].translate(None, _CONTINUED))
        return numbers

    def _note(self, name: str, tensor: Message, dims: list[int], dtype: int) -> None:
        self._shapes[name] = tuple(dims)
        if dtype != _INT64 or len(dims) > 1 or math.prod(dims) > 64:
            return
        if "raw" in tensor:
            at, size = tensor["raw"][-1]
            raw = self._data[at : at + size]
            self._numbers[name] = [int.from_bytes(raw[i : i + 8], "little", signed=True) for i in range(0, size, 8)]
        else:
            packed = [number for at, size in tensor.get("int64s", []) for number in self._unpacked(at, at + size)]
            self._numbers[name] = [*tensor.get("loose", []), *packed]

    def _unpacked(self, at: int, end: int) -> list[int]:
        return Walk(self._data, lambda *_: None, 0, 0).integers(at, end)

    def _external(self, name: str, told: dict[str, str], need: int) -> None:
        where, shown = told.get("location", ""), f"tensor {name[:80]!r}"
        outside = os.path.isabs(where) or ".." in Path(where).parts
        if not where or len(where) > 1024 or outside or "\\" in where or "\0" in where:
            raise _Unfit(f"the data of {shown} is at {where[:80]!r}; expected a file beside it")
        if where not in self._real:
            real = Path(os.path.realpath(self._folder / where))
            if not real.is_relative_to(self._folder):
                raise _Unfit(f"the data of {shown} is at {where[:80]!r}, a link out of its folder: copy the file there")
            if not real.is_file():
                raise _Unfit(f"the data of {shown} is at {where[:80]!r}, and there is no such file: copy it there")
            self._real[where] = real.stat().st_size
        try:
            offset, length = (int(told.get(key) or otherwise) for key, otherwise in (("offset", 0), ("length", -1)))
        except ValueError:
            raise _Unfit(f"the data of {shown} has an offset or length that is no number") from None
        length = need if length == -1 else length
        if offset < 0 or length != need or offset + length > self._real[where]:
            raise _Unfit(
                f"{shown} needs {need} bytes and is said to be {length} at {offset} of {where[:80]!r}, "
                f"which has {self._real[where]}"
            )

    def _value(self, value: Message) -> None:
        for kind in value.get("types", []):
            for tensor in kind.get("tensor", []):
                for shape in tensor.get("shape", []):
                    dims = [_one(dim, "size", 1) for dim in shape.get("dims", [])]
                    _count([size for size in dims if size != -1], f"value {_one(value, 'name', '')[:80]!r}")

    def _node(self, node: Message) -> None:
        if _one(node, "domain", "") not in ("", "ai.onnx"):
            return
        op, name = _one(node, "op", ""), _one(node, "name", "")
        if op in _LOOPS:
            raise _Unfit(f"node {name[:80]!r} is a {op}, and nothing bounds how long it runs: export it unrolled")
        shape = self._made(op, node)
        if shape is None:
            return
        if len(shape) > 32 or math.prod(shape) > _MOST_CONSTANT:
            raise _Unfit(
                f"node {name[:80]!r} ({op}) makes a constant of {' x '.join(map(str, shape[:16]))} elements; "
                f"expected at most {_MOST_CONSTANT}"
            )
        for output in node.get("outputs", [])[:1]:
            self._shapes[output] = shape

    def _made(self, op: str, node: Message) -> tuple[int, ...] | None:
        """The shape of a constant that the node makes of constants; None where that is not known."""
        inputs = node.get("inputs", [])
        known, numbers = [self._shapes.get(each) for each in inputs], [self._numbers.get(each) for each in inputs]
        if op == "Constant":
            tensors = [tensor for each in node.get("attributes", []) for tensor in each.get("tensors", [])]
            ints = [each["ints"] for each in node.get("attributes", []) if "ints" in each]
            for output in node.get("outputs", [])[:1]:
                if tensors:
                    self._note(output, tensors[0], tensors[0].get("dims", []), _one(tensors[0], "dtype", 0))
                elif ints:
                    self._shapes[output], self._numbers[output] = (len(ints[0]),), ints[0]
            return None
        if op == "ConstantOfShape" and numbers[:1] != [None] and numbers:
            return tuple(map(abs, numbers[0] or []))
        if op in ("RandomNormal", "RandomUniform"):
            shapes = [each["ints"] for each in node.get("attributes", []) if "ints" in each]  # it has no other list
            return tuple(map(abs, shapes[0])) if shapes else None
        if op == "Expand" and len(inputs) == 2 and numbers[1] is not None:
            return _broadcast(known[0] or (), tuple(map(abs, numbers[1])))
        if op == "Tile" and len(inputs) == 2 and numbers[1] is not None:
            shape = known[0] or (1,) * len(numbers[1])
            return tuple(size * abs(times) for size, times in zip(shape, numbers[1], strict=False))
        if op == "Range" and len(inputs) == 3 and all(numbers):
            start, limit, step = (each[0] for each in numbers if each)
            return (max(0, -(-(limit - start) // step)) if step else _MOST_ELEMENTS,)
        if op in ("Add", "Sub", "Mul", "Div", "Pow", "Where", "Equal", "Less", "Greater", "And", "Or") and all(
            each is not None for each in known
        ):
            made: tuple[int, ...] = ()
            for each in known:
                made = _broadcast(made, each or ())
            return made
        return None

    def check_functions(self, graph: Message) -> None:
        """No function calls itself, and with functions in place of their calls the graph still has a bound."""
        known: dict[tuple[str, str], int] = {}

        def size(nodes: list[Message], above: frozenset[tuple[str, str]]) -> int:
            total = 0
            for node in nodes:
                key = (_one(node, "domain", ""), _one(node, "op", ""))
                graphs = [graph for each in node.get("attributes", []) for graph in each.get("graphs", [])]
                total += 1 + sum(size(each.get("nodes", []), above) for each in graphs)
                if key in above or len(above) > 32:
                    raise _Unfit(f"function {key[1][:80]!r} calls itself, or functions call each other too deeply")
                if key in self._functions:
                    if key not in known:
                        known[key] = size(self._functions[key].get("nodes", []), above | {key})
                    total += known[key]
                if total > _MOST_NODES:
                    raise _Unfit(f"it has over {_MOST_NODES} nodes, with functions in place of their calls")
            return total

        size(graph.get("nodes", []), frozenset())


def _count(dims: list[int], what: str) -> int:
    if len(dims) > 64 or any(size < 0 for size in dims) or (count := math.prod(dims)) > _MOST_ELEMENTS:
        raise _Unfit(f"{what} has the shape {dims[:16]}; expected at most {_MOST_ELEMENTS} elements")
    return count


def _broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(one), len(other))
    pairs = zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True)
    return tuple(max(pair) for pair in pairs)


def _one(message: Message, name: str, otherwise: Any) -> Any:
    """The last of a field, which is the one that counts."""
    return message[name][-1] if message.get(name) else otherwise
