"""`cat2dog accuracy --determinism`: the same input again, from another build, and at another place in a batch."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import compose, console, options
from cli.provenance import provenance
from runtime.errors import InputError

if TYPE_CHECKING:
    from accuracy.determinism import Open
    from export.recipe import Recipe

REPORT_FILE = "determinism.json"
# Enough places to tell a kernel that depends on its place, few enough for a CPU.
_BATCH = 4
_SAID = {
    "again": "the same again, in one runner",
    "builds": "from another build",
    "positions": "at another place in a batch",
    "alone": "in a batch, against alone",
}


def run(args: argparse.Namespace) -> int:
    """Measure, file and print; differences are no failure."""
    if args.determinism < 2:
        raise InputError(f"--determinism {args.determinism} repeats nothing: give at least 2")
    with console.progress("determinism") as update:
        recipe = compose.recipe_of(args, update)
        folder = args.output or args.build_dir / "accuracy" / f"{recipe.name}_{args.precision}_determinism"
        options.check_build_folder(folder)
        facts = _measure(args, recipe, update)
        from runtime.files import write_text

        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / REPORT_FILE, console.json_text(facts) + "\n")
    if args.json:
        console.print_json(facts)
    else:
        _print(facts, folder)
    return 0


def _measure(args: argparse.Namespace, recipe: Recipe, update: console.Update) -> dict[str, Any]:
    from accuracy.determinism import measure

    with contextlib.ExitStack() as stack:
        builds, what, precision = _engines(args, recipe, update) if args.engine else _onnx(args, recipe, update, stack)
        found = measure(builds, recipe.validation(), args.determinism, _BATCH, update)
    return {"machine": provenance(), "name": recipe.name, "precision": precision, "what": what, **found}


def _engines(args: argparse.Namespace, recipe: Recipe, update: console.Update) -> tuple[list[Open], str, str]:
    """The engines given; of a single one, a second load stands for a second build, and is called that."""
    from cli.accuracy_engines import given_engines
    from engines.elsewhere import engine_runner
    from runtime.engine_file import engine_manifest

    given_engines(args, recipe, update)
    key = engine_manifest(args.engine[0]).key
    single = " (one engine, loaded twice)" if len(args.engine) == 1 else f" ({len(args.engine)} engines)"

    def opener(path: Path) -> Open:
        return lambda: engine_runner(path)

    paths = args.engine * 2 if len(args.engine) == 1 else args.engine
    return [opener(path) for path in paths], f"{key.flavor} {key.flavor_version}{single}", key.precision


def _onnx(
    args: argparse.Namespace, recipe: Recipe, update: console.Update, stack: contextlib.ExitStack
) -> tuple[list[Open], str, str]:
    from engines.proxy import runnable
    from runtime.onnxruntime_runner import OnnxRuntimeRunner

    path = stack.enter_context(runnable(compose.exported(args, recipe, args.precision, update).path))
    return [lambda: OnnxRuntimeRunner(path)] * 2, "ONNX Runtime on the CPU (one file, two sessions)", args.precision


def _print(facts: Mapping[str, Any], folder: Path) -> None:
    rows = []
    for name, said in _SAID.items():
        each = facts[name]
        if each is None:
            rows.append((said, None, None, None, None))
            continue
        equal = f"{each['equal']} of {each['comparisons']}"
        rows.append((said, equal, f"{each['largest']:g}", f"{each['share']:.2%}", f"{each['relative']:.1e}"))
    columns = ("one input", "bit for bit", "largest difference", "values that differ", "relative error")
    console.table(f"{facts['name']} {facts['precision']}, {facts['what']}", columns, rows)
    if facts["positions"] is None:
        print("places in a batch were not compared: it takes one sample at a time")
    elif facts["alone"] is None:
        print(f"no sample was run alone: it takes {facts['batch']} at a time")
    print(f"report in {folder / REPORT_FILE}")
