"""A peer's worker process, seen from the bench: commands in, answers out, an end to it whatever happens."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from engines.process import start_module

_KEPT_LINES = 100


class WorkerFailed(Exception):
    """Why a worker gave no answer, in one line. `alive`: it said so itself, and takes further commands."""

    def __init__(self, reason: str, alive: bool = False):
        super().__init__(reason)
        self.alive = alive


class Worker:
    """`python -m bench.worker` under `python`. One command is under way at a time; `ask` sends and waits.

    The worker has a session of its own: a Ctrl-C reaches the bench alone, which ends its workers.
    """

    def __init__(self, python: str, verbose: bool = False):
        self.started = time.time()
        try:
            # Threads of OpenMP would otherwise spin a while after their work, taking cores from the peer that is next.
            self._process = start_module(python, "bench.worker", OMP_WAIT_POLICY="PASSIVE")
        except OSError as error:
            raise WorkerFailed(f"{python} cannot be started: {error.strerror or error}") from error
        self._verbose = verbose
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._log: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        assert self._process.stdout and self._process.stderr
        threading.Thread(target=self._follow, args=(self._process.stdout,), daemon=True).start()
        self._drainer = threading.Thread(target=self._drain, args=(self._process.stderr,), daemon=True)
        self._drainer.start()

    def send(self, command: Mapping[str, Any]) -> None:
        """Give it a command. Raises WorkerFailed where the worker is gone."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise WorkerFailed(self._death()) from error

    def receive(self, timeout: float) -> Any:
        """Its answer. Raises WorkerFailed where it failed, died, or did not answer within `timeout` seconds."""
        try:
            line = self._answers.get(timeout=max(timeout, 0.01))
        except queue.Empty:
            raise WorkerFailed(f"no answer within {timeout:.0f} s") from None
        if line is None:
            raise WorkerFailed(self._death())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"], alive=True)
        return answer["ok"]

    def ask(self, command: Mapping[str, Any], timeout: float) -> Any:
        """`send` and `receive`."""
        self.send(command)
        return self.receive(timeout)

    def end(self) -> None:
        """Kill it with all it has started, and wait for that. What it had to say was asked for before."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    def _follow(self, lines: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # closed by `end`
            for line in lines:
                self._answers.put(line)
        self._answers.put(None)

    def _drain(self, lines: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in lines:
                self._log.append(line.rstrip())
                if self._verbose:
                    print(line, end="", file=sys.stderr, flush=True)

    def _death(self) -> str:
        code = self._process.wait()
        self._drainer.join(timeout=5)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = [line for line in self._log if line.strip()]
        return f"the worker {how}" + (f"; last it said: {' '.join(said[-1].split())[:300]}" if said else "")
