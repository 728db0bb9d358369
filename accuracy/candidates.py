"""What a recipe is judged as: the neutral ONNX, its lowered form, and an engine where one runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from engines.batch import BatchProfile
from engines.build import choose_flavor, target_gpu
from engines.form import choose_form, choose_linear, fallback_form, linear_planner_for, pixels_planner_for, planner_for
from engines.lowering import lower
from engines.proxy import runnable
from runtime.errors import InputError

_ONE = BatchProfile(1, 1, 1)


def form_for(attention: str, flavor: str, precision: str) -> tuple[str, str]:
    """The attention form that engines take here, and why if that is not what decides.

    Without a TensorRT that builds, `auto` is `decomposed`. Raises InputError for a form that is not to be had.
    """
    try:
        chosen = choose_flavor(flavor)
    except InputError as error:
        if attention == "plugin" or flavor != "auto":
            raise
        form = "decomposed" if attention == "auto" else attention
        return form, f"attention is lowered to {form}: {error}"
    return choose_form(attention, chosen, precision, target_gpu(chosen, ())), ""


def lowered(neutral: Path, form: str, flavor: str = "auto", linear: str = "tensorrt", precision: str = "fp16") -> Path:
    """The graph that an engine of batch 1 would be built from. Raises InputError for a linear form not to be had."""
    planner, fallback, linear_planner, pixels_planner = None, "decomposed", None, None
    if form == "plugin" or linear != "tensorrt":
        linear = linear_for(linear, flavor, precision)
    if "plugin" in (form, linear):
        chosen = choose_flavor(flavor)
        gpu = target_gpu(chosen, ())
        assert gpu is not None  # choose_form and choose_linear give `plugin` only where there is one
        fallback = fallback_form(chosen)
        planner = planner_for(gpu.compute_capability, gpu.name) if form == "plugin" else None
        linear_planner = linear_planner_for(gpu.compute_capability, gpu.name) if linear == "plugin" else None
        pixels_planner = pixels_planner_for(gpu.compute_capability, gpu.name) if linear == "plugin" else None
    return lower(neutral, form, _ONE, planner, fallback, linear_planner, pixels=pixels_planner).path


def linear_for(linear: str, flavor: str, precision: str) -> str:
    """The form of linear layers to judge: for `auto`, kernels of ours wherever an engine might take them.

    Raises InputError for a form that is not to be had.
    """
    try:
        chosen = choose_flavor(flavor)
    except InputError:
        if linear == "plugin":
            raise
        return "tensorrt"
    taken = choose_linear(linear, chosen, precision, target_gpu(chosen, ()))
    return "plugin" if taken == "auto" else taken


def lowered_reference(neutral_fp32: Path, form: str) -> Path:
    """The FP32 graph with as many values in common with a graph lowered to `form` as can be."""
    return lower(neutral_fp32, "native" if form == "native" else "decomposed", _ONE).path


@contextlib.contextmanager
def runnable_here(graphs: dict[str, Path]) -> Iterator[dict[str, Path]]:
    """Each graph as ONNX Runtime's CPU runs it; copies that had to be made are removed at the end."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(runnable(path)) for name, path in graphs.items()}
