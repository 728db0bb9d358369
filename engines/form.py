"""Which forms of attention and linear layers an engine takes, and where kernels come from if that is `plugin`."""

from __future__ import annotations

import importlib
from typing import Any

from engines.attention import FORMS
from engines.kernels.linear_problem import LinearPlanner
from engines.kernels.pixels_problem import PixelsPlanner
from engines.kernels.problem import Planner, Unsupported
from runtime.errors import InputError
from runtime.flavors import TENSORRT, TENSORRT_RTX, Flavor
from runtime.gpu import Gpu

# Fused kernels of ours, TensorRT's own layers, or of each the faster by measurement.
LINEAR_FORMS = ("plugin", "tensorrt", "auto")


def choose_form(attention: str, flavor: Flavor, precision: str = "fp16", gpu: Gpu | None = None) -> str:
    """The form asked for, or what `auto` comes to.

    `auto` is `native` where the flavor imports it as one fused layer, else `plugin` where there are kernels for `gpu`,
    else `decomposed`. Raises InputError for a form the flavor has not, or not in this precision or on this GPU.
    """
    if attention not in (*FORMS, "auto"):
        raise InputError(f"attention form '{attention}' is not one of {', '.join(FORMS)}, auto")
    # The fused kernels are of half precision; in FP32 TensorRT finds none and gives up.
    if precision == "fp32" and attention in ("native", "plugin"):
        raise InputError(f"{attention} attention has no FP32 kernels: use --attention decomposed, or fp16 or bf16")
    if attention == "native" and not has_native(flavor):
        raise InputError(f"{flavor.name} {flavor.version} has no native attention (10.14 brought it): use decomposed")
    if attention == "plugin" and (obstacle := plugin_obstacle(flavor, gpu)):
        raise InputError(f"no plugin attention: {obstacle}; use {fallback_form(flavor)}")
    if attention != "auto":
        return attention
    if precision == "fp32":
        return "decomposed"
    if has_native(flavor):
        return "native"
    return "decomposed" if plugin_obstacle(flavor, gpu) else "plugin"


def choose_linear(linear: str, flavor: Flavor, precision: str = "fp16", gpu: Gpu | None = None) -> str:
    """The form of linear layers that was asked for; `auto` is `tensorrt` where there is nothing to choose from.

    Raises InputError for one the flavor has not, or not in this precision or on this GPU.
    """
    if linear not in LINEAR_FORMS:
        raise InputError(f"linear form '{linear}' is not one of {', '.join(LINEAR_FORMS)}")
    if linear == "tensorrt" or not (obstacle := linear_obstacle(flavor, precision, gpu)):
        return linear
    if linear == "auto":
        return "tensorrt"
    raise InputError(f"no plugin for linear layers: {obstacle}; use --linear tensorrt")


def linear_obstacle(flavor: Flavor, precision: str, gpu: Gpu | None) -> str:
    """Why our fused linear layers cannot run in an engine of this flavor on this GPU, or "" where they can."""
    if precision == "fp32":
        return "its kernels are of half precision, not of FP32"
    if (obstacle := plugin_obstacle(flavor, gpu)) or gpu is None:
        return obstacle
    try:
        linear_planner_for(gpu.compute_capability, gpu.name)
    except Unsupported as reason:
        return str(reason)
    return ""


def has_native(flavor: Flavor) -> bool:
    """Whether the flavor imports ONNX `Attention` as one fused layer."""
    return flavor.name == TENSORRT_RTX or _at_least(flavor.version or "0", (10, 14))


def fallback_form(flavor: Flavor) -> str:
    """What nodes without a fused kernel of ours become, and engines without the plugin."""
    return "native" if has_native(flavor) else "decomposed"


def plugin_obstacle(flavor: Flavor, gpu: Gpu | None) -> str:
    """Why our fused kernels cannot run in an engine of this flavor on this GPU, or "" where they can."""
    if flavor.name != TENSORRT:
        return f"{flavor.name} has no plugins"
    if gpu is None:
        return "its kernels are chosen for the GPU they run on, so it is built where that is, without --targets"
    return _library().available(gpu.compute_capability)


def planner_for(compute_capability: str, gpu_name: str) -> Planner:
    """What chooses and compiles the kernels for a GPU."""
    return _library().planner(compute_capability, gpu_name)


def linear_planner_for(compute_capability: str, gpu_name: str) -> LinearPlanner:
    """What chooses and compiles the kernels of linear layers. Raises Unsupported for a GPU that has none."""
    module = importlib.import_module("engines.kernels.linear_library")
    return module.linear_planner(compute_capability, gpu_name)


def pixels_planner_for(compute_capability: str, gpu_name: str) -> PixelsPlanner:
    """What compiles the kernels of pixels. Raises Unsupported for a GPU that has none."""
    module = importlib.import_module("engines.kernels.pixels_plan")
    return module.pixels_planner(compute_capability, gpu_name)


def kernels_identity() -> tuple[str, ...]:
    """For the key of an engine: what decides which kernels `planner_for` gives."""
    return (_library().identity(),)


def _library() -> Any:
    """The kernels, loaded only where they are asked for: an engine of another form needs none."""
    return importlib.import_module("engines.kernels.library")


def _at_least(version: str, least: tuple[int, int]) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return numbers >= least
