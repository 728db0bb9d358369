"""Which attention form an engine takes, and where its kernels come from if that is `plugin`."""

from __future__ import annotations

import importlib
from typing import Any

from engines.attention import FORMS
from engines.kernels.problem import Planner
from runtime.errors import InputError
from runtime.flavors import TENSORRT, TENSORRT_RTX, Flavor
from runtime.gpu import Gpu


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


def kernels_identity() -> tuple[str, ...]:
    """For the key of an engine: what decides which kernels `planner_for` gives."""
    return (_library().identity(),)


def _library() -> Any:
    """The kernels, loaded only where they are asked for: an engine of another form needs none."""
    return importlib.import_module("engines.kernels.library")


def _at_least(version: str, least: tuple[int, int]) -> bool:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return numbers >= least
