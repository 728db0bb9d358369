"""The server's log: one JSON object a line, on stderr, so that a collector needs no parser.

Every line has `time` (UTC, milliseconds) and `event`; lines about one request share its `id`.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

_LONGEST = 2000
# Log colours and their like, from programs that think they write to a terminal.
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class JsonLog:
    """Writes events to `file`. Any thread may; a line is written whole. A reader that is gone ends nothing."""

    def __init__(self, file: TextIO | None = None):
        self._file = file if file is not None else sys.stderr
        self._lock = threading.Lock()

    def __call__(self, event: str, /, **facts: Any) -> None:
        """Write one line; facts that are None are left out, floats are rounded to three places."""
        now = datetime.datetime.now(datetime.timezone.utc)
        line = {"time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "event": event}
        line.update({name: _plain(fact) for name, fact in facts.items() if fact is not None})
        text = json.dumps(line, default=str)
        with self._lock:
            try:
                self._file.write(text + "\n")
                self._file.flush()
            except (OSError, ValueError):  # a full disk or a closed pipe must not stop the answers
                pass


class LogHandler(logging.Handler):
    """Brings Python's `logging` (PyTriton's warnings, for one) into the same log."""

    def __init__(self, log: JsonLog):
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError) as error:  # the fault of who logged it
            text = f"{record.msg} ({error})"
        self._log("library", level=record.levelname.lower(), logger=record.name, text=text)


class LineLog:
    """A text file to be written to, whose lines become events: what Triton prints while it starts and stops."""

    encoding = "utf-8"

    def __init__(self, log: JsonLog, event: str):
        self._log = log
        self._event = event
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            self._rest = self._rest[-_LONGEST:]
        for line in lines:
            if plain := _ESCAPES.sub("", line).strip():
                self._log(self._event, text=plain)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back but unfinished lines."""

    def isatty(self) -> bool:
        return False


def _plain(fact: Any) -> Any:
    if isinstance(fact, float):
        return round(fact, 3)
    if isinstance(fact, str):
        return fact if len(fact) <= _LONGEST else fact[:_LONGEST] + " …"
    if isinstance(fact, bytes):
        return f"{len(fact)} bytes"
    if isinstance(fact, Mapping):
        return {str(name): _plain(each) for name, each in fact.items()}
    return fact
