"""Turns are taken in order, waiting is bounded in time and number, and nothing is lost on the way to the end."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from runtime.errors import Busy, ToolchainError
from runtime.pool import Pool, _Waiter

CLOSED = ToolchainError("it is closed")


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.001)


def start(work):
    """A thread of `work`, and the list its answer or error will be in."""
    got: list = []

    def run():
        try:
            got.append(work())
        except ToolchainError as error:
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, got


def test_what_was_given_back_last_is_taken_first():
    pool = Pool(["a", "b"], 1, "lanes")
    first, second = pool.take(), pool.take()
    assert {first, second} == {"a", "b"}
    pool.give(first)
    pool.give(second)
    assert pool.take() == second


def test_waiting_is_bounded_in_time():
    pool = Pool(["a"], 1, "lanes")
    pool.take()
    with pytest.raises(Busy) as error:
        pool.take(0)
    assert str(error.value) == "all 1 lanes are taken; try again, or wait longer than 0 s"
    began = time.monotonic()
    with pytest.raises(Busy) as error:
        pool.take(0.05)
    assert 0.04 < time.monotonic() - began < 2
    assert str(error.value) == "none of 1 lanes came free within 0.05 s; try again, or wait longer"
    assert error.value.exit_code == 1
    pool.give("a")
    assert pool.take(0) == "a"  # who gave up is not served later


def test_waiting_is_bounded_in_number_and_served_in_order():
    pool = Pool(["a"], 2, "lanes")
    pool.take()
    threads, order = [], []
    for name in (1, 2):
        threads.append(start(lambda name=name: (pool.take(5), order.append(name), pool.give("a")))[0])
        until(lambda count=name: len(pool._waiting) == count)
    with pytest.raises(Busy) as error:
        pool.take(5)
    assert str(error.value) == ("all 1 lanes are taken and 2 calls wait already; try again later, or allow more")
    pool.give("a")
    for thread in threads:
        thread.join()
    assert order == [1, 2]


def test_closing_wakes_waiters_and_waits_for_the_others():
    pool = Pool(["a", "b"], 4, "lanes")
    pool.take(), pool.take()
    waiter, refused = start(lambda: pool.take())
    until(lambda: pool._waiting)
    closer, things = start(lambda: pool.close(CLOSED))
    waiter.join()
    assert type(refused[0]) is ToolchainError and str(refused[0]) == "it is closed"
    pool.give("a")
    time.sleep(0.02)
    assert closer.is_alive()
    pool.give("b")
    closer.join()
    assert things == [["a", "b"]]
    assert pool.close(CLOSED) == []
    with pytest.raises(ToolchainError, match="it is closed"):
        pool.take()


def test_the_first_end_stays():
    pool = Pool(["a"], 1, "lanes")
    pool.fail(Busy("the GPU is gone"))
    assert pool.close(CLOSED) == ["a"]
    for _ in range(2):
        with pytest.raises(Busy, match="the GPU is gone"):
            pool.take()


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_interrupted_waiter_loses_nothing(monkeypatch, handed_over):
    pool = Pool(["a"], 2, "lanes")
    pool.take()

    def interrupted(timeout):
        if handed_over:
            pool.give("a")
        raise KeyboardInterrupt

    waiter = _Waiter()
    monkeypatch.setattr(waiter, "wait", interrupted)
    monkeypatch.setattr("runtime.pool._Waiter", lambda: waiter)
    with pytest.raises(KeyboardInterrupt):
        pool.take(1)
    if not handed_over:
        pool.give("a")
    assert pool.take(0) == "a"


def use_until_interrupted(pool):
    """Takes and gives back as a runner does."""
    while True:
        held = []
        try:
            try:
                pool.take(None, held)
            finally:
                pool.give_all(held)
        finally:
            pool.give_all(held)


@pytest.mark.parametrize("others", [0, 2])
def test_an_interrupt_at_any_moment_loses_nothing(others):
    """By a signal, after a time that differs each time; with `others`, most of them come to one who waits."""

    class Interrupted(BaseException):
        pass

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for turn in range(100 if others else 300):
            pool = Pool(["a"], 4, "lanes")
            going = threading.Event()

            def work(pool=pool, going=going):
                while not going.is_set():
                    pool.give(pool.take())

            threads = [start(work)[0] for _ in range(others)]
            with pytest.raises(Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 5e-5 + turn % 100 * 1e-6)
                use_until_interrupted(pool)
            going.set()
            for thread in threads:
                thread.join(5)
                assert not thread.is_alive()
            assert pool.take(0) == "a" and not pool._free and not pool._waiting
    finally:
        signal.signal(signal.SIGALRM, before)


def test_many_threads_never_hold_the_same_thing():
    pool = Pool([[0], [0], [0]], 64, "lanes")
    wrong = []

    def work():
        for _ in range(200):
            thing = pool.take()
            thing[0] += 1
            if thing[0] != 1:
                wrong.append(thing[0])
            thing[0] -= 1
            pool.give(thing)

    threads = [start(work)[0] for _ in range(8)]
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(pool.close(CLOSED)) == 3
