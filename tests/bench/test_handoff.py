"""Work for one thread, asked for by others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.handoff import in_this_thread


def test_the_work_is_done_here_whoever_asks():
    seen = []

    def work(number):
        seen.append(threading.current_thread())
        return number * number

    def body(call):
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(call, range(20)))

    assert in_this_thread(work, body) == [number * number for number in range(20)]
    assert set(seen) == {threading.current_thread()}


def test_what_fails_is_raised_where_it_was_asked_for():
    def body(call):
        with pytest.raises(ZeroDivisionError):
            call(0)
        return call(2)

    assert in_this_thread(lambda number: 1 / number, body) == 0.5
    with pytest.raises(ZeroDivisionError):
        in_this_thread(lambda number: 1 / number, lambda call: call(0))
