"""Composes the rooms: checkpoint or recipe to ONNX to engine, each step skipped where its result is up to date."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import Update
from cli.options import DEFAULT_BUILD_FOLDER, check_build_folder
from runtime.errors import InputError, ToolchainError

if TYPE_CHECKING:
    from engines.build import BuildRequest, Built
    from engines.validation import Validation
    from export.onnx_file import OnnxFile
    from export.policy import Policy
    from export.recipe import Recipe

# Judging an engine costs a forward pass a sample, in FP32 on a CPU where there is no GPU: at least one sample is
# judged, and as many more as fit in this many floating-point operations.
GATE_FLOPS = 4e12
MOST_WORKSPACE_MIB = 1 << 20


def recipe_of(args: argparse.Namespace, update: Update) -> Recipe:
    """The recipe that `--model` or `--recipe` names. Raises InputError where there is none."""
    check_build_folder(args.build_dir)
    if getattr(args, "recipe", None):
        from export.recipe import load_recipe

        return load_recipe(args.recipe)
    from cat2dog.recipe import Cat2DogRecipe

    return Cat2DogRecipe(
        args.model, args.build_dir / "reference", lambda done, total: update("FP32 reference in PyTorch", done / total)
    )


def policy_of(args: argparse.Namespace, precision: str) -> Policy | None:
    """The policy of `--policy`, or None for the default one; also for FP32, which is what islands are compared with.

    Raises InputError where the file is of another precision than the one asked for.
    """
    file = getattr(args, "policy", None)
    if file is None or (precision == "fp32" != args.precision):
        return None
    from export.policy_file import load_policy

    policy = load_policy(file)
    if policy.precision != precision:
        raise InputError(f"policy {file} is of {policy.precision}: give --precision {policy.precision}")
    return policy


def onnx_path(args: argparse.Namespace, recipe: Recipe, precision: str, policy: Policy | None = None) -> Path:
    """`build/onnx/{checkpoint}_{precision}.onnx`; with islands of one's own, eight digits more that stand for them."""
    from export.policy_file import policy_digest

    own = f"_policy-{policy_digest(policy)}" if policy else ""
    return Path(args.build_dir) / "onnx" / f"{recipe.name}_{precision}{own}.onnx"


def exported(
    args: argparse.Namespace, recipe: Recipe, precision: str, update: Update, verify_hash: bool = True
) -> OnnxFile:
    """The up-to-date neutral ONNX file of a recipe, hashed before it is used."""
    from export.export import export

    policy = policy_of(args, precision)
    path = onnx_path(args, recipe, precision, policy)
    return export(recipe, path, precision, policy=policy, opset=args.opset, progress=update, verify_hash=verify_hash)


