"""Launch plans: everything the plugin library must know to launch compiled kernels, as text.

A plan is what makes one C++ library enough for every kernel: it says which shapes and types a node takes and gives,
how many bytes of workspace it needs, and which kernels to launch with which arguments. It travels as the field `launch`
of the node, with the compiled images, one after the other, in the field `images`; `engines/plugin/` reads both.

The text is ASCII, one statement a line, words apart by one space; sizes are expressions (see `engines.kernels.sizes`)
over names bound by the shapes of the inputs:

    cat2dog-launch 1
    target 90 exact                          compute capability 9.0 and no other; `family`: 9.0 and later 9.x
    input fp16 B 256 3840                    a name binds where it first stands and is checked where it stands again
    output fp16 B 256 1280                   each size one expression without spaces: `B*4`
    workspace B*1310720                      bytes; left out where there is none
    image 31240 1f3d5c7900aa12ff             length and FNV-1a hash of each image, in their order in `images`
    kernel 0 attention_sm90                  a launch: which image, and the name of the kernel in it
    grid B*20 2 1
    block 384 1 1
    shared 197632                            bytes of dynamic shared memory
    cluster 2 1 1                            left out where there is none
    serial programmatic                      may start before its predecessor ends (left out where it must not)
    arg input 0 0                            address of an input, plus an offset in bytes (an expression)
    arg output 0 0
    arg workspace B*4096
    arg i32 B*256                            a number: i32, i64, or f32 (a decimal, or hexadecimal as float.hex writes)
    arg null                                 a null pointer
    arg tensormap input 0 0 fp16 128B        a TMA descriptor over a tensor: operand, offset, type, swizzle,
    dims 64 60*B 256                         innermost first: sizes in elements,
    strides 128 7680                         bytes between neighbours, from the second dimension on,
    box 64 1 128                             and the box that one copy moves
    end

Statements stand in this order; there is at least one input, output, image and kernel, and at most 16 of each; a launch
has at most 64 arguments. `kernel` and what follows it up to the next `kernel` or `end` is one launch; launches run in
order on one stream, and one whose grid has a 0 is skipped. An i32 is at most 2^31 - 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engines.kernels.sizes import Size, check_size

MAGIC = "cat2dog-launch 1"
DTYPES = {"fp16": 2, "bf16": 2, "fp32": 4, "i32": 4, "u8": 1, "i8": 1}
SWIZZLES = ("none", "32B", "64B", "128B")
NUMBERS = ("i32", "i64", "f32")
_MOST = 16
_MOST_ARGUMENTS = 64
_MOST_FP32 = float.fromhex("0x1.fffffep+127")


@dataclass(frozen=True)
class Tensor:
    """An input or output of the node: `dtype` of `DTYPES`, row-major `shape`."""

    dtype: str
    shape: tuple[Size, ...]


@dataclass(frozen=True)
class Image:
    """A compiled kernel image (a cubin)."""

    data: bytes

    @property
    def fnv(self) -> str:
        """64-bit FNV-1a of the bytes, 16 hex digits: cheap for the plugin to check when an engine is loaded."""
        return fnv1a(self.data)


@dataclass(frozen=True)
class Pointer:
    """An address: an operand (`input`, `output` or `workspace`, the last without number) plus `offset` bytes."""

    operand: str
    index: int = 0
    offset: Size = 0

    def words(self) -> str:
        place = "" if self.operand == "workspace" else f" {self.index}"
        return f"{self.operand}{place} {self.offset}"


@dataclass(frozen=True)
class Number:
    """A number by value: `kind` is i32, i64 or f32."""

    kind: str
    value: Size | float


@dataclass(frozen=True)
class Null:
    """A null pointer."""


@dataclass(frozen=True)
class TensorMap:
    """A TMA descriptor, made when the kernel is launched; passed by value, 128 bytes.

    `dims`, `strides` and `box` begin with the innermost dimension; its stride is one element, so `strides` (in bytes)
    begin with the second.
    """

    at: Pointer
    dtype: str
    dims: tuple[Size, ...]
    strides: tuple[Size, ...]
    box: tuple[int, ...]
    swizzle: str = "none"


Argument = Pointer | Number | Null | TensorMap


@dataclass(frozen=True)
class Launch:
    """One kernel launch. `grid` in blocks, `block` in threads, `shared` in bytes."""

    image: int
    name: str
    grid: tuple[Size, Size, Size]
    block: int
    shared: int
    arguments: tuple[Argument, ...]
    cluster: int = 1
    programmatic: bool = False


@dataclass(frozen=True)
class LaunchPlan:
    """See the head of this file. `target` is a compute capability ("9.0"); `exact` refuses every other."""

    target: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    launches: tuple[Launch, ...]
    images: tuple[Image, ...]
    workspace: Size = 0
    exact: bool = False

    def __post_init__(self) -> None:
        parts = {"inputs": self.inputs, "outputs": self.outputs, "images": self.images, "kernels": self.launches}
        for what, each in parts.items():
            if not 1 <= len(each) <= _MOST:
                raise ValueError(f"{len(each)} {what}, expected 1 to {_MOST}")
        for tensor in (*self.inputs, *self.outputs):
            _one_of("type", tensor.dtype, DTYPES)
        for launch in self.launches:
            if not 0 <= launch.image < len(self.images):
                raise ValueError(f"kernel {launch.name} is in image {launch.image} of {len(self.images)}")
            if not launch.name.isascii() or not launch.name.isprintable() or " " in launch.name or not launch.name:
                raise ValueError(f"kernel name {launch.name!r} is not one printable ASCII word")
            if len(launch.arguments) > _MOST_ARGUMENTS:
                raise ValueError(
                    f"kernel {launch.name} has {len(launch.arguments)} arguments, at most {_MOST_ARGUMENTS}"
                )
            for argument in launch.arguments:
                self._check(argument)

    def _check(self, argument: Argument) -> None:
        if isinstance(argument, Pointer):
            there = {"input": len(self.inputs), "output": len(self.outputs), "workspace": 1}
            _one_of("operand", argument.operand, there)
            if not 0 <= argument.index < there[argument.operand]:
                raise ValueError(f"argument {argument.operand} {argument.index} of {there[argument.operand]}")
        elif isinstance(argument, Number):
            _one_of("number", argument.kind, NUMBERS)
            if argument.kind == "f32" and not abs(float(argument.value)) <= _MOST_FP32:
                raise ValueError(f"argument {argument.value} is no finite FP32 number")
        elif isinstance(argument, TensorMap):
            self._check(argument.at)
            _one_of("type", argument.dtype, DTYPES)
            _one_of("swizzle", argument.swizzle, SWIZZLES)
            rank, strides, box = len(argument.dims), len(argument.strides), len(argument.box)
            if not 1 <= rank <= 5 or strides != rank - 1 or box != rank:
                raise ValueError(f"a tensor map of {rank} dims has {strides} strides and {box} sizes of a box")

    def text(self) -> str:
        """The plan as the plugin reads it."""
        lines = [MAGIC, f"target {self.target.replace('.', '')} {'exact' if self.exact else 'family'}"]
        lines += [_line(f"input {tensor.dtype}", *tensor.shape) for tensor in self.inputs]
        lines += [_line(f"output {tensor.dtype}", *tensor.shape) for tensor in self.outputs]
        if self.workspace != 0:
            lines.append(_line("workspace", self.workspace))
        lines += [f"image {len(image.data)} {image.fnv}" for image in self.images]
        for launch in self.launches:
            lines += _launch_lines(launch)
        return "\n".join([*lines, "end", ""])

    @property
    def data(self) -> bytes:
        """Every image, one after the other: the node's field `images`."""
        return b"".join(image.data for image in self.images)


