"""Servers that tests start. What needs Triton runs in the environment of `make test-serving`, the rest in both."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def pytest_terminal_summary(terminalreporter) -> None:
    """What tests have measured, also where other processes ran them."""
    for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", []):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "measured":
                terminalreporter.write_line(f"measured {report.nodeid.rpartition('::')[2]}: {value}")


@dataclasses.dataclass
class Server:
    """A server process that this test run has started; `events` is its log so far."""

    process: subprocess.Popen[str]
    events: list[dict[str, object]]
    reader: threading.Thread

    def event(self, name: str, seconds: float = 60.0) -> dict[str, object]:
        """The first event of that name, waited for."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for each in list(self.events):
                if each["event"] == name:
                    return each
            if self.process.poll() is not None and not self.reader.is_alive():
                break
            time.sleep(0.02)
        told = [each for each in self.events if each["event"] != "triton"]
        raise AssertionError(f"no event {name}; exit code {self.process.poll()}, log {told[-5:]}")

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.event('ready')['grpc']}"

    def url(self, door: str) -> str:
        """`http`, `metrics` or `page`."""
        return f"http://127.0.0.1:{self.event('ready')[door]}"

    def about(self, id: str) -> list[dict[str, object]]:
        """The log's lines about one request."""
        return [each for each in list(self.events) if each.get("id") == id]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal, wait for the end."""
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        self.reader.join(10)
        return code


@contextlib.contextmanager
def started(words: list[str], ports: list[str] | None = None, **variables: str) -> Iterator[Server]:
    """A server of these words, on free ports where none are given; killed at the end where it still runs."""
    ports = ports or [word for door in ("page", "http", "grpc", "metrics") for word in (f"--{door}-port", "0")]
    process = subprocess.Popen(
        [*words, *ports],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    events: list[dict[str, object]] = []

    def read() -> None:
        for line in process.stderr or io.StringIO():
            try:
                events.append(json.loads(line))
            except ValueError:
                events.append({"event": "line", "text": line.rstrip()})

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield Server(process, events, reader)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(10)


def toy_words(*options: str) -> list[str]:
    """The server of `toys.py`."""
    return [sys.executable, "-m", "tests.serving.toy_server", *options]


def network_words(*networks: Path, options: tuple[str, ...] = ()) -> list[str]:
    """The server of cat2dog's function."""
    return [sys.executable, "-m", "serving.server", *map(str, networks), *options]
