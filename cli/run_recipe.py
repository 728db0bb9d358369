"""`cat2dog run --recipe`: a recipe's network over its validation samples, or pictures, and what it answers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import compose, console
from runtime.errors import AccuracyError, InputError

if TYPE_CHECKING:
    from export.recipe import Recipe
    from runtime.runner import Runner

# The reference costs far more than an engine; for many samples it has to be asked for.
COMPARED = 5
_SHOWN = 20


def run_recipe(args: argparse.Namespace) -> int:
    """Run every sample alone; prints what the recipe says of each answer, its time, and its score against PyTorch."""
    from cli.runners import open_network
    from engines.batch import BatchProfile

    if args.output is not None:
        raise InputError("--output is for pictures; a recipe's answers are printed, with --json all of them")
    if args.provider and (args.engine or args.runner in ("tensorrt", "pytorch")):
        raise InputError("--provider is for ONNX Runtime: leave it or the other runner out")
    BatchProfile.parse(args.batch)
    compose.targets_of(args.targets)
    started = console.Stopwatch()
    with console.progress("run") as update:
        recipe = compose.recipe_of(args, update)
        names, feed = _samples(recipe, args.input_image)
        runner, about = open_network(args, recipe, update, lanes=1)
        with runner:
            startup = started.ms
            outputs, times = _answers(runner, feed, update)
        wanted = len(names) <= COMPARED if args.psnr is None else args.psnr
        scores = _scores(recipe, feed, outputs, update) if wanted else [None] * len(names)
    words = _words(recipe, outputs)
    rows = [
        {"sample": name, "answer": said, "run_ms": ms, recipe.judge[0]: score}
        for name, said, ms, score in zip(names, words, times, scores, strict=True)
    ]
    if args.json:
        console.print_json({"runner": about, "recipe": recipe.name, "startup_ms": startup, "samples": rows})
    else:
        columns = ("sample", "answer", "run ms", recipe.judge[0])
        title = f"{recipe.name} by {about}, ready after {startup:.0f} ms"
        console.table(title, columns, [tuple(row.values()) for row in rows[:_SHOWN]])
        if len(rows) > _SHOWN:
            print(f"and {len(rows) - _SHOWN} more")
    known = [score for score in scores if score is not None]
    if known and min(known) < recipe.judge[1]:
        raise AccuracyError(
            f"{recipe.judge[0]} {min(known):.4g} is under the recipe's {recipe.judge[1]:g}: find the diverging layer "
            f"with `cat2dog accuracy --recipe {args.recipe} --precision {args.precision}`"
        )
    return 0


def _samples(recipe: Recipe, given: Sequence[Path] | None) -> tuple[list[str], dict[str, np.ndarray]]:
    """Their names, and the inputs. Raises InputError for pictures where the network takes none."""
    if not given:
        feed = recipe.validation()
        return [f"validation {row}" for row in range(len(next(iter(feed.values()))))], feed
    from runtime.images import find_images, read_image

    spec, own = recipe.inputs[0], getattr(recipe, "picture", None)
    if own is not None:
        paths = find_images(given)
        return [str(path) for path in paths], {spec.name: np.stack([own(path, i) for i, path in enumerate(paths)])}
    if len(recipe.inputs) != 1 or spec.dtype != "uint8" or len(spec.shape) != 4 or spec.shape[1] != spec.shape[2]:
        told = "; ".join(map(str, recipe.inputs))
        raise InputError(f"recipe '{recipe.name}' takes '{told}', no pictures uint8 [B,R,R,3]: leave out --input-image")
    paths = find_images(given)
    return [str(path) for path in paths], {spec.name: np.stack([read_image(path, spec.shape[1]) for path in paths])}


def _answers(
    runner: Runner, feed: Mapping[str, np.ndarray], update: console.Update
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Outputs, samples first, and milliseconds of each; the first one is run twice, as it pays for what is prepared."""
    size = max((spec.sizes(0)[0] for spec in runner.inputs if spec.shape), default=1)  # engines may take no fewer
    rows: dict[str, list[np.ndarray]] = {spec.name: [] for spec in runner.outputs}
    times = []
    count = len(next(iter(feed.values())))
    for row in range(count):
        update(f"sample {row + 1} of {count}", row / count)
        one = {name: np.repeat(array[row : row + 1], size, axis=0) for name, array in feed.items()}
        if row == 0:
            runner.infer(one)
        clock = console.Stopwatch()
        answer = runner.infer(one)
        times.append(round(clock.ms, 3))
        for name in rows:
            rows[name].append(answer[name][:1])
    return {name: np.concatenate(parts) for name, parts in rows.items()}, times


def _scores(
    recipe: Recipe, feed: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], update: console.Update
) -> list[float | None]:
    from runtime.judge import scores

    update("FP32 reference in PyTorch", None)
    return [*scores(recipe.judge[0], outputs, recipe.reference(feed))]


def _words(recipe: Recipe, outputs: Mapping[str, np.ndarray]) -> list[str]:
    """The recipe's own, or of each output its shape, or its place and value of the largest entry for logits."""
    own: Any = getattr(recipe, "words", None)
    if own is not None:
        return list(own(outputs))
    logits = recipe.judge[0] in ("top1", "top5")
    lines = []
    for row in range(len(next(iter(outputs.values())))):
        parts = []
        for name, array in outputs.items():
            best = int(array[row].argmax()) if logits else 0
            flat = array[row].reshape(-1)
            parts.append(f"{name}[{best}] = {flat[best]:.4g}" if logits else f"{name} {list(array[row].shape)}")
        lines.append(", ".join(parts))
    return lines
