"""Drives a task to its end: rounds over what is left, one retry of what failed, and an account of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fleet.station import Result
from fleet.task import ATTEMPTS, Failure, Task
from runtime.errors import ToolchainError

# Gives results for (picture, dog) pairs, in any order; a pair may be missing, where its worker died. The second
# argument is how many pictures may share a worker's fate.
Execute = Callable[[Sequence[tuple[str, str]], "int | None"], Iterator[Result]]
Update = Callable[[str, "float | None"], None]
_SAVE_SECONDS = 5.0
_DIED = "its worker died each time, also with this picture alone"


@dataclass(frozen=True)
class Summary:
    """Pictures in all, done before, done now, failed, and how often one was given out again after its worker died."""

    pictures: int
    done_before: int
    done: int
    failed: int
    given_again: int
    seconds: float


def drive(task: Task, execute: Execute, update: Update) -> Summary:
    """Run until every picture is done or failed twice. Raises ToolchainError where the run itself cannot go on.

    Pictures that are missing after a round, because their worker died, are given out again, twice in small company and
    then alone, since one of them may be what kills. What was done is kept whatever happens.
    """
    began = time.perf_counter()
    before = len(task.targets) - len(task.todo) - len(task.given_up)
    total, given_again, deaths = len(task.todo), 0, 0
    left = list(task.todo)
    try:
        while left:
            company = None if deaths == 0 else 8 if deaths <= 2 else 1
            answered = _round(task, left, company, execute, update, total, began)
            there = set(task.missing())
            lost = [name for name in left if name in there and name not in answered]
            if lost and company == 1:
                for name in lost:
                    _fail(task, name, _DIED)
            deaths += bool(lost)
            given_again += len(lost)
            left = [name for name in left if name in there and name not in task.given_up]
    finally:
        task.save_failures()
    failed = len(task.given_up)
    return Summary(len(task.targets), before, len(task.targets) - before - failed, failed, given_again,
                   time.perf_counter() - began)  # fmt: skip


def _round(
    task: Task, names: Sequence[str], company: int | None, execute: Execute, update: Update, total: int, began: float
) -> set[str]:
    """The pictures that were answered for, well or not."""
    answered: set[str] = set()
    start = total - len(names)
    saved = time.monotonic()
    for result in execute([(name, task.targets[name]) for name in names], company):
        if result.fatal:
            raise ToolchainError(f"{result.fatal}; what is done stays done: run the command again to go on")
        answered.add(result.name)
        if result.fault:
            _fail(task, result.name, result.fault)
        else:
            task.failures.pop(result.name, None)
        if time.monotonic() - saved > _SAVE_SECONDS and task.failures:
            task.save_failures()
            saved = time.monotonic()
        done = start + len(answered)
        rate = len(answered) / max(time.perf_counter() - began, 1e-9)
        update(f"{done} of {total} pictures, {rate:.1f} a second, {len(task.failures)} failed", done / total)
    return answered


def _fail(task: Task, name: str, reason: str) -> None:
    known = task.failures.get(name)
    task.failures[name] = Failure(reason, min((known.attempts if known else 0) + 1, ATTEMPTS))
