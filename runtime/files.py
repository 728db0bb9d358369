"""Files that are written whole or not at all, known by their content, and built by one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from runtime.errors import ToolchainError

_CHUNK = 1 << 22


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on leaving without an error it is fsynced and renamed onto `target`.

    On any error, Ctrl-C included, the temporary file is removed and `target` stays as it was. The name begins with
    `.tmp-` so that leftovers of a killed process can be told from results.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".tmp-{os.getpid()}-{secrets.token_hex(8)}{target.suffix}"
    # Not mkstemp, which makes 0600: an engine is shared like any other file. The kernel applies the umask here; to read
    # it, Python has to change it for a moment, and other threads are writing files.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _fsync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(target: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Write `data` to `target`, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `target`, whole or not at all."""
    write_bytes(target, text.encode())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files and folders in `folder` whose process is gone; only killed processes leave any."""
    for leftover in Path(folder).glob(".tmp-*-*"):
        owner = leftover.name.split("-")[1]
        if owner.isdigit() and not _is_alive(int(owner)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's content, read in 4 MiB pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def exclusive(target: str | os.PathLike[str], on_wait: Callable[[Path], None] | None = None) -> Iterator[None]:
    """Hold the lock of `target` (a file `.NAME.lock` beside it); the kernel frees it when the process dies.

    `on_wait` is called once, with the lock's path, when another process holds it. Raises ToolchainError where the
    folder cannot be written.
    """
    import filelock

    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if on_wait:
                on_wait(Path(lock.lock_file))
            lock.acquire()
    except OSError as error:
        raise ToolchainError(f"cannot lock {target}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
