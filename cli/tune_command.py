"""`cat2dog tune`: measure the fused kernels of checkpoints on the GPU at hand, and file the winners."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import console, options
from runtime.errors import InputError, ToolchainError

if TYPE_CHECKING:
    from cat2dog.config import Config
    from engines.kernels.linear_key import LinearKey
    from engines.kernels.tables import Entry, Key, ProblemKey, Table, Timing

HELP = "measure the fused kernels on this GPU and file the fastest for engines to use"
EXAMPLE = "cat2dog tune --model 500m-256 500m-1024 --precision fp16 --batch 1,4"
# Multiprocessors of a usual GPU of each capability, where none is at hand: A100, RTX 3090, RTX 4090, H100, B200,
# RTX 5090.
_MULTIPROCESSORS = {"8.0": 108, "8.6": 82, "8.9": 128, "9.0": 132, "10.0": 148, "12.0": 170}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="NAME",
        default=[],
        help="checkpoint folders, or names of checkpoints that need not be here (default: every named one)",
    )
    parser.add_argument(
        "--onnx",
        nargs="+",
        type=options.some_path,
        metavar="FILE",
        default=[],
        help="exported ONNX files: every attention in them that fused kernels cover, in the precision of the file",
    )
    parser.add_argument(
        "--precision", nargs="+", choices=("fp16", "bf16"), default=["fp16", "bf16"], help="default: both"
    )
    parser.add_argument(
        "--kernels",
        choices=("attention", "linear", "all"),
        default="attention",
        help="of checkpoints: attention (default), linear layers, or all that engines of fused layers have",
    )
    parser.add_argument("--batch", default="1,4,8", metavar="N,...", help="batch sizes (default: 1,4,8)")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="without the QK-norm and RoPE that the checkpoints have inside attention",
    )
    parser.add_argument(
        "--compile-only",
        action="store_true",
        help="compile what would be measured, for a GPU machine without compilers; needs no GPU",
    )
    parser.add_argument("--target", metavar="CC", help="compute capability to compile for, with --compile-only (9.0)")
    parser.add_argument(
        "--output", type=options.some_path, metavar="FILE", help="the table (default: build/kernels/tuned/GPU.json)"
    )
    parser.add_argument(
        "--results",
        type=options.some_path,
        metavar="FILE",
        help="also write every timing, of the slow ones too, as JSON",
    )
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, and file after every problem."""
    keys = _keys(args)
    if args.compile_only:
        if args.output or args.results:
            raise InputError("--output and --results go with measuring; --compile-only fills the folder of kernels")
        return _compile(args, keys)
    if args.target:
        raise InputError("--target goes with --compile-only; measuring is for the GPU at hand")
    from cli.tune_blocks import block_line, tuned_block
    from engines.kernels import images
    from engines.kernels.library import target_of
    from engines.kernels.problem import Unsupported
    from engines.kernels.tables import read_table, table_name
    from engines.kernels.tune import compile_all, tune
    from runtime import cuda, gpu

    gpus = gpu.find_gpus()
    if not gpus:
        raise ToolchainError(f"tuning needs an NVIDIA GPU: {gpu.no_gpu_reason()}; --compile-only needs none")
    chosen = gpus[0]
    target = target_of(chosen.compute_capability)
    if target is None:
        raise InputError(f"no kernel runs on {chosen.name} (compute capability {chosen.compute_capability})")
    cuda.set_device(chosen.index)
    path = args.output or images.folder() / "tuned" / table_name(chosen.name, chosen.compute_capability)
    table = _about(
        args, chosen.name, chosen.compute_capability, gpu.multiprocessors(chosen.index), gpu.driver_version()
    )
    if path.exists():
        before = read_table(path)
        if before.gpu != table.gpu:
            raise InputError(f"{path} was measured on {before.gpu}, this is {table.gpu}: give another --output")
        table = table.merged(before.entries)
    everything: list[dict[str, Any]] = []
    measured: list[tuple[Entry, list[Timing]]] = []
    with console.progress("tune") as update:
        if not images.why_not(*_compilers(keys)):
            compile_all(keys, target, table.multiprocessors, update, os.cpu_count() or 1)
        for number, key in enumerate(keys):
            seeds = _seeds(key, measured)
            entry, timings = tune(key, target, table.multiprocessors, seeds, update)
            measured.append((entry, timings))
            table = table.merged([entry])
            table.write(path)
            everything.append(_described(key, timings))
            if args.results:
                _write_results(args.results, table, everything)
            if not args.json:
                best = entry.timings[0]
                rate = key.problem().operations * key.batch / best.median / 1e6
                print(
                    f"{number + 1}/{len(keys)} {key}: {best.median:.1f} us, {rate:.0f} TFLOP/s, {best.variant}",
                    flush=True,
                )
        for label, layers, attention in _blocks(args):
            try:
                entries = tuned_block(layers, attention, table, chosen, target, update)
            except Unsupported as reason:
                print(f"{label}: not measured as a whole: {reason}", file=sys.stderr, flush=True)
                continue
            table = table.merged(entries)
            table.write(path)
            if not args.json:
                print(block_line(label, layers, entries), flush=True)
    if args.json:
        console.print_json({"table": path, "problems": everything})
    else:
        print(f"{path}: {len(table.entries)} problems")
    return 0


