"""`cat2dog accuracy`: how far a network is from PyTorch as ONNX and as engine, and where it begins to be."""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import accuracy_determinism, accuracy_search, build_command, compose, console, options
from cli.accuracy_search import AIM_DB
from runtime.errors import AccuracyError, InputError, MissingExtra, ToolchainError

if TYPE_CHECKING:
    from accuracy.comparison import Judged
    from accuracy.divergence import Divergence
    from export.recipe import Recipe

HELP = "compare ONNX and engines with PyTorch in Polygraphy, and find the first block and operator that diverge"
EXAMPLE = "cat2dog accuracy --model models/500m-256 --precision fp16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.model_or_recipe(parser)
    options.precision(parser)
    options.policy(parser)
    parser.add_argument(
        "--attention",
        choices=("auto", "plugin", "native", "decomposed"),
        default="auto",
        help="form of attention in the lowered graph (default: auto, what `cat2dog build` takes here)",
    )
    build_command.add_linear_argument(parser)
    parser.add_argument("--flavor", choices=("auto", "tensorrt", "tensorrt_rtx"), default="auto", help="which TensorRT")
    parser.add_argument(
        "--output",
        type=options.some_path,
        metavar="FOLDER",
        help="where inputs, outputs, report and plot go (default: build/accuracy/{name}_{precision})",
    )
    parser.add_argument(
        "--no-blocks", action="store_true", help="judge only; do not look for the block and operator that diverge"
    )
    parser.add_argument(
        "--search",
        type=float,
        nargs="?",
        const=math.nan,
        metavar="SCORE",
        help="find the fewest FP32 islands whose worst sample reaches SCORE, and write them as a policy that --policy"
        f" takes (default: {AIM_DB:g} dB for pictures, else what the recipe asks for)",
    )
    parser.add_argument(
        "--determinism",
        type=int,
        nargs="?",
        const=5,
        metavar="REPEATS",
        help="instead, run the same inputs again (default: 5 times), in another build and at other places of a batch",
    )
    parser.add_argument(
        "--engine",
        type=options.some_path,
        nargs="+",
        metavar="FILE.engine",
        help="take these engines of --model instead of the one that `cat2dog build` would make",
    )
    options.opset(parser)
    options.build_folder(parser)
    options.json_output(parser)
    # An engine of batch 1, as `cat2dog build` makes it when nothing else is asked for.
    parser.set_defaults(batch="1", targets=None, workspace=None, optimization_level=None)


def run(args: argparse.Namespace) -> int:
    """Compare, report, and raise AccuracyError where the verdict is bad."""
    if args.search is not None and args.determinism is not None:
        raise InputError("--search and --determinism are two questions: ask one at a time")
    if args.search is not None:
        return accuracy_search.run(args)
    if args.determinism is not None:
        return accuracy_determinism.run(args)
    _need_polygraphy()
    with console.progress("accuracy") as update:
        recipe = compose.recipe_of(args, update)
        facts = _examine(args, recipe, update)
    if args.json:
        console.print_json(facts)
    else:
        _print(facts)
    if facts["verdict"] == "failed":
        raise AccuracyError(_failure(facts))
    return 0


def _need_polygraphy() -> None:
    try:
        import polygraphy  # noqa: F401
    except ImportError as error:
        raise MissingExtra("polygraphy", "comparing networks", "'cat2dog[accuracy]'") from error


def _examine(args: argparse.Namespace, recipe: Recipe, update: console.Update) -> dict[str, Any]:
    from accuracy.candidates import form_for, lowered, runnable_here
    from accuracy.comparison import compare
    from accuracy.polygraphy_runner import onnx_runner
    from cli.accuracy_engines import given_engines
    from engines.proxy import rounded
    from runtime.files import write_text

    folder = args.output or args.build_dir / "accuracy" / f"{recipe.name}_{args.precision}"
    options.check_build_folder(folder)
    given = given_engines(args, recipe, update) if args.engine else []
    form, note = form_for(args.attention, args.flavor, args.precision)
    neutral = compose.exported(args, recipe, args.precision, update).path
    graphs = {"onnx": neutral, f"lowered-{form}": lowered(neutral, form, args.flavor, args.linear, args.precision)}
    validation = compose.validation_of(recipe, update)
    if given:
        engine, engine_note, refused = [_house_runner(path, path.name) for path in given], "", False
    else:
        engine, engine_note, refused = _engine(args, recipe, validation, update)
    update("comparing", None)
    with runnable_here(graphs) as paths, contextlib.ExitStack() as copies:
        candidate = list(paths.values())[1]
        runners = [onnx_runner(path, f"onnxruntime-{name}") for name, path in paths.items()]
        if args.precision == "fp16":
            runners.append(onnx_runner(copies.enter_context(rounded(candidate)), f"onnxruntime-rounded-{form}"))
        judge = (validation.metric, validation.threshold)
        found = compare([*runners, *engine], validation.feed, validation.expected, judge, folder)
        worst = min(found[: len(runners)], key=lambda each: min(each.scores)).worst
        divergence = None
        if not args.no_blocks:
            sample = {name: array[worst : worst + 1] for name, array in validation.feed.items()}
            divergence = _diverge(args, recipe, form, candidate, sample, folder, update)
        plain = [path for name, path in graphs.items() if paths[name] == path]
    passed = all(each.passed for each in found) and not refused
    facts: dict[str, Any] = {
        "name": recipe.name,
        "precision": args.precision,
        "attention": form,
        "linear": args.linear,
        "metric": validation.metric,
        "threshold": validation.threshold,
        "against": validation.against,
        "verdict": "passed" if passed else "failed",
        "candidates": [_candidate(each) for each in found],
        "notes": [each for each in (note, engine_note) if each],
        "divergence": divergence.facts() if divergence else None,
        "sample": worst,
        "folder": folder,
        "commands": [_polygraphy(path, folder) for path in plain],
    }
    write_text(folder / "report.json", console.json_text(facts))
    return facts


