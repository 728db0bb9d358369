"""The log: one JSON object a line, whatever is logged."""

from __future__ import annotations

import io
import json
import logging
import threading

from serving.log import JsonLog, LineLog, LogHandler


def lines(file):
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_a_line_has_time_event_and_facts():
    file = io.StringIO()
    JsonLog(file)("request", id="a", nothing=None, ms=1.23456, text="two\nlines", raw=b"123", more={"x": 0.00049})
    (line,) = lines(file)
    assert line.pop("time").endswith("Z")
    expected = {"event": "request", "id": "a", "ms": 1.235, "text": "two\nlines", "raw": "3 bytes", "more": {"x": 0.0}}
    assert line == expected


def test_long_texts_are_cut_and_lines_of_many_threads_stay_whole():
    file = io.StringIO()
    log = JsonLog(file)
    threads = [threading.Thread(target=lambda: [log("x", text="ä" * 5000) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(file)) == 200
    assert all(len(line["text"]) < 2010 for line in lines(file))


def test_a_log_nobody_reads_ends_nothing():
    file = io.StringIO()
    file.close()
    JsonLog(file)("request", id="a")


def test_libraries_and_printed_lines_become_events():
    file = io.StringIO()
    log = JsonLog(file)
    logger = logging.getLogger("test-of-the-log")
    logger.addHandler(LogHandler(log))
    logger.propagate = False
    logger.warning("%d of %s", 1, "two")
    logger.warning("%d", "no number")
    printed = LineLog(log, "triton")
    print("\x1b[31mred\x1b[0m\n\nI1125 one", end="", file=printed)
    print(" line", file=printed)
    events = lines(file)
    assert [(each["event"], each["text"][:9]) for each in events] == [
        ("library", "1 of two"),
        ("library", "%d (%d fo"),
        ("triton", "red"),
        ("triton", "I1125 one"),
    ]
    assert events[-1]["text"] == "I1125 one line"
