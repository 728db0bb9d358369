"""`python -m zoo.resnet50.languages`: one network from Python and from C++ on the same pictures, answers and times.

Each runs in processes of its own, in turn; the first time through the pictures is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import AccuracyError, InputError, ToolchainError
from zoo.command import Parser, run
from zoo.resnet50.agreement import Agreement, agreement
from zoo.resnet50.pictures import write_jpegs
from zoo.resnet50.pixels import find_jpegs
from zoo.resnet50.running import STEPS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path("build/runtime-cpp/cat2dog-resnet50")
_LANGUAGES = ("Python", "C++")
_LONGEST = 600
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code: 3 where a picture is classified otherwise by more than the tolerance."""
    parser = Parser(
        "python -m zoo.resnet50.languages",
        "Python and C++ run one network: are the answers the same, and how long does each step take?",
        "python -m zoo.resnet50.languages --network build/onnx/resnet50-random_fp32.onnx --images images --drawn 11",
    )
    parser.add_argument("--network", type=Path, required=True, metavar="FILE", help=".onnx or .engine")
    parser.add_argument("--reference", type=Path, metavar="FILE.onnx", help="whose classes the network must keep")
    parser.add_argument("--images", type=Path, nargs="*", default=[], metavar="PATH", help="JPEG files, or folders")
    parser.add_argument("--drawn", type=int, default=0, metavar="N", help="and so many drawings")
    parser.add_argument("--program", type=Path, default=PROGRAM, metavar="FILE", help=f"(default: {PROGRAM})")
    parser.add_argument("--library", type=Path, metavar="FILE", help="the program's (default: that of this Python)")
    parser.add_argument("--python", metavar="FILE", help="of the engine's TensorRT (default: $CAT2DOG_PYTHON_TENSORRT)")
    parser.add_argument("--threads", type=int, metavar="N", help="of ONNX Runtime, in both languages")
    parser.add_argument("--seconds", type=float, default=30, help="how long to measure (default: 30)")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the result here")
    return run(parser, _compare, arguments)


def _compare(args: argparse.Namespace) -> int:
    if not 1 <= args.seconds <= _LONGEST or not 0 <= args.drawn <= 1000:
        raise InputError(f"expected --seconds of 1 to {_LONGEST} and --drawn of 0 to 1000")
    with tempfile.TemporaryDirectory() as folder:
        pictures = find_jpegs(args.images) + write_jpegs(Path(folder), args.drawn)
        if not pictures:
            raise InputError("no picture to compare on: give --images or --drawn")
        commands = _commands(args, pictures)
        rounds = [*_rounds(commands, args.seconds)]
        answers = {language: rounds[0][language][1][: len(pictures)] for language in _LANGUAGES}
        found = {"C++": agreement(answers["Python"], answers["C++"])}
        if args.reference:
            judged = _rows(_python(args, args.reference, pictures, sys.executable))[1]
            found["reference"] = agreement(judged, answers["C++"])
    result = _result(args, len(pictures), rounds, found)
    _show(result["languages"])
    if args.output:
        from bench.schema import write_result

        write_result(args.output, result)
    for name, each in found.items():
        if each.violations:
            raise AccuracyError(
                f"{each.violations} of {each.decided} pictures have other classes than those of {name}, by more than "
                f"the tolerance of {each.tolerance:.3g}"
            )
    return 0


def _commands(args: argparse.Namespace, pictures: Sequence[Path]) -> dict[str, list[str]]:
    engine = args.network.suffix == ".engine"
    python = args.python or (os.environ.get("CAT2DOG_PYTHON_TENSORRT") if engine else None) or sys.executable
    program = shutil.which(os.path.abspath(args.program))
    if program is None:
        raise InputError(f"{args.program} is no program; build it: `make cpp-runner`, or see runtime/cpp/README.md")
    cpp = [program, "--network", str(args.network), "--json", "--images", *map(str, pictures)]
    library = args.library or (None if engine else _onnxruntime())
    cpp += ["--library", str(library)] if library else []
    cpp += ["--threads", str(args.threads)] if args.threads and not engine else []
    for library in _plugins(args.network) if engine else ():
        cpp += ["--plugins", str(library)]
    return {"Python": _python(args, args.network, pictures, python), "C++": cpp}


