"""`cat2dog serve`: pictures in, dogs out, for many users, on Triton Inference Server."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli import build_command, compose, console, options
from runtime.errors import InputError
from serving import arguments

HELP = "serve checkpoints on Triton Inference Server, in the environment that `make serve` makes"
EXAMPLE = "cat2dog serve --model models/tiny-128"

PYTHON_VARIABLE = "CAT2DOG_PYTHON_SERVING"
_PROBE_SECONDS = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.several(
        parser, "--model", "FOLDER", "checkpoint folder; several, each of another resolution, by giving it again"
    )
    options.several(parser, "--engine", "FILE.engine", "serve this engine; several by giving it again")
    parser.add_argument(
        "--runner",
        choices=("auto", "tensorrt", "onnxruntime"),
        default="auto",
        help="what runs a --model (default: auto, tensorrt where the serving environment has one that runs)",
    )
    options.signed_by(parser)
    arguments.add_arguments(parser)
    arguments.add_tensors(parser)
    options.precision(parser)
    options.policy(parser)
    build_command.add_builder_arguments(parser)
    parser.set_defaults(batch="1-8")
    options.build_folder(parser)


def run(args: argparse.Namespace) -> int:
    """Make what is to be served, then become the server: signals reach it, and its exit code is this one's."""
    if not args.model and not args.engine:
        raise InputError("give --model FOLDER (for example --model models/tiny-128) or --engine FILE.engine")
    arguments.settings_of(args)
    arguments.limits_of(args)
    python = serving_python()
    with console.progress("serve") as update:
        files = [*args.engine, *(_network(args, model, python, update) for model in args.model)]
    words = [python, "-m", "serving.server", *map(str, files), *arguments.words_of(args)]
    words += ["--tensors"] if args.tensors else []
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(python, words)


def serving_python() -> str:
    """The Python that has PyTriton: named by CAT2DOG_PYTHON_SERVING, else this one, else the one `make serve` makes.

    Raises InputError where there is none.
    """
    if named := os.environ.get(PYTHON_VARIABLE):
        if not os.access(named, os.X_OK):
            raise InputError(
                f"{PYTHON_VARIABLE}={named}: no such program; expected the Python of a serving environment"
            )
        return named
    if importlib.util.find_spec("pytriton"):
        return sys.executable
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        python = root / ".venv-serving" / "bin" / "python"
        if python.exists():
            return str(python)
    raise InputError(
        "serving has an environment of its own, which is not there: `make .venv-serving/.ready` makes it, or let "
        f"{PYTHON_VARIABLE} name the Python of one where 'cat2dog[serving]' is installed"
    )


def _network(args: argparse.Namespace, model: Path, python: str, update: console.Update) -> Path:
    """The engine of a checkpoint where the serving Python runs one, else its ONNX file."""
    each = argparse.Namespace(**{**vars(args), "model": model, "engine": None})
    recipe = compose.recipe_of(each, update)
    if args.runner == "tensorrt" or (args.runner == "auto" and _engines_run(python, args.flavor)):
        built = compose.built(each, recipe, update)
        if built.manifest.gate.state == "pending":
            from cli.runners import settle_gate

            settle_gate(built.path, recipe, update)
        return Path(built.path)
    if args.precision == "bf16":
        raise InputError("ONNX Runtime's CPU provider has no BF16: give --precision fp16, or serve an engine on a GPU")
    return Path(compose.exported(each, recipe, args.precision, update).path)


def _engines_run(python: str, flavor: str) -> bool:
    """Whether the serving Python itself has a TensorRT that runs here, whatever other Python builds the engines."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CAT2DOG_PYTHON_TENSORRT")}
    try:
        done = subprocess.run(
            [python, "-m", "runtime.flavors", "--json"],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            env=environment,
            check=True,
        )
        found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
        return any(each["can_run"] for each in found if flavor in ("auto", each["name"]))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{python} cannot say what it runs ({error}): is 'cat2dog[serving]' installed there?"
        ) from error