def fnv1a(data: bytes) -> str:
    """64-bit FNV-1a (Fowler, Noll, Vo) over little-endian 8-byte words, the last one padded with zeros.

    Over words, not bytes, because it is computed in Python too; so the high half is folded into the low one after each,
    or flips of two top bits would cancel. It finds damage, no forgery: an engine's manifest has the SHA-256.
    """
    value = 0xCBF29CE484222325
    padded = data + bytes(-len(data) % 8)
    for start in range(0, len(padded), 8):
        value = ((value ^ int.from_bytes(padded[start : start + 8], "little")) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 32
    return f"{value:016x}"


def _line(word: str, *rest: Size) -> str:
    return " ".join([word, *(check_size(size) for size in rest)])


def _launch_lines(launch: Launch) -> list[str]:
    lines = [
        f"kernel {launch.image} {launch.name}",
        _line("grid", *launch.grid),
        f"block {launch.block} 1 1",
        f"shared {launch.shared}",
    ]
    if launch.cluster != 1:
        lines.append(f"cluster {launch.cluster} 1 1")
    if launch.programmatic:
        lines.append("serial programmatic")
    for argument in launch.arguments:
        lines += _argument_lines(argument)
    return lines


def _argument_lines(argument: Argument) -> list[str]:
    if isinstance(argument, Pointer):
        return [f"arg {argument.words()}"]
    if isinstance(argument, Null):
        return ["arg null"]
    if isinstance(argument, Number):
        return [f"arg {argument.kind} {_number(argument)}"]
    return [
        f"arg tensormap {argument.at.words()} {argument.dtype} {argument.swizzle}",
        _line("dims", *argument.dims),
        _line("strides", *argument.strides),
        _line("box", *argument.box),
    ]


def _number(argument: Number) -> str:
    if argument.kind == "f32":
        return float(argument.value).hex()
    return check_size(argument.value)  # type: ignore[arg-type]


def _one_of(what: str, given: str, known: Iterable[str]) -> None:
    if given not in known:
        raise ValueError(f"{what} {given} is not one of {', '.join(known)}")
