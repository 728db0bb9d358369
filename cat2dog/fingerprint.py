"""What identifies a checkpoint: the hashes of its config and of its weights. No torch here."""

from __future__ import annotations

import os

from cat2dog.config import load_config
from cat2dog.folder import WEIGHTS, find
from runtime.hashes import cached_sha256


def fingerprint(folder: str | os.PathLike[str], memo: str | os.PathLike[str]) -> dict[str, str]:
    """`{"config": sha256, "weights": sha256}` of a checkpoint; `memo` is the hash memo (`runtime.hashes`) to use.

    The config's hash is of its meaning, not of its layout. Raises InputError if either file is missing or unsound.
    """
    folder = find(folder)
    return {"config": load_config(folder).sha256(), "weights": cached_sha256(folder / WEIGHTS, memo)}
