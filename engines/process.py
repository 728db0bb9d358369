"""Runs a child module under a flavor's Python: request in, progress and one answer out, nothing left running."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from runtime.errors import AccuracyError, EngineMismatch, InputError, ToolchainError

_ROOT = Path(__file__).resolve().parent.parent
_KEPT_LINES = 200
_BY_CODE = {error.exit_code: error for error in (ToolchainError, InputError, AccuracyError, EngineMismatch)}

Progress = Callable[[str, float | None], None]


def run_child(
    python: str, module: str, request: Mapping[str, Any], progress: Progress, verbose: bool = False
) -> dict[str, Any]:
    """Run `python -m module`, give it `request` as JSON, return its `done` answer.

    `progress(phase, fraction)` is called as it works. The child has a session of its own, so a Ctrl-C reaches this
    process alone; on any exception here, KeyboardInterrupt included, the child is ended before the exception goes on.
    Raises the error that the child reports, or ToolchainError where it died without a word.
    """
    try:
        child = start_module(python, module)
    except OSError as error:
        raise ToolchainError(f"cannot start {python}: {error.strerror or error}") from error
    log: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
    assert child.stdin and child.stdout and child.stderr
    reader = threading.Thread(target=drain, args=(child.stderr, log, verbose), daemon=True)
    reader.start()
    try:
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit code says more
            child.stdin.write(json.dumps({**request, "parent": os.getpid()}))
            child.stdin.close()
        answer = _follow(child.stdout, progress)
        code = child.wait()
        reader.join()
    except BaseException:
        end(child)
        raise
    if answer is None:
        raise ToolchainError(f"{module} {how_it_ended(code)}; nothing was filed{last_words(log)}")
    raise_failed(answer)
    return answer


def raise_failed(answer: Mapping[str, Any]) -> None:
    """Raise the error that a child reports in its answer, if it does."""
    if answer["event"] == "failed":
        raise _BY_CODE.get(answer["exit_code"], ToolchainError)(answer["text"])


def start_module(python: str, module: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m module` of this checkout, three text pipes to it, in a session of its own; `environment` is added.

    Raises OSError where it cannot be started.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [python, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        start_new_session=True,
    )


def _follow(lines: IO[str], progress: Progress) -> dict[str, Any] | None:
    answer = None
    for line in lines:
        event = json.loads(line)
        if event["event"] == "progress":
            progress(event["phase"], event["step"] / event["steps"] if event["steps"] else None)
        else:
            answer = event
    return answer


def drain(lines: IO[str], log: collections.deque[str], verbose: bool) -> None:
    """Follow what a child says on stderr: the last of it is kept, for when it dies."""
    for line in lines:
        log.append(line.rstrip())
        if verbose:
            print(line, end="", file=sys.stderr, flush=True)


def end(child: subprocess.Popen[str]) -> None:
    """A builder deep in native code hears no SIGTERM; the plan it was writing is a temporary file."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def how_it_ended(code: int) -> str:
    """What the exit code of a child that gave no answer says."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"ended with exit code {code} and no answer"


def last_words(log: collections.deque[str]) -> str:
    """The last line a child said, to be put behind what is known of its end."""
    said = [line for line in log if line.strip()]
    return f"; last it said: {said[-1][:300]}" if said else ""
