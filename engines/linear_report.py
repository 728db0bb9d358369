"""What became of an engine's linear layers, a line for each distinct one."""

from __future__ import annotations

from collections.abc import Iterable

from engines.form import linear_obstacle
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from runtime.manifest import EngineKey, LinearChoice

_NAMES = {"plugin": "plugin", "tensorrt": "TensorRT's own"}


def linear_lines(key: EngineKey, choices: Iterable[LinearChoice]) -> list[str]:
    """`choice_lines`; of an engine that has no kernels of ours to choose from, why that is."""
    if "linear" in key.options:
        return choice_lines(choices)
    flavor = Flavor(key.flavor, key.flavor_version, "", can_build=True, can_run=key.gpu is not None)
    gpu = Gpu(0, key.gpu, key.compute_capability or "", 0, "") if key.gpu is not None else None
    return [f"TensorRT's own: {linear_obstacle(flavor, key.precision, gpu) or 'as asked'}"]


def choice_lines(choices: Iterable[LinearChoice]) -> list[str]:
    """`24 x plugin, 0.0181 ms (TensorRT's own 0.0240), measured: 256 tokens, ...`, in the order of the graph.

    Layers that differ in nothing but their weights share a line; a time is that of a layer with those that were
    measured together with it, in whatever form was the fastest beside it.
    """
    counts: dict[tuple[str, str], int] = {}
    for choice in choices:
        times = choice.milliseconds
        own = f", {times[choice.form]:.4f} ms" if choice.form in times else ""
        others = [f"{_NAMES.get(form, form)} {time:.4f}" for form, time in times.items() if form != choice.form]
        beside = f" ({', '.join(others)})" if others else ""
        line = f"{_NAMES.get(choice.form, choice.form)}{own}{beside}", choice.why
        counts[line] = counts.get(line, 0) + 1
    return [f"{count} x {taken}: {why}" for (taken, why), count in counts.items()]
