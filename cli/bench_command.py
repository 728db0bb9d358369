"""`cat2dog bench`: a checkpoint in every way that it can be run here, beside one another, into a result file."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import compose, console, options
from runtime.errors import InputError, ToolchainError

if TYPE_CHECKING:
    from bench.conductor import Entry, Plan, Task
    from bench.lineup import Subject
    from export.onnx_file import OnnxFile
    from export.recipe import Recipe

HELP = "measure a checkpoint in every way it can be run here, in turns, into a result file"
EXAMPLE = "cat2dog bench --model models/500m-256 --output bench/results/500m-256.json"

SHOWN = ("network", "picture")
PACKAGES = ("torch", "triton", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "pillow", "cuda-bindings")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.model_or_recipe(parser)
    options.precision(parser)
    parser.add_argument(
        "--engine",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE.engine",
        help="engines to measure under a name of their own, beside those that are filed for the checkpoint",
    )
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME", help="only these (default: all; see --list)")
    parser.add_argument("--list", action="store_true", help="list the peers, and why some cannot run here; no more")
    parser.add_argument(
        "--ladder", action="store_true", help="measure the rungs from the research form to the engine instead of peers"
    )
    parser.add_argument("--batch", default="1,4,8", metavar="N,...", help="batch sizes (default: 1,4,8)")
    parser.add_argument("--images", type=int, metavar="N", help="pictures that PSNR is over (default: all five)")
    parser.add_argument("--seconds", type=float, default=280.0, help="what it may all take (default: 280)")
    parser.add_argument("--rounds", type=int, default=6, help="turns that each peer gets for each figure (default: 6)")
    parser.add_argument("--turn-ms", type=float, default=150.0, metavar="MS", help="length of a turn (default: 150)")
    parser.add_argument("--startups", type=int, default=3, metavar="N", help="fresh processes a start-up (default: 3)")
    parser.add_argument(
        "--output",
        type=options.some_path,
        metavar="FILE.json",
        help="the result (default: build/bench/{checkpoint}_{precision}.json)",
    )
    options.build_folder(parser)
    options.json_output(parser)
    parser.set_defaults(opset=17)


def run(args: argparse.Namespace) -> int:
    """Measure, write, and print what was found."""
    from bench.conductor import METHOD, Conductor
    from bench.machine import machine
    from bench.results import peers_result
    from bench.schema import write_result
    from bench.sheet import pictured, sheet
    from bench.subject import described
    from runtime.files import write_bytes

    plan = _plan(args)
    if args.recipe:
        from cli.bench_recipe import bench_recipe

        return bench_recipe(args, plan)
    with console.progress("bench") as update:
        recipe = compose.recipe_of(args, update)
        subject, steps = _subject(args, recipe, update)
        entries = _entries(args, subject)
        if args.list:
            _print_list(args, entries)
            return 0
        kind = "ladder" if args.ladder else "peers"
        suffix = "_ladder" if args.ladder else ""
        output = args.output or args.build_dir / "bench" / f"{recipe.name}_{args.precision}{suffix}.json"
        options.check_build_folder(output.parent)
        task = _task(args, recipe, update)
        about = machine(PACKAGES, shlex.join(["cat2dog", *_words(args)]))
        what = described(recipe.name, recipe.config, args.precision, len(task.images))

        def save(complete: bool = False) -> None:
            known = conductor.peers, conductor.ceilings
            result.update(peers_result(kind, about, what, METHOD, *known, complete), steps=steps)
            write_result(output, result)

        result: dict[str, Any] = {}
        conductor = Conductor(entries, task, plan, update, save)
        conductor.run()
        save(complete=True)
        if not args.ladder and (name := pictured(result)):
            path = output.with_name(f"{output.stem}_pictures.jpg")
            write_bytes(path, sheet(task.images, task.expected, conductor.answers[name]))
    if args.json:
        console.print_json(result)
    else:
        _print(result)
        print(f"{output}: {sum(peer['status'] == 'measured' for peer in result['peers'])} of {len(entries)} measured")
    if not any(peer["latency"] for peer in result["peers"]):
        raise ToolchainError(f"nothing could be measured; {output} says why of each")
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    from bench.conductor import Plan

    try:
        batches = sorted({int(part) for part in args.batch.split(",")})
    except ValueError:
        batches = []
    if not batches or not all(1 <= batch <= 1 << 16 for batch in batches):
        raise InputError(f"batch '{args.batch}' is not a list of sizes such as 1,4,8")
    for name, least in (("rounds", 2), ("turn_ms", 1), ("startups", 1), ("seconds", 1), ("images", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} {value:g} is too little; expected at least {least}")
    batches = [1] if args.ladder else batches
    return Plan(batches, args.rounds, args.turn_ms, args.startups, args.seconds, verbose=args.verbose)


def _subject(args: argparse.Namespace, recipe: Recipe, update: console.Update) -> tuple[Subject, list[dict[str, Any]]]:
    """What is measured, and what exporting it took."""
    from bench.lineup import Subject
    from runtime.gpu import find_gpus

    # A GPU machine needs no FP32 file but for its CPU, which is measured there for the sake of completeness only.
    cpu = "fp32" if not find_gpus() else args.precision
    onnx = {precision: compose.onnx_path(args, recipe, precision) for precision in (args.precision, cpu)}
    wanted = not args.peers or args.ladder or any(name.startswith("onnxruntime") for name in args.peers)
    steps = []
    if wanted and not args.list:
        for precision in onnx:
            file = compose.exported(args, recipe, precision, update)
            onnx[precision] = file.path
            steps.append(_step(args, file, precision))
    engines = args.build_dir / "engines"
    subject = Subject(args.model, recipe.name, args.precision, onnx[args.precision], onnx[cpu], cpu, engines)
    return subject, steps


def _step(args: argparse.Namespace, file: OnnxFile, precision: str) -> dict[str, Any]:
    """What the export of this file took, when it was made."""
    return {
        "what": "export",
        "command": shlex.join(["cat2dog", "export", "--model", str(args.model), "--precision", precision]),
        "seconds": file.seconds,
        "peak_memory_bytes": file.peak_memory_bytes,
        "bytes": sum(each["size"] for each in file.files.values()),
    }


def _entries(args: argparse.Namespace, subject: Subject) -> list[Entry]:
    from bench.lineup import lineup
    from runtime.flavors import find_flavors

    flavors, given = find_flavors(), _given(args)
    if args.ladder:
        from bench.ladder import ladder

        entries = ladder(subject, flavors, given)
    else:
        entries = lineup(subject, flavors, given)
    names = [entry.name for entry in entries]
    for name in args.peers:
        if name not in names:
            raise InputError(f"there is no peer '{name}' here; expected some of {', '.join(names)}")
    return [entry for entry in entries if not args.peers or entry.name in args.peers]


def _given(args: argparse.Namespace) -> list[tuple[str, Path]]:
    given = []
    for text in args.engine:
        name, _, path = text.rpartition("=")
        given.append((name or Path(path).stem, Path(path)))
    names = [name for name, _ in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            f"two engines are called '{twice}': give them names, as --engine plain=A.engine fused=B.engine"
        )
    return given


def _task(args: argparse.Namespace, recipe: Recipe, update: console.Update) -> Task:
    from bench.conductor import Task
    from runtime.images import encode_image

    update("FP32 reference in PyTorch", None)
    feed = recipe.validation(args.images)
    images, expected = feed["image"], recipe.reference(feed)["dog"]
    return Task(images, expected, recipe.flops(), [encode_image(image, ".jpg") for image in images])


def _words(args: argparse.Namespace) -> list[str]:
    """The command again, as far as it decides what is measured."""
    words = ["bench", "--model", str(args.model), "--precision", args.precision, "--batch", args.batch]
    words += ["--ladder"] if args.ladder else []
    words += ["--engine", *args.engine] if args.engine else []
    words += ["--peers", *args.peers] if args.peers else []
    words += ["--images", str(args.images)] if args.images else []
    words += ["--rounds", str(args.rounds), "--turn-ms", f"{args.turn_ms:g}", "--startups", str(args.startups)]
    words += ["--seconds", f"{args.seconds:g}"]
    return words + (["--output", str(args.output)] if args.output else [])


def _print_list(args: argparse.Namespace, entries: list[Entry]) -> None:
    rows = [(entry.name, entry.about, entry.device, entry.precision, entry.reason or "runs") for entry in entries]
    if args.json:
        columns = ("name", "about", "device", "precision", "state")
        console.print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        console.table("peers", ("peer", "what it is", "device", "precision", "here"), rows)


def _print(result: dict[str, Any]) -> None:
    from bench.tables import peer_rows

    head, rows = peer_rows(result, ("network", "picture", "stream") if result["kind"] == "ladder" else SHOWN)
    subject = result["subject"]
    console.table(f"{subject['checkpoint']} {subject['precision']}, ms as median ± spread", head, rows)
    for peer in result["peers"]:
        if peer.get("reason"):
            print(f"note: {peer['name']}: {peer['reason']}", file=sys.stderr)
