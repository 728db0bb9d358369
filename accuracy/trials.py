"""Scores precision policies of one recipe: traced once, then a graph for each policy, rounded as a GPU rounds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from accuracy.candidates import lowered
from engines.lowering import load
from engines.overflow import Overflow, run_watched
from engines.proxy import rounded
from engines.validation import Validation, answers
from export.families import families
from export.policy import Island, Policy
from export.precision import apply_policy, computing_nodes, drop_unused_initializers
from export.recipe import Recipe
from export.trace import trace
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner

# Weights of at least so many bytes are not copied for each policy, but rounded while the graph is loaded.
_LARGE_BYTES = 1024


class Trials:
    """A recipe to be scored at `precision` under any islands; `close` removes its files.

    `form` is the attention form that graphs are lowered to; scores are by `validation`'s metric, one a sample.
    Raises InputError where the recipe cannot be traced with a dynamic batch.
    """

    def __init__(
        self, recipe: Recipe, precision: str, form: str, flavor: str, validation: Validation, folder: Path, opset: int
    ):
        self.precision, self.form, self.flavor, self.validation = precision, form, flavor, validation
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="search-", dir=folder))
        try:
            model = trace(recipe, opset)
            self.families = families(model, precision)
            self._traced = self._folder / "traced.onnx"
            # The modules' names and classes are in the nodes' metadata, which an exported file has no more.
            ir.save(model, self._traced, external_data="traced.onnx.data", size_threshold_bytes=_LARGE_BYTES)
            self._masks = _masks(model)
        except BaseException:
            self.close()
            raise

    def scores(self, islands: Sequence[Island]) -> list[float]:
        """One score a sample."""
        with rounded(self._lowered(Policy(self.precision, tuple(islands)))) as path, OnnxRuntimeRunner(path) as runner:
            got = answers(runner, self.validation, 1)
        return scores(self.validation.metric, got, self.validation.expected)

    def overflow(self, islands: Sequence[Island]) -> Overflow | None:
        """The first layer that overflows or makes NaN under these islands, on the first sample."""
        feed = {name: array[:1] for name, array in self.validation.feed.items()}
        return run_watched(self._lowered(Policy(self.precision, tuple(islands))), feed)[1]

    def held(self, islands: Sequence[Island]) -> set[str]:
        """Names of the nodes that compute in FP32 because of `islands`."""
        model = load(self._traced)
        narrow = {str(node.name) for node in computing_nodes(model, Policy(self.precision, tuple(islands)))}
        return {str(node.name) for node in computing_nodes(model, Policy(self.precision))} - narrow

    def fp32(self) -> Path:
        """The lowered graph with everything in FP32."""
        return self._lowered(Policy("fp32"))

    def _lowered(self, policy: Policy) -> Path:
        model = load(self._traced)
        apply_policy(model, policy)
        if policy.precision != "fp32":
            self._round_on_loading(model, policy.precision)
        drop_unused_initializers(model)
        path = self._folder / f"trial_{policy.precision}.onnx"
        ir.save(model, path)
        return lowered(path, self.form, self.flavor)

    def _round_on_loading(self, model: ir.Model, precision: str) -> None:
        """Large rounded weights become casts of the FP32 ones, which ONNX Runtime folds; so no weights are written."""
        suffix = f".{precision}"
        first = next(iter(model.graph))
        for name, value in list(model.graph.initializers.items()):
            source = model.graph.initializers.get(name.removesuffix(suffix))
            if not name.endswith(suffix) or source is None or source.const_value is None or source.name in self._masks:
                continue
            if source.const_value.nbytes < _LARGE_BYTES:
                continue
            output = ir.Value(name=f"{name}.cast", type=value.type, shape=value.shape)
            assert value.dtype is not None
            cast = ir.node("Cast", [source], {"to": int(value.dtype)}, outputs=[output], name=f"{name}/Cast_weight")
            model.graph.insert_before(first, cast)
            for use in list(value.uses()):
                use.node.replace_input_with(use.idx, output)
            del model.graph.initializers[name]

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def _masks(model: ir.Model) -> set[str]:
    """Constants filled with FP32's most negative number: rounding them takes more than a cast (`export.weights`)."""
    extreme = np.finfo(np.float32).max
    return {
        str(name)
        for name, value in model.graph.initializers.items()
        if value.dtype == ir.DataType.FLOAT
        and value.const_value is not None
        and value.const_value.size
        and np.abs(value.const_value.numpy()).max() >= extreme
    }
