"""`python -m zoo.convnext.profile`: where the time of one forward pass goes, as a flame chart.

Of PyTorch's profiler: modules within modules as far as they go, then operators; on a GPU widths are the kernels' time.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from zoo.command import Parser, run
from zoo.convnext import source

_WARM_UP = 2
_COLOURS = {
    "depthwise": "#d55e00",
    "norm": "#009e73",
    "mix": "#0072b2",
    "project": "#56b4e9",
    "activation": "#e69f00",
    "stem": "#cc79a7",
    "downs": "#cc79a7",
    "head": "#cc79a7",
}
_GREYS = ("#777777", "#999999")


@dataclass
class Part:
    """A module or operator, microseconds in all and in what is called from it."""

    name: str
    us: float = 0.0
    parts: dict[str, Part] = field(default_factory=dict)


def profiled(network: Any, batch: int, device: str, runs: int = 3) -> Part:
    """Mean microseconds of a forward pass by module path and operator, the root being the network.

    On a GPU, of its kernels alone; the host may need longer to launch them.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    x = torch.randn(batch, 3, network.config.resolution, network.config.resolution, device=device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    hooks = [hook for name, module in network.named_modules() if name for hook in _labelled(name, module)]
    try:
        with torch.no_grad():
            for _ in range(_WARM_UP):
                network(x)
            with profile(activities=activities) as session:
                for _ in range(runs):
                    network(x)
                if device == "cuda":
                    torch.cuda.synchronize()
    finally:
        for hook in hooks:
            hook.remove()
    root = Part("network")
    for event in session.events():
        if event.cpu_parent is None and event.device_type == torch.autograd.DeviceType.CPU:
            root.us += _add(root, event, device == "cuda", runs)
    return root


_MARK = "module:"


def _labelled(name: str, module: Any) -> list[Any]:
    """A range of the profiler around each call of a module."""
    import torch

    open_: list[Any] = []

    def enter(module: Any, given: Any) -> None:
        label = torch.profiler.record_function(f"{_MARK}{name}")
        label.__enter__()
        open_.append(label)

    def leave(module: Any, given: Any, made: Any) -> None:
        open_.pop().__exit__(None, None, None)

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _add(into: Part, event: Any, on_gpu: bool, runs: int) -> float:
    """Add an event and what it called; returns its microseconds. Operators within operators count as the outer one."""
    us = (event.device_time_total if on_gpu else event.cpu_time_total) / runs
    if us <= 0:
        return 0.0
    is_module = event.name.startswith(_MARK)
    label = event.name.removeprefix(_MARK).rsplit(".", 1)[-1] if is_module else event.name.removeprefix("aten::")
    key = event.name if is_module else label
    part = into.parts.setdefault(key, Part(label))
    part.us += us
    if is_module:
        for child in event.cpu_children:
            _add(part, child, on_gpu, runs)
    return us


def levels(root: Part) -> list[list[tuple[str, float, str]]]:
    """Rows for the flame, each as wide as the whole: what a part does itself is a part of its own, without a name."""
    rows: list[list[tuple[str, float, str]]] = []
    row = [(root, "#444444")]
    while any(part.name for part, _ in row):
        rows.append([(part.name, part.us, colour) for part, colour in row])
        below: list[tuple[Part, str]] = []
        for part, colour in row:
            inner = [each for each in part.parts.values() if each.us > 0]
            for index, each in enumerate(inner):
                own = next((value for word, value in _COLOURS.items() if word == each.name), None)
                below.append((each, own or (colour if colour in _COLOURS.values() else _GREYS[index % 2])))
            rest = part.us - sum(each.us for each in inner)
            if rest > 0:
                below.append((Part("", rest), "#ffffff"))
        row = below
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile and draw; returns the exit code."""
    parser = Parser(
        "python -m zoo.convnext.profile",
        "Where the time of one forward pass goes, as a flame chart.",
        "python -m zoo.convnext.profile --batch 64 --half --output flame.svg",
    )
    source.add_network(parser)
    source.add_device(parser)
    parser.add_argument("--batch", type=int, default=1, help="(default: 1)")
    parser.add_argument("--half", action="store_true", help="in FP16, on a GPU")
    parser.add_argument("--output", type=Path, default=Path("flame.svg"), metavar="FILE.svg|FILE.html")
    return run(parser, _profile, arguments)


def _profile(args: argparse.Namespace) -> int:
    if not 1 <= args.batch <= 4096:
        raise InputError(f"--batch {args.batch}; expected 1 to 4096")
    if args.output.suffix not in (".svg", ".html"):
        raise InputError(f"output {args.output} was given; expected a file ending in .svg or .html")
    device = source.device_of(args)
    if args.half and device != "cuda":
        raise InputError("--half is for a GPU: PyTorch's half precision runs in software on a CPU")
    from bench.machine import machine
    from bench.report.svg import flame
    from runtime.files import write_text

    classes = 200
    if args.checkpoint is not None:
        from zoo.convnext.checkpoint import load

        classes = load(args.checkpoint).config.classes
    network = source.network_of(args, classes).to(device)
    if args.half:
        network = _in_half(network)
    root = profiled(network, args.batch, device)
    drawing = flame(levels(root), "µs")
    about = machine(("torch",))
    where = about["gpu"] if device == "cuda" else f"{about['cpu']}, {about['cores']} cores"
    said = f"{source.name_of(args, network)}, batch {args.batch}, {'FP16' if args.half else 'FP32'}, {where}"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, drawing if args.output.suffix == ".svg" else _page(drawing, said))
    print(f"{args.output}: {root.us / 1000:.2f} ms in {'kernels' if device == 'cuda' else 'operators'}; {said}")
    for name, us in shares(root):
        print(f"  {name:14}{us / 1000:9.3f} ms{100 * us / root.us:7.1f} %")
    return 0


def _in_half(network: Any) -> Any:
    import torch

    network = network.half()
    network.register_forward_pre_hook(lambda module, given: (given[0].to(torch.float16),))
    return network


def shares(root: Part) -> list[tuple[str, float]]:
    """Microseconds of each kind of module, most first: the innermost modules, by their names without numbers."""
    sums: dict[str, float] = {}

    def walk(part: Part, key: str) -> None:
        modules = [(name, each) for name, each in part.parts.items() if name.startswith(_MARK)]
        for name, each in modules:
            walk(each, name)
        rest = part.us - sum(each.us for _, each in modules)
        name = re.sub(r"^\d+$", "residual", part.name) if key else "between"
        if rest > 0:
            sums[name] = sums.get(name, 0.0) + rest

    walk(root, "")
    return sorted(sums.items(), key=lambda each: -each[1])


def _page(drawing: str, said: str) -> str:
    """The drawing alone on a page, as wide as the window; hovering tells names and times."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{said}</title>'
    body = f"<p>{said}</p>{drawing}"
    return f'<!doctype html><html lang="en">{head}<body style="font-family:system-ui,sans-serif">{body}</body></html>'


if __name__ == "__main__":
    sys.exit(main())
