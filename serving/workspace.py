"""The folder that PyTriton works in: of one server, and removed after it, also after one that was killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtime import files
from runtime.errors import InputError

# Sockets lie in it, and their paths have at most 107 bytes.
_LONGEST = 60
_SHARED_MEMORY = Path("/dev/shm")


@contextlib.contextmanager
def workspace() -> Iterator[tuple[Path, bool]]:
    """A path for PyTriton to make its folder at, and whether an earlier server was killed and left its own.

    Then that server's Triton may still be at its end, and hold its ports for some seconds.
    """
    parent = _parent()
    before = len(list(parent.iterdir()))
    files.remove_leftovers(parent)
    _remove_shared_memory(_SHARED_MEMORY)
    was_killed = len(list(parent.iterdir())) < before
    path = parent / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield path, was_killed
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_shared_memory(folder: Path) -> None:
    """What a killed server shared with its Triton stays in memory until it is removed; its name has the owner in it."""
    for region in folder.glob("pytrtion*-*"):  # so it is spelt
        owner = region.name.removeprefix("pytrtion").split("-")[0]
        with contextlib.suppress(OSError):
            if owner.isdigit() and region.lstat().st_uid == os.getuid() and not Path(f"/proc/{owner}").exists():
                region.unlink()


def _parent() -> Path:
    """Only this user's: who can write into it decides what the server loads."""
    parent = Path(tempfile.gettempdir()) / f"cat2dog-serving-{os.getuid()}"
    if len(os.fsencode(parent)) > _LONGEST:
        parent = Path("/tmp") / parent.name
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
        status = parent.lstat()
    except OSError as error:
        raise InputError(f"cannot work in {parent}: {error.strerror}; let TMPDIR name a folder to write to") from error
    if parent.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise InputError(f"{parent} is not this user's own folder; remove it, or let TMPDIR name another")
    return parent