def _engine(
    args: argparse.Namespace, recipe: Recipe, validation: Any, update: console.Update
) -> tuple[list, str, bool]:
    """Polygraphy runners of the engine (one or none), a note where there is none, whether its gate refused it."""
    from cli.runners import settle_gate
    from runtime.engine_file import engine_manifest
    from runtime.flavors import find_flavors
    from runtime.gpu import find_gpus, no_gpu_reason

    flavors = [each for each in find_flavors() if args.flavor in ("auto", each.name)]
    if not find_gpus() or not any(each.can_run for each in flavors):
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in flavors if each.reason) or no_gpu_reason()
        return [], f"no engine was run: {reasons}", False
    from engines.build import build, find

    request = compose.build_request(args, recipe, update)
    try:
        made = find(request) or build(replace(request, validation=validation), update)
        if engine_manifest(made.path).gate.state == "pending":
            settle_gate(made.path, recipe, update)
    except AccuracyError as refusal:
        return [], str(refusal).split(": find the diverging layer")[0], True
    except ToolchainError as reason:  # what can be said of the ONNX is worth saying without an engine
        return [], f"no engine was run: {reason}", False
    return [_house_runner(made.path, f"{made.manifest.key.flavor}-engine")], "", False


def _house_runner(path: Path, name: str) -> Any:
    from accuracy.polygraphy_runner import HouseRunner
    from engines.elsewhere import engine_runner

    return HouseRunner(lambda: engine_runner(path), name)


def _diverge(
    args: argparse.Namespace,
    recipe: Recipe,
    form: str,
    candidate: Path,
    sample: dict,
    folder: Path,
    update: console.Update,
) -> Divergence:
    from accuracy.candidates import lowered_reference
    from accuracy.divergence import first_divergence
    from accuracy.plot import write_plot

    neutral = compose.exported(args, recipe, "fp32", update).path
    # In FP32 the graph as it was exported shows what lowering did to it.
    reference = neutral if args.precision == "fp32" else lowered_reference(neutral, form)
    update("looking for the first divergence", None)
    divergence = first_divergence(candidate, reference, sample, args.precision)
    if divergence.blocks:
        write_plot(folder / "divergence.png", divergence, f"{recipe.name} {args.precision}")
    return divergence


def _candidate(judged: Judged) -> dict[str, Any]:
    return {
        "name": judged.name,
        "passed": judged.passed,
        "scores": list(judged.scores),
        "outputs": {name: asdict(measures) for name, measures in judged.outputs.items()},
    }


def _polygraphy(onnx: Path, folder: Path) -> str:
    from accuracy.comparison import GOLDEN_FILE, INPUTS_FILE, SCRIPT_FILE

    words = ["polygraphy", "run", onnx, "--onnxrt", "--load-inputs", folder / INPUTS_FILE]
    words += ["--load-outputs", folder / GOLDEN_FILE, "--compare-func-script", folder / SCRIPT_FILE, "--validate"]
    return shlex.join(map(str, words))


def _print(facts: dict[str, Any]) -> None:
    from accuracy.judged import score_text

    title = f"{facts['name']} {facts['precision']} against {facts['against']}; worst sample of each"
    columns = ("runner", "output", facts["metric"], "SSIM", "grey levels", "relative error", "cosine", "verdict")
    rows = [
        (
            each["name"],
            output,
            score_text(facts["metric"], min(each["scores"])),
            *(None if m[name] is None else f"{m[name]:.5g}" for name in ("ssim", "grey_levels")),
            f"{m['relative_error']:.2e}",
            f"{m['cosine']:.6f}",
            "passed" if each["passed"] else "failed",
        )
        for each in facts["candidates"]
        for output, m in each["outputs"].items()
    ]
    console.table(title, columns, rows)
    if divergence := facts["divergence"]:
        _print_blocks(divergence)
    for note in facts["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(f"verdict: {facts['verdict']}, expected {facts['metric']} of at least {facts['threshold']:g}; "
          f"files in {facts['folder']}")  # fmt: skip
    for command in facts["commands"]:
        print(f"again: {command}")


def _print_blocks(divergence: dict[str, Any]) -> None:
    def error(value: float | None) -> str:
        return "-" if value is None else f"{value:.1e}"

    rows = [
        (
            ("> " if block["name"] == divergence["suspect"] else "") + block["name"],
            error(block["error"]),
            error(block["own"]),
            f"{block['largest']:.4g}",
            block["not_finite"],
        )
        for block in divergence["blocks"]
    ]
    if rows:
        console.table("error against depth", ("block", "error", "own error", "largest", "NaN or infinite"), rows)
    print(f"first divergence: {divergence['why']}")


def _failure(facts: dict[str, Any]) -> str:
    from accuracy.judged import score_text

    failed = [each for each in facts["candidates"] if not each["passed"]]
    what = "; ".join(
        f"{each['name']} has {facts['metric']} {score_text(facts['metric'], min(each['scores']))}" for each in failed
    )
    where = facts["divergence"]["why"] if facts["divergence"] else "look for the layer without --no-blocks"
    with contextlib.suppress(StopIteration):
        what = what or next(note for note in facts["notes"] if "gate" in note)
    return f"{what}; expected at least {facts['threshold']:g}: {where}"