def _keys(args: argparse.Namespace) -> list[Key]:
    from cli.tune_keys import attention_keys, linear_keys

    keys: dict[Key, None] = dict.fromkeys(key for path in args.onnx for key in _keys_of(path, _batches(args)))
    for config in _configs(args):
        for precision, batch in itertools.product(args.precision, _batches(args)):
            if args.kernels != "linear":
                keys.update(dict.fromkeys(attention_keys(config, precision, batch, args.plain, args.kernels == "all")))
            if args.kernels != "attention":
                keys.update(dict.fromkeys(linear_keys(config, precision, batch)))
    return list(keys)


def _blocks(args: argparse.Namespace) -> list[tuple[str, dict[str, LinearKey], ProblemKey]]:
    """Each block to measure as a whole: what it is called, its layers by name, its attention."""
    from cli.tune_keys import block_keys

    if args.kernels == "attention":
        return []
    blocks = []
    for config in _configs(args):
        for precision, batch in itertools.product(args.precision, _batches(args)):
            label = f"block of {config.tokens} tokens, width {config.width}, {precision}, batch {batch}"
            if keys := block_keys(config, precision, batch):
                blocks.append((label, *keys))
    return blocks


def _configs(args: argparse.Namespace) -> list[Config]:
    from cat2dog.config import NAMED, load_config, lookup

    folders = [Path(name) for name in args.model or ([] if args.onnx else sorted(NAMED))]
    return [load_config(path) if (path / "config.json").exists() else lookup(path.name) for path in folders]


def _batches(args: argparse.Namespace) -> list[int]:
    try:
        batches = [int(part) for part in args.batch.split(",")]
    except ValueError:
        batches = []
    if not batches or not all(1 <= batch <= 1 << 16 for batch in batches):
        raise InputError(f"batch '{args.batch}' is not a list of sizes such as 1,4,8")
    return batches


def _compilers(keys: list[Key]) -> tuple[str, ...]:
    """Those that these kernels need; none stands for all."""
    from engines.kernels.linear_key import LinearKey

    return ("nvrtc",) if all(isinstance(key, LinearKey) for key in keys) else ()


def _keys_of(path: Path, batches: list[int]) -> list[ProblemKey]:
    from engines.fused_problems import attention_problems
    from engines.kernels.problem import Unsupported
    from engines.kernels.tables import ProblemKey
    from engines.kernels.variants import check_problem

    keys = []
    for batch in batches:
        for problem in attention_problems(path, batch):
            with contextlib.suppress(Unsupported):
                check_problem(problem)
                keys.append(ProblemKey.of(problem))
    if not keys:
        raise InputError(f"{path} has no attention that fused kernels cover")
    return keys


def _compile(args: argparse.Namespace, keys: list[Key]) -> int:
    from engines.kernels import images
    from engines.kernels.tune import compile_all
    from engines.kernels.variants import TARGETS

    target = args.target or "9.0"
    if target not in TARGETS:
        raise InputError(f"kernels are compiled for {', '.join(TARGETS)}, not {target}")
    with console.progress("compile") as update:
        count = compile_all(keys, target, _MULTIPROCESSORS[target], update)
    problems = len(keys)
    if args.kernels != "attention":  # engines of fused linear layers have fused pixels, too
        from cli.tune_pixels import compile_pixels

        pixels = compile_pixels(_configs(args), args.precision, target)
        count, problems = count + pixels, problems + pixels
    if args.json:
        console.print_json({"kernels": images.folder(), "target": target, "problems": problems, "plans": count})
    else:
        print(f"{images.folder()}: {count} plans for {problems} problems and compute capability {target}")
    return 0


def _about(args: argparse.Namespace, gpu: str, capability: str, multiprocessors: int, driver: str) -> Table:
    from engines.kernels.images import compiler_versions
    from engines.kernels.tables import Table

    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    words = ["cat2dog", "tune", *(["--model", *args.model] if args.model else [])]
    words += ["--onnx", *map(str, args.onnx)] if args.onnx else []
    words += ["--kernels", args.kernels] if args.kernels != "attention" else []
    words += ["--precision", *args.precision, "--batch", args.batch, *(["--plain"] if args.plain else [])]
    return Table(gpu, capability, multiprocessors, driver, compiler_versions(), date, " ".join(words))


def _seeds(key: Key, measured: list[tuple[Entry, list[Timing]]]) -> list[Any] | None:
    """What was fast for the same problem in the other precision: FP16 and BF16 run at one speed."""
    from dataclasses import replace

    for entry, timings in measured:
        other: Any = entry.key
        if other.precision != key.precision and replace(other, precision=key.precision) == key:
            kept = [timing.variant for timing in entry.timings]
            return kept + [t.variant for t in sorted(timings, key=lambda t: t.median)[:8] if t.variant not in kept]
    return None


def _described(key: Key, timings: list[Timing]) -> dict[str, Any]:
    operations = key.problem().operations * key.batch
    rows = [
        {
            "variant": str(timing.variant),
            "us": timing.median,
            "least": timing.least,
            "most": timing.most,
            "tflops": round(operations / timing.median / 1e6, 1),
            "error": timing.error,
        }
        for timing in timings
    ]
    return {"problem": vars(key), "timings": rows}


def _write_results(path: Path, table: Table, problems: list[dict[str, Any]]) -> None:
    from runtime.files import write_text

    about = {name: value for name, value in vars(table).items() if name != "entries"}
    lines = ",\n".join(f"  {json.dumps(problem)}" for problem in problems)
    write_text(path, json.dumps({"about": about}, indent=1)[:-2] + f',\n "problems": [\n{lines}\n ]\n}}\n')
