"""A precision policy as a file: what `cat2dog accuracy --search` writes and `--policy` takes.

    {"precision": "fp16", "islands": [{"why": "...", "module": "network.blocks.#.norm1"}, ...]}

An island has the fields of `export.policy.Island`. Anything else at the top (what was measured) is for people.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from export.policy import Island, Policy
from runtime.errors import InputError
from runtime.files import sha256_text, write_text

_MOST_BYTES = 1 << 20
_FIELDS = {field.name: field.default for field in fields(Island)}


def save_policy(path: str | os.PathLike[str], policy: Policy, about: Mapping[str, Any] | None = None) -> None:
    """Write `policy` as JSON, with `about` (what was measured) beside it. Raises OSError where it cannot be written."""
    islands = [
        {name: value for name, value in vars(island).items() if name == "why" or value != _FIELDS[name]}
        for island in policy.islands
    ]
    facts = {"precision": policy.precision, "islands": islands, **(about or {})}
    write_text(path, json.dumps(facts, indent=2) + "\n")


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file. Raises InputError for a file that is missing or says anything that a policy cannot."""
    path = Path(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than a policy: `cat2dog accuracy --search` writes one")
        said = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"policy {path} cannot be read ({error.strerror or error}): `cat2dog accuracy --search` writes one"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"policy {path} is no JSON ({error})") from error
    if not isinstance(said, dict) or not isinstance(said.get("islands"), list) or "precision" not in said:
        raise InputError(f'policy {path} is not of the form {{"precision": "fp16", "islands": [...]}}')
    try:
        return Policy(said["precision"], tuple(_island(each) for each in said["islands"]))
    except InputError as error:
        raise InputError(f"policy {path}: {error}") from error


def policy_digest(policy: Policy) -> str:
    """Eight digits that stand for the precision and what its islands pick, whatever their reasons say."""
    picked = sorted(str(sorted((k, v) for k, v in vars(island).items() if k != "why")) for island in policy.islands)
    return sha256_text("\n".join([policy.precision, *picked]))[:8]


def _island(said: Any) -> Island:
    if not isinstance(said, dict) or not isinstance(said.get("why"), str):
        raise InputError(f"island {said!r:.80} has no 'why'")
    for name, value in said.items():
        if name not in _FIELDS:
            raise InputError(f"island '{said['why']}' has a field '{name}'; expected {', '.join(_FIELDS)}")
        want = bool if name == "residual" else list if name == "but" else str
        if not isinstance(value, want):
            raise InputError(f"island '{said['why']}': '{name}' is {value!r:.80}, expected a {want.__name__}")
    return Island(**{**said, "but": tuple(map(str, said.get("but", ())))})