def validation_of(recipe: Recipe, update: Update) -> Validation:
    """Validation inputs and the reference's answers, as many samples as the budget allows."""
    from engines.validation import Validation

    update("FP32 reference in PyTorch", None)
    limit = max(1, int(GATE_FLOPS // max(recipe.flops(), 1)))
    feed = recipe.validation(limit)
    metric, threshold = recipe.judge
    return Validation(
        feed, recipe.reference(feed), metric, threshold, f"PyTorch FP32 eager, {len(next(iter(feed.values())))} samples"
    )


def build_request(args: argparse.Namespace, recipe: Recipe, update: Update) -> BuildRequest:
    """What `cat2dog build` was asked for, with the ONNX file made where it is missing; not yet what to judge it by."""
    from engines.batch import BatchProfile
    from engines.build import BuildRequest, choose_flavor, target_gpu
    from engines.form import choose_form, choose_linear

    # What cannot be built is said before minutes are spent on exporting.
    policy_of(args, args.precision)
    batch, targets = BatchProfile.parse(args.batch), targets_of(args.targets)
    if args.workspace is not None and not 1 <= args.workspace <= MOST_WORKSPACE_MIB:
        raise InputError(f"workspace {args.workspace} MiB is not between 1 and {MOST_WORKSPACE_MIB}")
    flavor = choose_flavor(args.flavor)
    choose_form(args.attention, flavor, args.precision, target_gpu(flavor, targets))
    choose_linear(_linear(args), flavor, args.precision, target_gpu(flavor, targets))
    onnx = exported(args, recipe, args.precision, update, verify_hash=False)
    return BuildRequest(
        onnx=onnx.path,
        checkpoint=recipe.name,
        precision=args.precision,
        validation=None,
        batch=batch,
        attention=args.attention,
        linear=_linear(args),
        flavor=flavor,
        targets=targets,
        workspace_mib=args.workspace,
        optimization_level=args.optimization_level,
        refit=getattr(args, "refit", False),
        judge=recipe.judge,
        root=Path(args.build_dir) / "engines",
        command=rebuild_command(args),
        verbose=args.verbose,
        force=getattr(args, "force", False),
    )


def _linear(args: argparse.Namespace) -> str:
    """The form of linear layers; commands that do not ask for one build what `cat2dog build` does by itself."""
    return str(getattr(args, "linear", "auto"))


def built(args: argparse.Namespace, recipe: Recipe, update: Update) -> Built:
    """The engine that the arguments of `cat2dog build` describe; the reference is computed only for one to be built."""
    built = built_or_awaited(args, recipe, update, wait=True)
    assert built is not None
    return built


def built_or_awaited(args: argparse.Namespace, recipe: Recipe, update: Update, wait: bool) -> Built | None:
    """As `built`; with `--store`, the engine may come from another machine, and without `wait` None means that one
    builds it now.
    """
    from engines.build import Built, build, choose_flavor, engine_key, find

    request = build_request(args, recipe, update)
    url = getattr(args, "store", None)
    found = None if request.force else find(request)

    def make() -> Built:
        exported(args, recipe, args.precision, update)  # now that it is going to be used, it is hashed
        return build(replace(request, validation=validation_of(recipe, update)), update)

    if not url:
        return found or make()
    from engines.remote_store import RemoteStore
    from engines.shared_build import obtain

    store = RemoteStore(url)
    key = engine_key(request, choose_flavor(request.flavor))
    if request.force:
        made = make()
        store.publish(made.path)
        return made
    if found:
        if store.manifest(key) is None:
            update("sharing the engine", None)
            store.publish(found.path)
        return found
    path, fresh = obtain(store, key, request.root, lambda: make().path, update, wait)
    if path is None:
        return None
    filed = find(request)
    if filed is None:
        raise ToolchainError(f"the engine that {url} gave is not the one asked for: build it with --force --store")
    return Built(filed.path, filed.manifest, fresh)


def targets_of(text: str | None) -> tuple[str, ...]:
    """`8.6,8.9` or `86,89` as compute capabilities. Raises InputError for anything else."""
    if not text:
        return ()
    targets = []
    for part in text.split(","):
        digits = part.strip().lower().removeprefix("sm").replace(".", "")
        if not (digits.isascii() and digits.isdigit()) or not 2 <= len(digits) <= 3:
            raise InputError(f"target '{part}' is no compute capability; give for example --targets 8.6,8.9")
        targets.append(f"{digits[:-1]}.{digits[-1]}")
    return tuple(sorted(set(targets), key=lambda target: [int(number) for number in target.split(".")]))


def rebuild_command(args: argparse.Namespace) -> str:
    """What to type to build the engine of `args` again."""
    words = ["cat2dog", "build"]
    words += ["--recipe", args.recipe] if getattr(args, "recipe", None) else ["--model", str(args.model)]
    words += [
        "--precision",
        args.precision,
        "--attention",
        args.attention,
        "--flavor",
        args.flavor,
        "--batch",
        args.batch,
    ]
    words += ["--linear", _linear(args)] if _linear(args) != "auto" else []
    for name in ("policy", "targets", "workspace", "optimization_level"):
        if getattr(args, name, None) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    words += ["--refit"] if getattr(args, "refit", False) else []
    if args.build_dir != Path(DEFAULT_BUILD_FOLDER):
        words += ["--build-dir", str(args.build_dir)]
    if args.opset != 17:
        words += ["--opset", str(args.opset)]
    return shlex.join(words)
