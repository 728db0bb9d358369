"""Clients that go away in the middle of a request: others are answered, nothing is kept of those that left."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

from serving.client import AsyncClient
from serving.function import LEFT, Ask, Refusal
from serving.streams import LastOnly, Turns
from tests.serving.conftest import started, toy_words
from tests.serving.toys import Count

QUEUE = 6


@pytest.fixture(scope="module")
def server():
    with started(toy_words("--queue", str(QUEUE), "--most-batch", "1")) as running:
        running.event("ready")
        yield running


def leave(server, id, body, sent=None, function="shout"):
    """A POST of which `sent` bytes of the body are sent (default: all), on a connection that is still open."""
    raw = socket.create_connection(("127.0.0.1", int(server.event("ready")["page"])), timeout=10)
    head = f"POST /v1/{function} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\nContent-Type: application/json\r\n"
    raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:sent])
    return raw


def post(server, text):
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(server.url("page") + "/v1/shout", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["loud"]


def post_when_there_is_room(server, text, seconds=3.0):
    """As a client that is told 503 should: again, a little later."""
    until = time.monotonic() + seconds
    while True:
        try:
            return post(server, text)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > until:
                raise
        time.sleep(0.05)


def waited_for(condition, seconds=15.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def line_of(server, id, event):
    return next((each for each in server.about(id) if each["event"] == event), None)


def metric(server, name):
    lines = urllib.request.urlopen(server.url("page") + "/metrics").read().decode().splitlines()
    return float(next((line.split()[-1] for line in lines if line.startswith(name)), "0"))


def holds(pid):
    """Threads and open files of a process."""
    return tuple(len(list(Path(f"/proc/{pid}/{kind}").iterdir())) for kind in ("task", "fd"))


def slow(seconds):
    return json.dumps({"text": "slow", "seconds": seconds}).encode()


def test_who_leaves_while_waiting_is_not_worked_on(server):
    with leave(server, "works", slow(1.0)) as first:
        waited_for(lambda: line_of(server, "works", "request"))
        waiting = [leave(server, f"waits-{number}", slow(1.0)) for number in range(QUEUE)]
        time.sleep(0.3)
        for raw in waiting:
            raw.close()
        waited_for(lambda: all(line_of(server, f"waits-{number}", "http") for number in range(QUEUE)))
        assert {line_of(server, f"waits-{number}", "http")["status"] for number in range(QUEUE)} == {499}
        assert b" 200 " in first.recv(4096).split(b"\r\n")[0]
    began = time.monotonic()
    # Triton clears their places when it takes the next batch, which may be some moments after its last answer.
    assert post_when_there_is_room(server, "next") == "NEXT"
    assert time.monotonic() - began < 3.0  # and not the six seconds of those that left
    assert not any(line_of(server, f"waits-{number}", "request") for number in range(QUEUE))


@pytest.mark.parametrize("sent", [None, 5], ids=["while it is worked on", "in the middle of the body"])
def test_many_who_leave_hurt_nobody_and_leave_nothing(server, sent):
    assert post(server, "before") == "BEFORE"
    before, left = holds(server.process.pid), metric(server, "cat2dog_clients_left_total")
    for number in range(4 * QUEUE):
        id = f"{sent}-{number}"
        raw = leave(server, id, slow(0.05), sent)
        if sent is None:
            waited_for(lambda id=id: line_of(server, id, "request"))
        raw.close()
        assert post(server, f"t{number}") == f"T{number}"
        waited_for(lambda id=id: line_of(server, id, "http"))
        assert line_of(server, id, "http")["status"] == 499
        assert (line_of(server, id, "response") is not None) == (sent is None)
    assert metric(server, "cat2dog_clients_left_total") - left == 4 * QUEUE
    assert metric(server, "cat2dog_under_way") == 0
    waited_for(lambda: all(now <= was + 3 for now, was in zip(holds(server.process.pid), before, strict=True)))


def test_who_leaves_takes_what_is_left_of_a_stream_with_it(server):
    with leave(server, "counts", json.dumps({"most": 5, "seconds": 0.4}).encode(), function="count"):
        waited_for(lambda: line_of(server, "counts", "request"))
        time.sleep(0.2)
    waited_for(lambda: line_of(server, "counts", "response"), 1.5)  # and not the two seconds of all five
    response = line_of(server, "counts", "response")
    assert (response["status"], response["reason"]) == (499, "the client has left")


def test_the_last_answer_is_not_made_for_who_has_left():
    function = Count()
    last = LastOnly(function, Turns(function, 1, 1.0))
    values = {"most": 5, "seconds": 0.0}
    assert last.answer([Ask("a", values)])[0].values["number"] == 5
    asked = iter([False, False, True, True, True])
    (result,) = last.answer([Ask("b", values, is_left=lambda: next(asked))])
    assert isinstance(result, Refusal) and result.status == LEFT and function.under_way == 0
    assert len(list(asked)) < 3  # after its first piece


def test_requests_cancelled_over_grpc_among_others(server):
    async def cancelled(client, number):
        task = asyncio.create_task(client.ask("shout", {"text": "gone", "seconds": 0.02}, id=f"gone-{number}"))
        await asyncio.sleep(0.001 * (number % 30))
        task.cancel()
        return await asyncio.gather(task, return_exceptions=True)

    async def all_of_them():
        async with AsyncClient(server.grpc, 30.0) as client:
            for number in range(100):
                kept, _ = await asyncio.gather(client.ask("shout", {"text": f"k{number}"}), cancelled(client, number))
                assert kept["loud"] == f"K{number}".encode()

    asyncio.run(all_of_them())


def test_it_still_stops_as_it_should(server):
    raw = leave(server, "last", slow(1.0))
    waited_for(lambda: line_of(server, "last", "request"))
    raw.close()
    began = time.monotonic()
    os.kill(server.process.pid, 15)
    assert server.process.wait(60) == 0 and time.monotonic() - began < 20
    assert server.event("stopped")
