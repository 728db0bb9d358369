"""How long each request waited and was worked on, as the log tells it."""

from __future__ import annotations

import json
import threading
import time
import urllib.request

import pytest

from serving.arrivals import Arrivals


def test_an_arrival_is_known_while_its_request_is_under_way():
    arrivals = Arrivals()
    before = time.monotonic()
    with arrivals.noted() as first, arrivals.noted() as second:
        assert before <= arrivals.of(first) <= arrivals.of(second) <= time.monotonic()
        assert first != second
        for claimed in ({}, {"arrival": "0"}, {"arrival": 1}, {"id": first["arrival"]}):
            assert arrivals.of(claimed) is None
        assert arrivals.is_taken(first)
    with arrivals.noted() as third:
        assert not arrivals.is_taken(third)
    assert arrivals.of(first) is arrivals.of(second) is None


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")
    from tests.serving.conftest import started, toy_words

    with started(toy_words("--most-batch", "1")) as running:
        running.event("ready")
        yield running


def post(server, path, id, content):
    headers = {"Content-Type": "application/json", "X-Request-Id": id}
    request = urllib.request.Request(server.url("page") + path, json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def response(server, id):
    (found,) = [each for each in server.about(id) if each["event"] == "response"]
    return found


def sums_up(found):
    """What is left of the total is the answer's way from the function to the log."""
    rest = found["total_ms"] - found["queue_ms"] - found["compute_ms"]
    return -0.01 <= rest < 100


def test_waiting_for_another_request_is_queue_time(server):
    """`shout` works on one batch at a time: the second request waits for the first, in Triton's queue."""
    first = threading.Thread(target=post, args=(server, "/v1/shout", "first", {"text": "a", "seconds": 0.5}))
    first.start()
    time.sleep(0.15)
    rest = [
        threading.Thread(target=post, args=(server, "/v1/shout", f"waits-{n}", {"text": "b", "seconds": 0.1}))
        for n in range(2)
    ]
    for thread in rest:
        thread.start()
    for thread in (first, *rest):
        thread.join()
    alone = response(server, "first")
    assert alone["through"] == "front" and 500 <= alone["compute_ms"] < 700 and alone["queue_ms"] < 150
    for waited in (response(server, f"waits-{n}") for n in range(2)):
        assert waited["queue_ms"] > 250 and 100 <= waited["compute_ms"] < 300
        assert sums_up(waited)
    assert sums_up(alone)


def test_waiting_for_a_turn_is_queue_time(server):
    """`count` is a stream of which the last answer is taken: one stream at a time, whoever asks."""
    from serving.client import Client

    with Client(server.grpc) as client:
        for _ in client.stream("count_stream", {"most": 4, "seconds": 0.15}, id="stream"):
            post(server, "/v1/count", "turn", {"most": 1, "seconds": 0.1})
            break
    found = response(server, "turn")
    assert found["queue_ms"] > 250 and 100 <= found["compute_ms"] < 250 and sums_up(found)
    until = time.monotonic() + 10
    while len(server.about("stream")) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    stream = response(server, "stream")
    assert stream["through"] == "triton" and stream["queue_ms"] < 100 and stream["compute_ms"] >= 150


def test_refused_requests_have_times_too_and_the_metrics_have_all(server):
    from serving.client import Client, ServerRefused

    with Client(server.grpc) as client:
        for id, values in {"long": {"text": "x" * 1001}, "shy": {"text": "whisper", "seconds": 0.1}}.items():
            with pytest.raises(ServerRefused):
                client.ask("shout", values, id=id)
    assert response(server, "long")["compute_ms"] == 0 and response(server, "long")["total_ms"] > 0
    assert response(server, "shy")["compute_ms"] >= 100 and sums_up(response(server, "shy"))
    text = urllib.request.urlopen(server.url("page") + "/metrics").read().decode()
    for step in ("queue", "compute"):
        assert f'cat2dog_step_seconds_count{{function="shout",step="{step}"}}' in text
