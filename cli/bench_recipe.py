"""`cat2dog bench --recipe`: a network of pictures in every way that it can be run here, whatever it answers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import compose, console, options
from runtime.errors import InputError, ToolchainError

if TYPE_CHECKING:
    from bench.conductor import Entry, Plan
    from export.recipe import Recipe

_FORMS = (("torch-eager", "PyTorch eager", ""), ("torch-compile", "torch.compile, default", "default"))


def bench_recipe(args: argparse.Namespace, plan: Plan) -> int:
    """Measure, write, and print what was found."""
    from bench.conductor import METHOD, Conductor, Task
    from bench.machine import command_line, machine
    from bench.results import peers_result
    from bench.schema import write_result
    from bench.tables import peer_rows
    from runtime.gpu import find_gpus

    if args.ladder or args.engine:
        raise InputError("--ladder and --engine are for checkpoints: leave them out with --recipe")
    with console.progress("bench") as update:
        recipe = compose.recipe_of(args, update)
        spec = _picture(recipe)
        on_gpu = bool(find_gpus())
        precision = args.precision if on_gpu else "fp32"
        entries = list(_entries(args, recipe, precision, on_gpu, update))
        unknown = [name for name in args.peers if name not in [entry.name for entry in entries]]
        if unknown:
            raise InputError(f"there is no peer '{unknown[0]}' here; expected some of {_names(entries)}")
        entries = [entry for entry in entries if not args.peers or entry.name in args.peers]
        if args.list:
            for entry in entries:
                print(f"{entry.name}: {entry.about}, {entry.device} {entry.precision}: {entry.reason or 'runs'}")
            return 0
        feed = recipe.validation(args.images)
        images, expected = feed[spec.name], recipe.reference(feed)[recipe.outputs[0].name]
        task = Task(images, expected, recipe.flops(), [], recipe.judge)
        output = args.output or args.build_dir / "bench" / f"{recipe.name}_{args.precision}.json"
        options.check_build_folder(output.parent)
        about = machine(("torch", "triton", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy"))
        about["command"] = command_line("cat2dog", sys.argv[1:])
        what = _described(recipe, args.precision, len(images))
        result: dict[str, Any] = {}

        def save(complete: bool = False) -> None:
            known = conductor.peers, conductor.ceilings
            result.update(peers_result("network", about, what, METHOD, *known, complete))
            write_result(output, result)

        conductor = Conductor(entries, task, replace(plan, levels=("network", "host")), update, save)
        conductor.run()
        save(complete=True)
    if args.json:
        console.print_json(result)
    else:
        head, rows = peer_rows(result, ("network", "host"))
        console.table(f"{recipe.name}, ms as median ± spread", head, rows)
        for peer in result["peers"]:
            if "scores" in peer:
                print(f"{peer['name']}: worst {peer['scores']['metric']} {peer['scores']['worst']}")
            if peer.get("reason"):
                print(f"note: {peer['name']}: {peer['reason']}", file=sys.stderr)
        print(f"{output}: {sum(peer['status'] == 'measured' for peer in result['peers'])} of {len(entries)} measured")
    if not any(peer["latency"] for peer in result["peers"]):
        raise ToolchainError(f"nothing could be measured; {output} says why of each")
    return 0


def _picture(recipe: Recipe) -> Any:
    """The recipe's one input. Raises InputError where it is no picture, or there are several outputs."""
    told = "; ".join(map(str, (*recipe.inputs, *recipe.outputs)))
    spec = recipe.inputs[0]
    shape = spec.shape
    if len(recipe.inputs) != 1 or spec.dtype != "uint8" or len(shape) != 4 or shape[3] != 3 or len(recipe.outputs) != 1:
        raise InputError(f"recipe '{recipe.name}' has '{told}'; bench takes one uint8 [B,R,R,3] in and one output")
    return spec


def _entries(
    args: argparse.Namespace, recipe: Recipe, precision: str, on_gpu: bool, update: console.Update
) -> Iterator[Entry]:
    from bench.conductor import Entry
    from bench.lineup import Subject, _onnxruntime, filed_engines
    from bench.peers.tensorrt_peer import engine_facts
    from runtime.flavors import python_variable
    from runtime.gpu import no_gpu_reason

    device = "cuda" if on_gpu else "cpu"
    for name, about, mode in _FORMS:
        spec = {"kind": "recipe", "recipe": args.recipe, "device": device, "precision": precision, "mode": mode}
        yield Entry(
            name, about, "gpu" if on_gpu else "cpu", precision, sys.executable, spec, alone=not mode, startups=1
        )
    onnx = {}
    for each in dict.fromkeys((args.precision, precision)):
        wanted = not args.list and (not args.peers or any(name.startswith("onnxruntime") for name in args.peers))
        onnx[each] = compose.exported(args, recipe, each, update).path if wanted else None
    subject = Subject(
        Path(recipe.name), recipe.name, args.precision, onnx[args.precision], onnx[precision], precision,
        args.build_dir / "engines",
    )  # fmt: skip
    yield from _onnxruntime(subject, on_gpu)
    for name, engines in filed_engines(subject).items():
        key = engines[0][1].key
        reason = "" if on_gpu else no_gpu_reason()
        spec = None if reason else {"kind": "tensorrt", "engines": [str(path) for path, _ in engines]}
        python = os.environ.get(python_variable(key.flavor)) or sys.executable
        about = f"{key.flavor} {key.flavor_version}, {key.attention} attention"
        extra = {"engine": engine_facts(engines[0][1])}
        yield Entry(name.replace(" ", "-"), about, "gpu", args.precision, python, spec, reason, extra=extra)


def _names(entries: list[Entry]) -> str:
    return ", ".join(entry.name for entry in entries)


def _described(recipe: Recipe, precision: str, images: int) -> dict[str, Any]:
    return {
        "checkpoint": recipe.name,
        "resolution": recipe.inputs[0].shape[1],
        "tokens": 1,
        "parameters": sum(weight.numel() for weight in recipe.module().parameters()),
        "precision": precision,
        "flops": recipe.flops(),
        "attention_flops": 0,
        "images": images,
    }
