"""PyTorch module to ONNX graph: traced, tidied and named after the modules it came from; FP32, in memory."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from export.attention import add_function_bodies, translation_table
from export.masks import drop_empty_masks
from export.opset import downgrade_to_17, torch_opset
from export.precision import module_path
from export.recipe import Recipe, random_tensor
from export.twins import part, uses_of_weights
from export.weights import fold_weight_transposes
from runtime.errors import InputError, ToolchainError
from runtime.runner import TensorSpec

if TYPE_CHECKING:
    import torch

# Above this many elements constants are not folded: a folded weight is a second copy of it in memory.
_FOLD_LIMIT = 1 << 18


def trace(recipe: Recipe, opset: int = 17, batch: int | None = None) -> ir.Model:
    """The FP32 graph of a recipe. The batch is dynamic, or fixed to `batch`.

    Raises InputError when the module cannot be traced, with PyTorch's reason.
    """
    import numpy as np
    import torch
    import torch._dynamo
    import torch.onnx

    # Imported above and not by the exporter, which takes a Ctrl-C while it imports for a fault of the module.
    asked = torch_opset(opset)
    module = wrapped_module(recipe)
    generator = np.random.default_rng(0)
    dynamic = batch is None and any(-1 in spec.shape for spec in recipe.inputs)
    # Two samples: one would let the tracer take the batch for a constant.
    arrays = [random_tensor(spec, batch or 2, generator) for spec in recipe.inputs]
    shapes = _dynamic_shapes(module, recipe) if dynamic else None
    with _quiet(), torch.inference_mode():
        fastpath = torch.backends.mha.get_fastpath_enabled()
        # The fast path of nn.MultiheadAttention is one opaque operator, with no attention node to see.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            program = torch.onnx.export(
                module,
                tuple(torch.from_numpy(array) for array in arrays),
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=asked,
                input_names=[spec.name for spec in recipe.inputs],
                output_names=[spec.name for spec in recipe.outputs],
                dynamic_shapes=shapes,
                custom_translation_table=translation_table(),
            )
        except torch.onnx.OnnxExporterError as error:
            raise _explained(recipe, error, dynamic) from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
        if program is None:
            raise ToolchainError(f"PyTorch's exporter returned nothing for {recipe.name}")
        model = program.model
    tidy(model)
    if opset < asked:
        downgrade_to_17(model)
    _check_signature(model, recipe, batch if batch is not None or not dynamic else -1)
    add_function_bodies(model, opset)
    model.ir_version = 8 if opset <= 18 else 10  # the oldest that fits: local functions came with 8
    return model


def _dynamic_shapes(module: torch.nn.Module, recipe: Recipe) -> tuple[Any, ...]:
    """Which axes are the batch, in the structure of the module's arguments: what goes into `*args` is one tuple."""
    import torch

    size = torch.export.Dim("batch", min=1, max=1 << 16)
    shapes = tuple({axis: size for axis, n in enumerate(spec.shape) if n == -1} for spec in recipe.inputs)
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        return (*shapes[:named], shapes[named:])
    return shapes


def wrapped_module(recipe: Recipe) -> torch.nn.Module:
    """The recipe's module, behind uint8 pixels where the recipe gives `pixels = (mean, std)` in grey levels."""
    pixels = getattr(recipe, "pixels", None)
    if pixels is None:
        return recipe.module()
    from export.image_io import ImageModule

    mean, std = pixels
    return ImageModule(recipe.module(), tuple(mean), tuple(std)).eval()


def tidy(model: ir.Model) -> None:
    """Fold small constants, store weights as they are used, and name each node after the module it came from."""
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer

    fold_weight_transposes(model)
    weights = uses_of_weights(model)
    optimizer.optimize_ir(model, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT)
    part(model, weights)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    drop_empty_masks(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    _drop_allowzero(model)
    name_nodes(model)


def _drop_allowzero(model: ir.Model) -> None:
    """`allowzero` changes nothing where the shape has no 0, and TensorRT 8.6 does not know it."""
    for node in model.graph.all_nodes():
        if node.op_type == "Reshape" and "allowzero" in node.attributes:
            shape = node.inputs[1].const_value if node.inputs[1] is not None else None
            if shape is not None and 0 not in shape.numpy():
                node.attributes.pop("allowzero")


def name_nodes(model: ir.Model) -> None:
    """`blocks.3.norm1/LayerNormalization`: what profilers and comparison tools will show."""
    seen: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        name = f"{module_path(node) or 'graph'}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _check_signature(model: ir.Model, recipe: Recipe, batch: int | None) -> None:
    """`batch` is -1 where it has to be dynamic."""
    for what, values, specs in (
        ("input", model.graph.inputs, recipe.inputs),
        ("output", model.graph.outputs, recipe.outputs),
    ):
        if len(values) != len(specs):
            raise InputError(f"recipe '{recipe.name}' names {len(specs)} {what}s, its module has {len(values)}")
        for value, spec in zip(values, specs, strict=True):
            value.name = spec.name
            have = value.dtype.numpy().name if value.dtype is not None else "unknown"
            if have != spec.dtype:
                raise InputError(
                    f"recipe '{recipe.name}': {what} '{spec.name}' is {have} in the graph, {spec.dtype} in the recipe"
                )
            _check_shape(what, value, spec, recipe, batch)


def _check_shape(what: str, value: ir.Value, spec: TensorSpec, recipe: Recipe, batch: int | None) -> None:
    """PyTorch quietly fixes a dimension that the module's code leaves no choice about; here that is an error."""
    if value.shape is None:
        return
    have = [size if isinstance(size, int) else -1 for size in value.shape]
    want = [batch if size == -1 and batch is not None else size for size in spec.shape]
    if batch == -1 and len(have) == len(want) and any(w == -1 < h for h, w in zip(have, want, strict=True)):
        raise InputError(
            f"recipe '{recipe.name}': the batch of {what} '{spec.name}' cannot vary, "
            f"the module fixes its shape to {have}; fix it with --batch 1"
        )
    if len(have) != len(want) or any(-1 not in (h, w) and h != w for h, w in zip(have, want, strict=True)):
        raise InputError(f"recipe '{recipe.name}': {what} '{spec.name}' is {have} in the graph, {want} in the recipe")


def _explained(recipe: Recipe, error: Exception, dynamic: bool) -> InputError:
    cause: BaseException = error
    while cause.__cause__ is not None or isinstance(cause.__context__, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    if isinstance(cause, KeyboardInterrupt):
        raise cause
    if isinstance(cause, InputError):
        return cause
    first = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    hint = "; if its batch cannot vary, fix it with --batch 1" if dynamic else ""
    return InputError(f"PyTorch cannot export recipe '{recipe.name}': {first[:300]}{hint}")


class _quiet:
    """The exporter's notes on torchvision, opsets and its own deprecations are not for the person who exports."""

    def __enter__(self) -> None:
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore")
        self.loggers: list[tuple[logging.Logger, int]] = []
        for name in ("torch.onnx", "torch.onnx._internal.exporter", "onnxscript", "torch.export"):
            logger = logging.getLogger(name)
            self.loggers.append((logger, logger.level))
            logger.setLevel(logging.ERROR)

    def __exit__(self, *exception: Any) -> None:
        for logger, level in self.loggers:
            logger.setLevel(level)
        self.caught.__exit__(*exception)
