"""Engines given to `cat2dog accuracy` by name: that they are of what is judged, and run here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cli import console
from runtime.errors import InputError

if TYPE_CHECKING:
    from export.recipe import Recipe


def given_engines(args: argparse.Namespace, recipe: Recipe, update: console.Update) -> list[Path]:
    """The engines of `--engine`, each with its gate settled.

    Raises InputError for one of another checkpoint or precision, or that cannot run here; EngineMismatch and
    AccuracyError as loading it would.
    """
    from cli.runners import settle_gate
    from runtime.engine_file import check_engine, engine_manifest
    from runtime.flavors import find_flavor
    from runtime.gpu import find_gpus, no_gpu_reason

    for path in args.engine:
        manifest = engine_manifest(path)
        key = manifest.key
        if key.checkpoint != recipe.name:
            raise InputError(f"{path} is an engine of {key.checkpoint}, not of {recipe.name}: give its --model")
        if key.precision != args.precision:
            raise InputError(f"{path} is of {key.precision}: give --precision {key.precision}")
        flavor, gpus = find_flavor(key.flavor), find_gpus()
        if not gpus or not flavor.can_run:
            raise InputError(f"{path} cannot run here: {no_gpu_reason() if not gpus else flavor.reason}")
        check_engine(path, flavor, gpus[0])
        if manifest.gate.state == "pending":
            settle_gate(path, recipe, update)
    return list(args.engine)
