"""SHA-256 of large files, remembered by path, size and time stamp so that an unchanged file is read once."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from runtime.errors import InputError
from runtime.files import exclusive, sha256_file, write_text

_MAX_MEMO_BYTES = 1 << 22
_MAX_ENTRIES = 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")


def cached_sha256(path: str | os.PathLike[str], memo: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of `path`'s content, from the JSON file `memo` while path, size and mtime_ns are as they were.

    Several processes may share a memo. A damaged one is started afresh. Raises InputError if `path` cannot be read,
    ToolchainError or OSError if the memo cannot be written.
    """
    real = os.path.realpath(path)
    try:
        key = _key(real)
        known = _read(Path(memo)).get(key)
        if known is not None:
            return known
        digest = sha256_file(real)
        changed = _key(real) != key
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; expected a readable file") from None
    if changed:
        # Another process wrote the file while it was read: the digest is of neither version, so it is not remembered.
        raise InputError(f"{path} changed while it was read; run again when whatever writes it is done")
    with exclusive(memo):
        entries = _read(Path(memo))
        # One entry a path: what an older version of the file hashed to is of no more use.
        entries = {other: value for other, value in entries.items() if other.rsplit("|", 2)[0] != real}
        newest = dict(list(entries.items())[-(_MAX_ENTRIES - 1) :])
        write_text(memo, json.dumps({**newest, key: digest}, indent=1) + "\n")
    return digest


def _key(real: str) -> str:
    status = os.stat(real)
    return f"{real}|{status.st_size}|{status.st_mtime_ns}"


def _read(memo: Path) -> dict[str, str]:
    """The memo's sound entries; none if it is missing or damaged, for then the files are simply read again."""
    try:
        with open(memo, "rb") as file:
            entries = json.loads(file.read(_MAX_MEMO_BYTES + 1))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {key: value for key, value in entries.items() if isinstance(value, str) and _SHA256.fullmatch(value)}
