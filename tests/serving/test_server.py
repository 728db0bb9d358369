"""Functions behind a real Triton: answers, refusals, batches, streams, overload; what the log and the metrics say."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

import numpy as np

from serving.client import AsyncClient, Client, ServerRefused
from tests.serving.conftest import started, toy_words


@pytest.fixture(scope="module")
def server():
    with started(toy_words("--queue", "4", "--timeout", "1.5")) as running:
        running.event("ready")
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc, timeout=30.0) as made:
        yield made


def post(url, body, headers=None):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def at_once(server, asks, function="shout"):
    """Answers or refusals of requests that are sent together, in their order."""

    async def one(client, values):
        try:
            return await client.ask(function, values)
        except ServerRefused as error:
            return error

    async def all_of_them():
        async with AsyncClient(server.grpc, timeout=30.0) as client:
            return await asyncio.gather(*(one(client, values) for values in asks))

    return asyncio.run(all_of_them())


def test_it_warms_up_before_it_is_ready(server, client):
    names = [each["event"] for each in server.events]
    assert names.index("warm-up") < names.index("ready")
    assert client.is_ready("shout") and client.is_ready("count_stream") and not client.is_ready("whisper")
    for door in ("live", "ready"):
        assert urllib.request.urlopen(f"{server.url('http')}/v2/health/{door}").status == 200


def test_an_answer_and_what_the_log_says_of_it(server, client):
    assert client.ask("shout", {"text": "hä"}, id="one")["loud"].decode() == "HÄ"
    request, response = server.about("one")
    assert (request["event"], request["fields"]) == ("request", {"text": "3 bytes"})
    assert (response["event"], response["status"], response["fields"]["batch"]) == ("response", 200, 1)
    assert response["step_ms"] == 0.5


@pytest.mark.parametrize(
    ("values", "status", "reason"),
    [
        ({"text": "whisper"}, 400, "a whisper cannot be shouted"),
        ({"text": b"\xff"}, 400, "text is not UTF-8"),
        ({"text": "x" * 1001}, 413, "text has 1001 bytes"),
        ({"text": "a", "seconds": 61.0}, 400, "seconds is 61; expected 0 to 60"),
        ({"text": "a", "sekunden": 1}, 400, "unexpected inference input 'sekunden'"),
        ({"seconds": 0.1}, 400, "text is missing: any text"),
        ({"text": 5}, 400, "data-type is 'INT32'"),
    ],
)
def test_bad_requests_are_refused_with_a_reason(client, values, status, reason):
    with pytest.raises(ServerRefused) as refused:
        client.ask("shout", values)
    assert (refused.value.status, refused.value.is_busy) == (status, False)
    assert reason in refused.value.reason


def test_a_fault_is_told_without_its_inside_and_the_next_is_answered(server, client):
    with pytest.raises(ServerRefused, match="500: the server failed at this request") as refused:
        client.ask("shout", {"text": "break"}, id="broken")
    assert "ZeroDivisionError" not in str(refused.value)
    (fault,) = [each for each in server.events if each["event"] == "fault" and "broken" in each["ids"]]
    assert "ZeroDivisionError" in fault["traceback"]
    assert client.ask("shout", {"text": "a"})["loud"] == b"A"


def test_bad_ones_in_a_batch_do_not_hurt_the_others(server):
    first = {"text": "first", "seconds": 0.4}
    rest = [{"text": text, "seconds": 0.0} for text in ("a", "whisper", "b", "c")]

    async def first_then_rest():
        async with AsyncClient(server.grpc) as client:

            async def one(values):
                try:
                    return await client.ask("shout", values)
                except ServerRefused as error:
                    return error

            alone = asyncio.create_task(one(first))
            await asyncio.sleep(0.15)  # it runs now, and those that come wait together
            return await asyncio.gather(*map(one, rest)), await alone

    together, alone = asyncio.run(first_then_rest())
    assert alone["loud"] == b"FIRST"
    assert [each["loud"] for each in together if not isinstance(each, ServerRefused)] == [b"A", b"B", b"C"]
    assert together[1].status == 400
    assert max(each["batch"] for each in together if isinstance(each, dict)) > 1


def test_overload_is_told_at_once_and_the_accepted_are_answered(server):
    began = time.monotonic()
    times = {}

    async def one(client, number):
        try:
            answer = await client.ask("shout", {"text": f"t{number}", "seconds": 0.5})
        except ServerRefused as error:
            answer = error
        times[number] = time.monotonic() - began
        return answer

    async def all_of_them():
        nonlocal began
        async with AsyncClient(server.grpc) as client:
            await client.ask("shout", {"text": "connected"})
            began = time.monotonic()
            return await asyncio.gather(*(one(client, number) for number in range(16)))

    answers = asyncio.run(all_of_them())
    refused = [number for number, each in enumerate(answers) if isinstance(each, ServerRefused)]
    assert 4 <= len(refused) <= 12
    assert all(answers[number].is_busy and "queue" in answers[number].reason for number in refused)
    assert max(times[number] for number in refused) < min(times[n] for n in range(16) if n not in refused)
    assert all(each["loud"] == f"T{number}".encode() for number, each in enumerate(answers) if isinstance(each, dict))


def test_who_waits_too_long_is_refused(server):
    asks = [{"text": "slow", "seconds": 2.5}, *[{"text": "late", "seconds": 0.0}] * 3]

    async def staggered():
        async with AsyncClient(server.grpc) as client:
            slow = asyncio.create_task(client.ask("shout", asks[0]))
            await asyncio.sleep(0.2)
            late = await asyncio.gather(*(client.ask("shout", each) for each in asks[1:]), return_exceptions=True)
            return await slow, late

    slow, late = asyncio.run(staggered())
    assert slow["loud"] == b"SLOW"
    assert all(isinstance(each, ServerRefused) and each.is_busy and "timeout" in each.reason.lower() for each in late)


def test_a_stream_comes_piece_by_piece(client, server):
    times = []
    for number, answer in enumerate(client.stream("count_stream", {"most": 3, "seconds": 0.3}, id="piecewise"), 1):
        times.append(time.monotonic())
        assert answer == {"number": number, "raw": b"\0" * number}
    assert len(times) == 3 and times[2] - times[0] > 0.4
    response = server.about("piecewise")[-1]
    assert (response["status"], response["pieces"]) == (200, 3)


def test_a_stream_refused_midway_gives_what_came_before(client):
    seen = []
    with pytest.raises(ServerRefused, match="counting ends at 5"):
        for answer in client.stream("count_stream", {"most": 8}):
            seen.append(answer["number"])
    assert seen == [1, 2, 3, 4, 5]
    with pytest.raises(ServerRefused, match="500: the function gave no answer"):
        list(client.stream("count_stream", {"most": 0}))


def test_the_last_answer_of_a_stream_alone(client):
    assert client.ask("count", {"most": 4}) == {"number": 4, "raw": b"\0" * 4}
    with pytest.raises(ServerRefused, match="400: counting ends at 5"):
        client.ask("count", {"most": 6})


def test_streams_take_turns_and_overload_is_told_at_once(server):
    async def one(client):
        try:
            return len([each async for each in client.stream("count_stream", {"most": 2, "seconds": 0.1})])
        except ServerRefused as error:
            return error

    async def all_of_them():
        async with AsyncClient(server.grpc) as client:
            return await asyncio.gather(*(one(client) for _ in range(9)))

    answers = asyncio.run(all_of_them())
    assert [each for each in answers if isinstance(each, int)] == [2] * 5  # one that runs and four that wait
    assert all(each.status == 503 for each in answers if isinstance(each, ServerRefused))


def test_who_leaves_a_stream_leaves_the_others_alone(server, client):
    for answer in client.stream("count_stream", {"most": 5, "seconds": 0.05}):
        assert answer["number"] == 1
        break
    assert len(list(client.stream("count_stream", {"most": 5}))) == 5


def test_json_over_http(server):
    url = f"{server.url('http')}/v2/models/count/infer"
    most = {"name": "most", "shape": [1, 1], "datatype": "INT32", "data": [3]}
    status, answer = post(url, {"parameters": {"base64": True, "id": "json"}, "inputs": [most]})
    outputs = {each["name"]: each["data"] for each in answer["outputs"]}
    assert status == 200 and outputs["status"] == [200] and outputs["reason"] == [""]
    assert base64.b64decode(outputs["raw"][0]) == b"\0\0\0"
    assert len(server.about("json")) == 2
    status, answer = post(url, {"inputs": [{**most, "data": ["three"]}]})
    assert status in (400, 500) and "Unable to parse" in answer["error"]  # Triton calls it its own fault


def test_several_rows_in_one_request(server):
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(server.grpc) as raw:
        texts = triton.InferInput("text", [3, 1], "BYTES")
        texts.set_data_from_numpy(np.array([[b"a"], [b"whisper"], [b"c"]], object))
        result = raw.infer("shout", [texts], parameters={"id": "rows"})
        assert result.as_numpy("loud").tolist() == [[b"A"], [b""], [b"C"]]
        assert result.as_numpy("status").tolist() == [[200], [400], [200]]
        assert [len(server.about(f"rows-{row}")) for row in range(3)] == [2, 2, 2]
        wide = triton.InferInput("text", [1, 2], "BYTES")
        wide.set_data_from_numpy(np.array([[b"a", b"b"]], object))
        with pytest.raises(triton.InferenceServerException, match="unexpected shape"):
            raw.infer("shout", [wide])


def test_triton_counts(server, client):
    client.ask("shout", {"text": "a"})
    text = urllib.request.urlopen(server.url("metrics") + "/metrics").read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith('nv_inference_count{model="shout"')]
    assert float(line.split()[-1]) > 0
