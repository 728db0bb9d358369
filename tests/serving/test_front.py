"""Plain HTTP before Triton: bytes in, bytes out, statuses; bodies that are too large, too slow, or nothing at all."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

from tests.serving.conftest import started, toy_words


@pytest.fixture(scope="module")
def server():
    with started(toy_words("--timeout", "1.5", "--queue", "4")) as running:
        running.event("ready")
        yield running


def call(server, path, body=None, **headers):
    """Status, headers and body of an answer."""
    request = urllib.request.Request(server.url("page") + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def post_json(server, path, content, **headers):
    status, _, body = call(
        server, path, json.dumps(content).encode(), **{"Content-Type": "application/json", **headers}
    )
    return status, json.loads(body)


def test_health_page_and_metrics(server):
    assert call(server, "/healthz")[0] == 200
    assert call(server, "/readyz")[:1] == (200,)
    status, headers, body = call(server, "/")
    assert status == 200 and b"Drop a cat" in body and "default-src 'self'" in headers["Content-Security-Policy"]
    post_json(server, "/v1/shout", {"text": "counted"})
    assert b'cat2dog_requests_total{function="shout",status="200"}' in call(server, "/metrics")[2]


def test_fields_as_json_or_in_the_query(server):
    assert post_json(server, "/v1/shout", {"text": "hä"}) == (200, {"loud": "HÄ", "batch": 1})
    assert json.loads(call(server, "/v1/shout?text=a%20b&seconds=0.1", b"")[2])["loud"] == "A B"
    json_type = {"Content-Type": "application/json"}
    assert call(server, "/v1/count", b'{"most": 2}', **json_type)[::2] == (200, b"\0\0")


def test_bytes_come_back_as_they_are_and_the_id_is_kept(server):
    status, headers, body = call(server, "/v1/count?most=3", b"", **{"X-Request-Id": "mine"})
    assert (status, body, headers["X-Request-Id"]) == (200, b"\0\0\0", "mine")
    events = {each["event"]: each for each in server.about("mine")}
    assert set(events) == {"request", "response", "http"} and events["http"]["bytes_out"] == 3
    assert events["http"]["total_ms"] >= events["response"]["total_ms"]


@pytest.mark.parametrize(
    ("path", "content", "status", "reason"),
    [
        ("/v1/whisper", {}, 404, "there is no function 'whisper'; expected shout, count"),
        ("/v1/shout", {"text": "whisper"}, 400, "a whisper cannot be shouted"),
        ("/v1/shout", {"text": "x" * 1001}, 413, "text has 1001 bytes"),
        ("/v1/shout", {"text": ["a"]}, 400, "text is neither a text, a number nor true or false"),
        ("/v1/shout", {"text": "a", "volume": 3}, 400, "volume"),
        ("/v1/shout", ["text"], 400, "no object of fields"),
        ("/v1/shout?seconds=soon", {"text": "a"}, 400, "seconds is 'soon'; expected float32"),
        ("/v1/shout", {"text": "break"}, 500, "the server failed at this request"),
    ],
)
def test_bad_requests_have_a_status_and_a_reason(server, path, content, status, reason):
    got, answer = post_json(server, path, content)
    assert got == status == answer["status"] and reason in answer["reason"] and answer["id"]


def test_what_is_no_json_or_no_bytes(server):
    status, _, body = call(server, "/v1/shout", b"{", **{"Content-Type": "application/json"})
    assert status == 400 and b"no JSON" in body
    status, _, body = call(server, "/v1/shout", b"raw", **{"Content-Type": "application/octet-stream"})
    assert status == 400 and b"takes no bytes" in body


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server):
    connection = http.client.HTTPConnection("127.0.0.1", int(server.event("ready")["page"]), timeout=10)
    connection.putrequest("POST", "/v1/shout")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_without_a_length_is_read_only_so_far(server):
    with socket.create_connection(("127.0.0.1", int(server.event("ready")["page"])), timeout=10) as raw:
        raw.sendall(b"POST /v1/shout HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        for _ in range(2):
            raw.sendall(chunk)
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]


def test_who_sends_too_slowly_is_refused_and_holds_up_nobody(server):
    with socket.create_connection(("127.0.0.1", int(server.event("ready")["page"])), timeout=10) as raw:
        raw.sendall(b"POST /v1/shout HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        assert post_json(server, "/v1/shout", {"text": "meanwhile"})[0] == 200
        assert b" 408 " in raw.recv(4096).split(b"\r\n")[0]


def test_overload_is_told_at_once(server):
    statuses = []

    def one():
        began = time.monotonic()
        status, _ = post_json(server, "/v1/shout", {"text": "a", "seconds": 0.5})
        statuses.append((status, time.monotonic() - began))

    threads = [threading.Thread(target=one) for _ in range(14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [seconds for status, seconds in statuses if status == 503]
    assert {status for status, _ in statuses} == {200, 503} and len(refused) >= 3
    assert sorted(refused)[len(refused) // 2] < min(seconds for status, seconds in statuses if status == 200)
