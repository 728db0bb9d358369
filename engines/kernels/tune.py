"""Measures the variants of a problem on the GPU at hand, as the very cubins that ship; none is filed unchecked."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from engines.kernels.launch import LaunchPlan
from engines.kernels.linear_problem import LinearProblem
from engines.kernels.linear_variants import block_candidates, linear_candidates
from engines.kernels.plan import make_plan
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.tables import Entry, Key, Timing
from engines.kernels.variants import TritonVariant, Variant, candidates
from runtime.errors import ToolchainError

# Of each kind, so that another GPU, or one without the first kind, finds something that was measured.
_KEPT = 3
_FINALISTS = 6
# Relative error of the output by type: a few units of its last place. A wrong kernel is off by far more.
TOLERANCE = {"fp16": 2e-3, "bf16": 1.6e-2}

Progress = Callable[[str, "float | None"], None]


def compile_all(
    keys: Iterable[Key],
    target: str,
    multiprocessors: int,
    progress: Progress = lambda what, fraction: None,
    processes: int = 1,
) -> int:
    """Compile what tuning will measure, in so many processes; returns how many plans there are.

    The results are kept, so that a machine without compilers can measure them.
    """
    work = [(key, variant, target) for key in keys for variant in _ahead(key.problem(), target, multiprocessors)]
    count = 0
    with contextlib.ExitStack() as stack:
        results: Iterator[bool] = map(_compiles, work)
        if processes > 1:
            # Compilers hold locks and leave memory behind: processes of their own, started afresh.
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(min(len(work), processes) or 1, mp_context=context))
            results = pool.map(_compiles, work, chunksize=4)
        for index, (_, variant, _) in enumerate(work):
            progress(f"compiling {variant}", index / len(work))
            count += next(results)
    return count


def _compiles(work: tuple[Key, Variant, str]) -> bool:
    key, variant, target = work
    try:
        make_plan(key.problem(), variant, target)
        return True
    except Unsupported:
        return False


def tune(
    key: Key,
    target: str,
    multiprocessors: int,
    variants: Iterable[Variant] | None = None,
    progress: Progress = lambda what, fraction: None,
) -> tuple[Entry, list[Timing]]:
    """The entry of one problem, and every timing. `variants` None takes all candidates.

    Variants are timed in short, the best of them at length and against FP64. Raises ToolchainError where no variant
    runs, or where one that is among the fastest gives wrong numbers.
    """
    problem = key.problem()
    plans: list[tuple[Variant, LaunchPlan]] = []
    for variant in variants if variants is not None else _candidates(problem, target, multiprocessors):
        try:
            plans.append((variant, make_plan(problem, variant, target)))
        except Unsupported:
            continue
    if not plans:
        raise ToolchainError(f"no kernel does {key}")
    with _measured(problem, plans[0][1], key.batch) as measured:
        first = []
        for index, (variant, plan) in enumerate(plans):
            progress(f"{key}: {variant}", index / len(plans))
            first.append((measured.milliseconds(plan, 3)[0], variant, plan))
        first.sort(key=lambda timed: timed[0])
        finalists = _finalists(first)
        final = []
        for _, variant, plan in finalists:
            final.append(checked_timing(measured, variant, plan, key.precision, f"at {key}"))
    final.sort(key=lambda timing: timing.median)
    rest = [
        Timing(variant, round(1e3 * ms, 3), round(1e3 * ms, 3), round(1e3 * ms, 3), hashes(plan))
        for ms, variant, plan in first
        if not any(timing.variant == variant for timing in final)
    ]
    return Entry(key, tuple(_best_of_each_kind(final))), [*final, *rest]


def checked_timing(measured: Any, variant: Variant, plan: LaunchPlan, precision: str, where: str) -> Timing:
    """A variant timed at length. Raises ToolchainError where it is further from FP64 than its precision allows."""
    error = measured.error(measured.answers(plan))
    if not error <= TOLERANCE[precision]:
        raise ToolchainError(f"kernel {variant} is wrong {where}: relative error {error:.3g}")
    median, least, most = (round(1e3 * ms, 3) for ms in measured.milliseconds(plan, 15))
    return Timing(variant, median, least, most, hashes(plan), float(f"{error:.2e}"))


def _ahead(problem: AttentionProblem | LinearProblem, target: str, multiprocessors: int) -> Iterable[Variant]:
    """What is measured by itself or in a block."""
    variants: list[Variant] = list(_candidates(problem, target, multiprocessors))
    if isinstance(problem, LinearProblem) and target == "9.0":
        variants += block_candidates(problem, target, multiprocessors)
    return dict.fromkeys(variants)


def _candidates(problem: AttentionProblem | LinearProblem, target: str, multiprocessors: int) -> Iterable[Variant]:
    if isinstance(problem, LinearProblem):
        return linear_candidates(problem, target, multiprocessors)
    return candidates(problem, target, multiprocessors)


def _measured(problem: AttentionProblem | LinearProblem, plan: LaunchPlan, batch: int) -> Any:
    """The problem's data on the GPU."""
    if isinstance(problem, LinearProblem):
        from engines.kernels.linear_measure import MeasuredLinear

        return MeasuredLinear(problem, plan, batch)
    from engines.kernels.measure import Measured

    return Measured(problem, plan, batch)


def hashes(plan: LaunchPlan) -> tuple[str, ...]:
    """SHA-256 of each image, first 16 digits."""
    return tuple(hashlib.sha256(image.data).hexdigest()[:16] for image in plan.images)


def _finalists(timed: list[tuple[float, Variant, LaunchPlan]]) -> list[tuple[float, Variant, LaunchPlan]]:
    by_kind = [[t for t in timed if isinstance(t[1], TritonVariant) is kind] for kind in (False, True)]
    chosen = timed[:_FINALISTS]
    for kind in by_kind:
        chosen += [each for each in kind[:_KEPT] if each not in chosen]
    return chosen


def _best_of_each_kind(timings: list[Timing]) -> list[Timing]:
    kept: list[Timing] = []
    for timing in timings:
        same = [other for other in kept if type(other.variant) is type(timing.variant)]
        if len(same) < _KEPT:
            kept.append(timing)
    return kept
