"""The result files that a report is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.schema import check_result
from runtime.errors import InputError

FOLDER = Path(__file__).resolve().parent.parent / "results"


@dataclass(frozen=True)
class Result:
    """One file of the schema. `name` is unique among those of a report, and good for file names."""

    path: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's own name without its suffix."""
        return self.path.stem

    @property
    def place(self) -> str:
        """Where it was measured: the GPU, or the CPU and how many of its cores."""
        return machine_text(self.content["machine"])


def machine_text(machine: dict[str, Any]) -> str:
    """The device in words."""
    return str(machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores, no GPU")


def find_results(folder: Path = FOLDER) -> list[Result]:
    """Every result of the schema under `folder`, by path. Raises InputError for one that says it is, and is not."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        content = _parse(path)
        if not isinstance(content, dict) or "schema" not in content:
            continue  # of the older measurements, which have tables of their own
        try:
            check_result(content)
        except ValueError as error:
            raise InputError(f"{path} is no result of the bench: {error}; measure it again") from error
        found.append(Result(path, content))
    if twice := _first_twice([result.name for result in found]):
        raise InputError(f"two result files are called {twice}.json: rename one, so that figures keep apart")
    return found


def find_engine_files(folder: Path = FOLDER) -> list[Path]:
    """What `python -m bench.engine` wrote: the files under `folder/engines`."""
    return [path for path in sorted((folder / "engines").glob("*.json")) if "engines" in _parse(path)]


def of_kind(results: Sequence[Result], kind: str) -> list[Result]:
    """Those of one kind: "peers", "ladder", "growth", "codecs" or "stream"."""
    return [result for result in results if result.content["kind"] == kind]


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _first_twice(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)
