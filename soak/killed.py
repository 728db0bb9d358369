"""Real processes that are killed at a random moment, and what of them may be left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import filelock

from runtime.errors import ToolchainError
from soak.result import promise

OUTLIVED, KILLED = "outlived", "killed"


def forked(work: Callable[[], None]) -> int:
    """The number of a process that does `work` and ends with 0, or 1 where it raised.

    A fork, not a new interpreter: what it would import is imported, so that hundreds fit into minutes.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        work()
        code = 0
    except ToolchainError:
        pass  # told by the exit code
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for the process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(work: Callable[[], None], seconds: float, child: bool = False) -> str:
    """Do `work` in a process of its own and `kill -9` it after `seconds`, or what it started, with `child`."""
    pid = forked(work)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return OUTLIVED
        time.sleep(min(left, 0.005))
    victims = children(pid) if child else [pid]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    if not child or not victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    code = ended(pid)
    return OUTLIVED if code == 0 else KILLED


def children(pid: int) -> list[int]:
    """The processes that this one started and that have not ended."""
    try:
        words = [Path(task, "children").read_text().split() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []  # it ended just now
    return [int(word) for line in words for word in line]


def check_unlocked(folder: Path) -> int:
    """No lock under `folder` is held by anyone; how many there are."""
    locks = list(folder.rglob(".*.lock"))
    for path in locks:
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=5)
        except filelock.Timeout:
            promise(False, f"{path} is still held after the process that took it was killed")
        lock.release()
    return len(locks)


def moments(count: int, longest: float, seed: int) -> list[float]:
    """Seconds after which to kill, over the whole of the work and a little more."""
    random_ = random.Random(seed)
    return [random_.uniform(0, longest) for _ in range(count)]
