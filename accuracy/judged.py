"""The recipe's judge as Polygraphy's comparison function, for our own runs and for `polygraphy run`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import write_text
from runtime.judge import METRICS, scores

CompareFunction = Callable[[Any, Any], "OrderedDict[str, bool]"]


def judged(metric: str, threshold: float, quiet: bool = False) -> CompareFunction:
    """A function of two `IterationResult`: for each output of the first, whether every sample reaches `threshold`.

    Unless `quiet`, it prints the worst score of each output.
    Raises InputError, when it is called, for a missing output or another shape. `metric` is of `runtime.judge`.
    """
    if metric not in METRICS:
        raise InputError(f"metric '{metric}' is not one of {', '.join(METRICS)}")

    def compare_outputs(one: Any, other: Any) -> OrderedDict[str, bool]:
        matched = OrderedDict()
        for name, array in one.items():
            expected = {name: other[name]} if name in other else {}
            each = scores(metric, {name: array}, expected)
            if not quiet:
                print(f"{name}: {metric} {score_text(metric, min(each))}, expected at least {threshold:g}")
            matched[name] = min(each) >= threshold
        return matched

    return compare_outputs


def score_text(metric: str, score: float) -> str:
    """A score with the digits that tell: decibels to two places, a cosine as far as it is from 1."""
    return f"{score:.2f}" if metric == "psnr" else f"{score:.8g}"


def write_script(path: Path, metric: str, threshold: float) -> None:
    """A script for `polygraphy run --compare-func-script`, which judges as we do."""
    write_text(
        path,
        f'"""Polygraphy compares by this: {metric} of each sample at least {threshold:g}."""\n\n'
        "from accuracy.judged import judged\n\n"
        f"compare_outputs = judged({metric!r}, {threshold!r})\n",
    )