def _plugins(engine: Path) -> list[Path]:
    """The library of the engine's fused kernels, where it has any; Python finds it by itself."""
    from runtime.engine_file import engine_manifest
    from runtime.plugins import find_plugin, needs_plugin

    manifest = engine_manifest(engine)
    return [find_plugin(manifest.key.flavor_version)] if needs_plugin(manifest) else []


def _python(args: argparse.Namespace, network: Path, pictures: Sequence[Path], python: str) -> list[str]:
    command = [python, "-m", "zoo.resnet50", "--network", str(network), "--json"]
    command += ["--threads", str(args.threads)] if args.threads and network.suffix == ".onnx" else []
    return [*command, "--images", *map(str, pictures)]


def _onnxruntime() -> Path | None:
    """The shared library that this Python's package brings: then both languages run the very same code."""
    import onnxruntime

    return next(iter(sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1*"))), None)


def _rounds(commands: Mapping[str, list[str]], seconds: float) -> Iterator[dict[str, tuple[str, list[Row]]]]:
    """Each language's rows, both in turn, until the time is over; at least twice."""
    began = time.monotonic()
    times, done = 2, 0
    while done < 2 or time.monotonic() - began < seconds * done / (done + 1):
        if time.monotonic() - began > _LONGEST:
            break
        yield {language: _rows([*command, "--rounds", str(times)]) for language, command in commands.items()}
        done += 1


def _rows(command: Sequence[str]) -> tuple[str, list[Row]]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    child = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, env=environment)
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ToolchainError(f"{Path(command[0]).name} ended with exit code {child.returncode}: {last}")
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    return rows[0]["runner"], rows[1:]


def _result(
    args: argparse.Namespace,
    pictures: int,
    rounds: Sequence[Mapping[str, tuple[str, list[Row]]]],
    found: Mapping[str, Agreement],
) -> dict[str, Any]:
    from bench.machine import machine
    from bench.schema import SCHEMA
    from bench.timing import timing

    rows = []
    for language in _LANGUAGES:
        kept = [each[language][1][pictures:] for each in rounds]
        steps = {step: timing([[row["ms"][step] for row in one] for one in kept]) for step in STEPS}
        whole = timing([[sum(row["ms"].values()) for row in one] for one in kept])
        rows.append({"language": language, "runner": rounds[0][language][0], "ms": {**steps, "whole": whole}})
    return {
        "schema": SCHEMA,
        "kind": "languages",
        "complete": True,
        "machine": machine(("onnxruntime", "numpy", "pillow", "simplejpeg", "opencv-python-headless", "torch")),
        "method": "one picture at a time; each language in a process of its own, in turn; the first time through the "
        "pictures is not counted; decode begins with the file's bytes in memory",
        "languages": {
            "network": args.network.name,
            "pictures": pictures,
            "agreement": {name: each.facts() for name, each in found.items()},
            "rows": rows,
        },
    }


def table(found: Mapping[str, Any]) -> str:
    """The rows as a Markdown table of median milliseconds."""
    lines = [f"| {found['network']}, {found['pictures']} pictures | {' | '.join((*STEPS, 'whole'))} |"]
    lines.append("| --- |" + " --- |" * (len(STEPS) + 1))
    for row in found["rows"]:
        times = " | ".join(f"{row['ms'][step]['median']:.3g}" for step in (*STEPS, "whole"))
        lines.append(f"| {row['language']}, {row['runner']} | {times} |")
    return "\n".join(lines)


def _show(found: Mapping[str, Any]) -> None:
    for name, each in found["agreement"].items():
        print(
            f"{name}: same crop {each['same_crops']}, same top-2 {each['same_top2']} of {each['pictures']}; tolerance "
            f"{each['tolerance']:.3g}, decided {each['decided']}, of those otherwise {each['violations']}"
        )
    print(f"{'median ms':28}" + "".join(f"{step:>13}" for step in (*STEPS, "whole")))
    for row in found["rows"]:
        what = f"{row['language']}, {row['runner']}"
        print(f"{what[:27]:28}" + "".join(f"{row['ms'][step]['median']:13.3f}" for step in (*STEPS, "whole")))


if __name__ == "__main__":
    sys.exit(main())
