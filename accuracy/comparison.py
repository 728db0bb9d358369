"""Runs every candidate over the same inputs in Polygraphy's comparator, and files what it loads again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.comparator import Comparator, RunResults
from polygraphy.exception import PolygraphyException
from polygraphy.json import save_json
from polygraphy.logger import G_LOGGER

from accuracy.judged import judged, write_script
from accuracy.measures import Measures, measure
from runtime.errors import ToolchainError
from runtime.judge import scores

GOLDEN = "pytorch-fp32"
INPUTS_FILE, GOLDEN_FILE, OUTPUTS_FILE, SCRIPT_FILE = "inputs.json", "golden.json", "outputs.json", "compare.py"


@dataclass(frozen=True)
class Judged:
    """One candidate: the score of each sample by the recipe's metric, Polygraphy's verdict, measures by output."""

    name: str
    scores: tuple[float, ...]
    passed: bool
    outputs: Mapping[str, Measures]

    @property
    def worst(self) -> int:
        """The sample that is furthest from the reference."""
        return int(np.argmin(self.scores))


def compare(
    runners: Sequence[Any],
    feed: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    judge: tuple[str, float],
    folder: Path,
) -> list[Judged]:
    """Run each of Polygraphy's `runners` on every sample of `feed`, one at a time, and judge it against `expected`.

    Writes into `folder` the inputs, the golden outputs, the candidates' outputs and the comparison script. Raises
    ToolchainError where a runner fails or the files cannot be written.
    """
    samples = [{name: array[i : i + 1] for name, array in feed.items()} for i in range(len(next(iter(feed.values()))))]
    golden = RunResults()
    golden.add([{name: array[i : i + 1] for name, array in expected.items()} for i in range(len(samples))],
               runner_name=GOLDEN)  # fmt: skip
    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            results = Comparator.run(runners, data_loader=samples)
            _save(folder, samples, golden, results, judge)
            return [_judged(name, results[name], golden, expected, judge) for name in results.keys()]
    except PolygraphyException as error:
        raise ToolchainError(f"Polygraphy failed: {' '.join(str(error).split())[:300]}") from error


def _save(folder: Path, samples: list, golden: RunResults, results: RunResults, judge: tuple[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_json(samples, str(folder / INPUTS_FILE))
    golden.save(str(folder / GOLDEN_FILE))
    results.save(str(folder / OUTPUTS_FILE))
    write_script(folder / SCRIPT_FILE, *judge)


def _judged(
    name: str, iterations: list, golden: RunResults, expected: Mapping[str, np.ndarray], judge: tuple[str, float]
) -> Judged:
    pair = RunResults()
    pair.append((name, iterations))
    pair.append((GOLDEN, golden[GOLDEN]))
    metric, threshold = judge
    got = {output: np.concatenate([each[output] for each in iterations]) for output in expected}
    matched = Comparator.compare_accuracy(pair, compare_func=judged(metric, threshold, quiet=True))
    finite = Comparator.validate(pair, check_inf=True, check_nan=True)
    return Judged(
        name,
        tuple(scores(metric, got, expected)),
        bool(matched) and bool(finite),
        {output: measure(got[output], array) for output, array in expected.items()},
    )
