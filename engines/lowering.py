"""Neutral ONNX to the ONNX that one flavor's parser reads: attention in one form, the batch as the profile says.

The lowered graph lies beside the neutral one and shares its external data, so it can also be given to trtexec,
Polygraphy and ONNX Runtime as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from engines.attention import NATIVE_OPSET, LoweredNode, lower_attention
from engines.batch import BatchProfile
from engines.bf16 import compute_wide
from engines.checkable import checkable
from engines.fused_attention import FusedLowering
from engines.fused_linear import Choice, LinearLowering
from engines.fused_node import has_fused, kernels_sha256
from engines.fused_pixels import PixelsLowering
from engines.kernels.linear_problem import LinearPlanner
from engines.kernels.pixels_problem import PixelsPlanner
from engines.kernels.problem import Planner
from engines.layer_types import layer_types
from engines.new_data import write_new_data
from engines.opset import raise_opset
from engines.qkv_split import split_packed_qkv
from runtime.errors import InputError, ToolchainError
from runtime.files import atomic_path, exclusive
from runtime.onnx_guard import check_onnx

# A graph whose attention is lowered, and how its linear layers would be; to a choice for layers by name.
Choose = Callable[[ir.Model, LinearLowering], Mapping[str, Choice]]


@dataclass(frozen=True)
class Lowered:
    """A lowered file; what became of its attention nodes, how many packed Q, K, V are split anew, the layers' types.

    `linear` is what became of its linear layers, empty where nobody asked for kernels of ours, and `pixels` of the ways
    of its UINT8 images, empty where no linear layer got a kernel either.
    """

    path: Path
    nodes: tuple[LoweredNode, ...]
    qkv_splits: int = 0
    types: Mapping[str, str] = field(default_factory=dict)
    linear: tuple[LoweredNode, ...] = ()
    pixels: tuple[LoweredNode, ...] = ()

    @property
    def form(self) -> str:
        """The form most nodes took; `none` for a graph without attention."""
        taken = [node.form for node in self.nodes]
        return max(set(taken), key=taken.count) if taken else "none"


def lowered_path(neutral: Path, form: str, batch: BatchProfile, model: ir.Model | None = None) -> Path:
    """`500m-256_fp16.native_b1-1.onnx` beside `500m-256_fp16.onnx`.

    With kernels of ours in `model`, with 8 digits more, which stand for them: they differ from GPU to GPU, and two
    builds may lower one file at once.
    """
    fused = model is not None and (form == "plugin" or has_fused(model))
    kernels = f"_{kernels_sha256(model)[:8]}" if fused and model is not None else ""
    return neutral.with_name(f"{neutral.stem}.{form}_{batch.label}{kernels}.onnx")


def lower(
    neutral: str | os.PathLike[str],
    form: str,
    batch: BatchProfile,
    planner: Planner | None = None,
    fallback: str = "decomposed",
    linear: LinearPlanner | None = None,
    choose: Choose | None = None,
    pixels: PixelsPlanner | None = None,
) -> Lowered:
    """Write the lowered form of a neutral file and return it.

    The form `plugin` takes its kernels from `planner`, and `fallback` where that has none; linear layers take theirs
    from `linear`, and stay what they are without one; `choose` says which of them do all the same. Where any got a
    kernel, the ways of UINT8 images get those of `pixels`. Raises InputError for a file that is not ONNX or whose batch
    cannot be what is asked, ToolchainError where the result cannot be written or, with kernels of ours, does not
    compute what the neutral file does.
    """
    neutral = Path(neutral)
    model = load(neutral)
    symbols = fix_batch(model, batch, neutral)
    qkv_splits = split_packed_qkv(model) if form in ("decomposed", "plugin") else 0
    fused = FusedLowering(planner, batch, symbols) if planner is not None else None
    nodes = lower_attention(model, form, fused, fallback)
    layers: tuple[LoweredNode, ...] = ()
    ways: tuple[LoweredNode, ...] = ()
    if linear is not None:
        lowering = LinearLowering(linear, batch, symbols, planner)
        if choose is not None:
            lowering = replace(lowering, choices=choose(model, lowering))
        done = lowering.lower(model)
        nodes, layers = [done.again(node) for node in nodes], done.nodes
        if pixels is not None and any(node.form == "plugin" for node in layers):
            ways = tuple(PixelsLowering(pixels, batch, symbols).lower(model))
    if any(node.form == "native" for node in nodes):
        raise_opset(model, NATIVE_OPSET)
    path = lowered_path(neutral, form, batch, model)
    try:
        with exclusive(path), atomic_path(path) as temporary:
            # External tensors keep pointing at the neutral file's data; of the new ones the large get a file of theirs.
            if layers:
                write_new_data(model, neutral)
            ir.save(model, temporary)
    except OSError as error:
        raise ToolchainError(f"cannot write {path}: {error.strerror or error}") from error
    except ir.serde.SerdeError as error:  # of what can be read all the same: a tensor of no type, say
        raise InputError(f"{neutral} is not sound ONNX ({' '.join(str(error).split())[:200]})") from error
    return Lowered(path, tuple(nodes), qkv_splits, layer_types(model), layers, ways)


def load(path: Path) -> ir.Model:
    """Read a graph, its weights left in their file. Raises InputError where it is missing or not ONNX."""
    if not path.exists():
        raise InputError(f"there is no ONNX file {path}: `cat2dog export` writes it")
    check_onnx(path)
    try:
        return ir.load(path)
    except (ValueError, TypeError, KeyError, OSError, ir.serde.SerdeError, _decode_error()) as error:
        raise InputError(f"{path} is not an ONNX file ({' '.join(str(error).split())[:200]})") from error


def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError


def fix_batch(model: ir.Model, batch: BatchProfile, path: Path) -> set[str]:
    """Make the batch a constant where the profile has one size, so that the builder folds every shape.

    Returns what the batch is, or was, called in shapes. Raises InputError where it is already another constant.
    """
    symbols = set()
    for value in model.graph.inputs:
        if value.shape is None or not len(value.shape):
            continue
        first = value.shape[0]
        if isinstance(first, int):
            if not (batch.fixed and first == batch.most):
                raise InputError(
                    f"{path} has a fixed batch of {first}; batch {batch} needs an export with a dynamic one"
                )
        elif first.value is not None:
            symbols.add(first.value)
        elif batch.fixed:  # a dimension without a name: no other value tells that it is the same
            value.shape = ir.Shape([batch.most, *value.shape[1:]])
    if not batch.fixed:
        return symbols
    for value in _values(model):
        if value.shape is not None and any(getattr(size, "value", size) in symbols for size in value.shape):
            sizes = [batch.most if getattr(size, "value", size) in symbols else size for size in value.shape]
            value.shape = ir.Shape(sizes)
    return symbols


def _values(model: ir.Model) -> list[ir.Value]:
    produced = [output for node in model.graph.all_nodes() for output in node.outputs]
    return [*model.graph.inputs, *produced]


def widen(source: Path, target: Path) -> None:
    """Rewrite a lowered graph so that ONNX Runtime's CPU runs it: fused nodes get bodies, BF16 computes in FP32.

    Values between operators are still rounded to BF16, so the result has the errors of the BF16 graph.
    """
    model = checkable(load(source))
    compute_wide(model)
    with atomic_path(target) as temporary:
        ir.save(model, temporary)
