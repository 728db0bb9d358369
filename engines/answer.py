"""The child's side of `engines.process`: one request on stdin, then progress and one answer on stdout."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from runtime.errors import ToolchainError

_PR_SET_PDEATHSIG = 1

Work = Callable[[Mapping[str, Any], Callable[..., None]], dict[str, Any]]


def serve(work: Work) -> None:
    """Answer the one request with `work(request, progress)` and exit: 0 done, 1 failed.

    Expected failures become a `failed` answer; anything else ends the process with a traceback, which the parent
    reports as its last words.
    """
    # Libraries print where they like; the answers keep a channel of their own.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(**event: Any) -> None:
        channel.write(json.dumps(event) + "\n")

    request = json.loads(sys.stdin.read())
    die_with_parent(request["parent"])
    try:
        answer = {"event": "done", **work(request, lambda **event: send(event="progress", **event))}
    except ToolchainError as error:
        answer = _failed(str(error), error.exit_code)
    except OSError as error:
        where = f"cannot write {error.filename}: " if error.filename else ""
        answer = _failed(f"{where}{error.strerror or error}", ToolchainError.exit_code)
    except MemoryError:
        answer = _failed("not enough memory to build or run the engine", ToolchainError.exit_code)
    send(**answer)
    sys.exit(0 if answer["event"] == "done" else 1)


def _failed(text: str, exit_code: int) -> dict[str, Any]:
    return {"event": "failed", "text": text, "exit_code": exit_code}


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when the process `parent` ends, however that happens.

    The parent says its own number: in a container it may be 1, which elsewhere means that it is gone.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # not Linux: an orphan ends with its build, and files nothing
    if os.getppid() != parent:
        sys.exit(1)
