"""Chooses what runs the pictures: a TensorRT engine where one runs here, else ONNX Runtime; PyTorch when asked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli import compose
from cli.console import Update
from runtime.errors import InputError
from runtime.runner import ImageRunner, Runner

if TYPE_CHECKING:
    from export.recipe import Recipe


def open_runner(
    args: argparse.Namespace, recipe: Recipe | None, update: Update, lanes: int = 2
) -> tuple[ImageRunner, str]:
    """An image runner and what it is, in words; as `open_network`."""
    runner, about = open_network(args, recipe, update, lanes)
    return ImageRunner.from_runner(runner), about


def open_network(args: argparse.Namespace, recipe: Recipe | None, update: Update, lanes: int = 2) -> tuple[Runner, str]:
    """A runner and what it is, in words. `args.engine` wins over `args.runner`; an engine gets so many lanes.

    Raises InputError where what was asked for cannot run here.
    """
    if args.runner == "pytorch" and not args.engine and recipe is not None:
        from export.reference_runner import ReferenceRunner

        return ReferenceRunner(recipe), "PyTorch FP32"
    path = _file(args, recipe, update)
    if path.suffix == ".engine":
        return _engine(path, recipe, update, lanes)
    from engines.proxy import runnable
    from runtime.onnxruntime_runner import OnnxRuntimeRunner

    update("loading", None)
    provider = args.provider or "cpu"
    about = f"ONNX Runtime {provider.upper()} {args.precision}"
    if args.precision == "bf16":
        about += ", FP32 arithmetic with BF16 rounding"
    with runnable(path) as plain:
        return OnnxRuntimeRunner(plain, [provider]), about


def network_file(args: argparse.Namespace, recipe: Recipe | None, update: Update) -> Path:
    """The engine, its gate run, or ONNX file that `open_network` would open; not for PyTorch. Raises as it does."""
    path = _file(args, recipe, update)
    if path.suffix == ".engine":
        from runtime.engine_file import engine_manifest

        if engine_manifest(path).gate.state == "pending":
            settle_gate(path, recipe, update)
    return path


def _file(args: argparse.Namespace, recipe: Recipe | None, update: Update) -> Path:
    if args.engine:
        return Path(args.engine)
    if recipe is None:
        raise InputError("give --model FOLDER, --recipe PACKAGE.MODULE:FACTORY or --engine FILE.engine")
    runner = args.runner
    if runner == "auto" and args.provider:
        runner = "onnxruntime"
    chosen = runner == "tensorrt"
    if chosen or (runner == "auto" and _tensorrt_runs(args.flavor)):
        wait = chosen or not getattr(args, "no_wait", False)
        built = compose.built_or_awaited(args, recipe, update, wait)
        if built is not None:
            return built.path
        print("another machine builds the engine: ONNX Runtime runs it meanwhile", file=sys.stderr)
    return compose.exported(args, recipe, args.precision, update).path


def _tensorrt_runs(flavor: str) -> bool:
    from runtime.flavors import find_flavors
    from runtime.gpu import find_gpus

    return bool(find_gpus()) and any(each.can_run for each in find_flavors() if flavor in ("auto", each.name))


def _engine(path: Path, recipe: Recipe | None, update: Update, lanes: int) -> tuple[Runner, str]:
    """The engine, once its gate has been run; a gate still pending is settled by this first load."""
    from engines.elsewhere import engine_runner
    from runtime.engine_file import engine_manifest

    update("loading the engine", None)
    manifest = engine_manifest(path)
    if manifest.gate.state == "pending":
        settle_gate(path, recipe, update)
    runner = engine_runner(path, lanes)
    key = manifest.key
    return runner, f"{key.flavor} {key.flavor_version} {key.precision}, {key.attention} attention"


def settle_gate(path: Path, recipe: Recipe | None, update: Update) -> None:
    """Run the gate of an engine that was built where it could not run.

    Raises AccuracyError if it fails, EngineMismatch if the engine does not belong here, InputError where there is no
    checkpoint to judge it by or nothing to run it on.
    """
    from engines.build import refuse_failed, run_gate
    from runtime.engine_file import check_engine, engine_manifest
    from runtime.flavors import find_flavor
    from runtime.gpu import find_gpus, no_gpu_reason

    flavor = find_flavor(engine_manifest(path).key.flavor)
    gpus = find_gpus()
    if flavor.version is not None:
        check_engine(path, flavor, gpus[0] if gpus else None)
    if not gpus or not flavor.can_run:
        raise InputError(
            f"{path} cannot run here: {flavor.reason or no_gpu_reason()}; --runner onnxruntime runs its ONNX"
        )
    if recipe is None:
        raise InputError(
            f"{path} has not passed its accuracy gate yet: give --model too, to judge it by its checkpoint"
        )
    refuse_failed(path, run_gate(path, compose.validation_of(recipe, update), flavor, update))
