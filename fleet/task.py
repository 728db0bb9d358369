"""What a run through a folder or prefix is to do, kept where its pictures go, so that any later run can go on with it.

    {output}/cat2dog-run.json      which network draws here; another one is refused
    {output}/failed.json           pictures that failed: how often, and why

A picture is done when its dog is there: dogs appear whole or not at all, so no other record could disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import InputError
from runtime.images import INPUT_SUFFIXES
from runtime.place import Place

RUN_FILE = "cat2dog-run.json"
FAILED_FILE = "failed.json"
ATTEMPTS = 2
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Identity:
    """Which network draws: hashes of its neutral ONNX file and weights, and its precision."""

    checkpoint: str
    precision: str
    onnx_sha256: str
    weights_sha256: str


@dataclass
class Failure:
    """Why a picture failed the last time, and how often it was tried."""

    reason: str
    attempts: int


@dataclass
class Task:
    """`todo` in order; `targets` are the names of all dogs by the names of their cats."""

    source: Place
    output: Place
    targets: dict[str, str]
    todo: list[str]
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def given_up(self) -> dict[str, Failure]:
        """Those that failed as often as a picture is tried."""
        return {name: failure for name, failure in self.failures.items() if failure.attempts >= ATTEMPTS}

    def missing(self) -> list[str]:
        """The pictures of `todo` whose dogs are not in the output now, in order."""
        there = {entry.name for entry in self.output.entries(deep=False)}
        return [name for name in self.todo if self.targets[name] not in there]

    def save_failures(self) -> None:
        """Write `failed.json`; there is none where nothing failed."""
        if not self.failures:
            self.output.delete(FAILED_FILE)
            return
        failures = {name: vars(each) for name, each in sorted(self.failures.items())}
        self.output.write(FAILED_FILE, json.dumps(failures, indent=1).encode())


def open_task(source: Place, output: Place, identity: Identity) -> Task:
    """What is left to do, with the output marked as this network's.

    Raises InputError for a source without pictures, two pictures with one dog, and an output that holds dogs of another
    network or of nobody knows which.
    """
    targets = pair_names(source)
    there = {entry.name for entry in output.entries(deep=False)}
    recorded = _read_json(output, RUN_FILE)
    if recorded is None:
        if stray := next((name for name in targets.values() if name in there), None):
            raise InputError(f"{output.url} holds {stray}, drawn by nobody knows what: give a new folder as --output")
        output.write(RUN_FILE, json.dumps(vars(identity), indent=1).encode())
    elif recorded != vars(identity):
        told = {name: recorded.get(name) for name in vars(identity)}
        different = ", ".join(name for name in told if told[name] != vars(identity)[name])
        raise InputError(
            f"{output.url} holds dogs of another network ({different} differ: there {told['checkpoint']} "
            f"{told['precision']}, here {identity.checkpoint} {identity.precision}): give another --output"
        )
    failures = _failures(output)
    failures = {name: failure for name, failure in failures.items() if targets.get(name, "") not in there}
    given_up = {name for name, failure in failures.items() if failure.attempts >= ATTEMPTS}
    todo = [name for name, target in targets.items() if target not in there and name not in given_up]
    return Task(source, output, targets, todo, failures)


def pair_names(source: Place) -> dict[str, str]:
    """The pictures right in a place, sorted, each with the name of its dog, as `cat2dog run` pairs a folder's."""
    names = sorted(each.name for each in source.entries(deep=False) if each.name.lower().endswith(INPUT_SUFFIXES))
    if not names:
        raise InputError(f"{source.url} holds no image; expected files ending in {', '.join(INPUT_SUFFIXES)}")
    taken: dict[str, str] = {}
    for name in names:
        target = f"{name.rpartition('.')[0]}.png"
        if target in taken:
            raise InputError(f"{taken[target]} and {name} would both be written to {target}; rename one of them")
        taken[target] = name
    return {name: target for target, name in taken.items()}


def _failures(output: Place) -> dict[str, Failure]:
    recorded = _read_json(output, FAILED_FILE) or {}
    try:
        return {str(name): Failure(str(each["reason"]), int(each["attempts"])) for name, each in recorded.items()}
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{output.url}/{FAILED_FILE} is damaged: delete it, to try all of them again") from error


def _read_json(place: Place, name: str) -> Mapping[str, Any] | None:
    try:
        content = json.loads(place.read(name, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{place.url}/{name} is damaged: give another --output, or delete it") from error
    if not isinstance(content, dict):
        raise InputError(f"{place.url}/{name} is damaged: give another --output, or delete it")
    return content
