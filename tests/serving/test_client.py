"""The client against a real server: waiting, from several threads, async, piece by piece, with progress, given up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

from serving.client import AsyncClient, Client, ServerRefused
from tests.serving.conftest import ROOT, started, toy_words

NOBODY = "127.0.0.1:9"


@pytest.fixture(scope="module")
def server():
    with started(toy_words("--queue", "40")) as running:
        running.event("ready")
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc, timeout=30.0) as made:
        yield made


def test_threads_share_a_client_also_for_streams(client):
    answers = {}

    def one(number):
        if number % 2:
            answers[number] = client.ask("shout", {"text": f"t{number}"})["loud"]
        else:
            answers[number] = [each["number"] for each in client.stream("count_stream", {"most": 3, "seconds": 0.05})]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"T{number}".encode() if number % 2 else [1, 2, 3] for number in range(10)}


def test_many_at_once_in_one_thread(server):
    async def all_of_them():
        async with AsyncClient(server.grpc, 30.0) as client:
            assert await client.is_ready("shout") and not await client.is_ready("whisper")
            asked = (client.ask("shout", {"text": f"t{number}"}) for number in range(30))
            return await asyncio.gather(*asked)

    assert [each["loud"] for each in asyncio.run(all_of_them())] == [f"T{number}".encode() for number in range(30)]


def test_progress_is_told_and_the_last_answer_returned(server, client):
    told, times = [], []

    def progress(number, answer):
        told.append((number, answer["number"]))
        times.append(time.monotonic())

    last = client.ask("count", {"most": 3, "seconds": 0.2}, progress=progress)
    assert (told, last["raw"]) == ([(1, 1), (2, 2), (3, 3)], b"\0\0\0")
    assert times[2] - times[0] > 0.3
    with pytest.raises(ServerRefused, match="400: counting ends at 5"):
        client.ask("count", {"most": 9}, progress=progress)
    assert len(told) == 8

    async def asynchronously():
        async with AsyncClient(server.grpc, 30.0) as client:
            return await client.ask("count", {"most": 2}, progress=lambda *facts: told.append(facts))

    last = asyncio.run(asynchronously())
    assert last == {"number": 2, "raw": b"\0\0"} and [number for number, _ in told[8:]] == [1, 2]


def test_the_command_tells_progress(server, tmp_path):
    words = [sys.executable, "-m", "serving.client", "--url", server.grpc, "--function", "count", "--progress"]
    words += ["--set", "most=3", str(tmp_path / "raw")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split("answer ")[1][:11] for line in done.stderr.splitlines()] == [
        f"{n}: number {n}" for n in (1, 2, 3)
    ]
    assert "number: 3" in done.stdout


def test_who_does_not_answer_in_time_is_given_up(server):
    async def asynchronously(most, seconds):
        async with AsyncClient(server.grpc, 0.4) as client:
            return [each["number"] async for each in client.stream("count_stream", {"most": most, "seconds": seconds})]

    with Client(server.grpc, timeout=0.4) as client:
        # Not the whole stream has to come in that time, but the next answer.
        assert len(list(client.stream("count_stream", {"most": 5, "seconds": 0.15}))) == 5
        assert asyncio.run(asynchronously(5, 0.15)) == [1, 2, 3, 4, 5]
        with pytest.raises(ServerRefused) as refused:
            client.ask("shout", {"text": "slow", "seconds": 1.0})
        assert (refused.value.status, refused.value.is_busy) == (504, True)
        with pytest.raises(ServerRefused, match=r"504: nothing came from the server for 0\.4 s"):
            list(client.stream("count_stream", {"most": 1, "seconds": 1.0}))
    with pytest.raises(ServerRefused, match=r"504: nothing came from the server for 0\.4 s"):
        asyncio.run(asynchronously(1, 1.0))


def test_a_server_that_is_not_there_is_said():
    with Client(NOBODY, timeout=5.0) as client:
        assert not client.is_ready()
        for act in (client.ask, lambda *values: list(client.stream(*values))):
            with pytest.raises(ServerRefused) as refused:
                act("shout", {"text": "a"})
            assert refused.value.status == 503 and "connect" in refused.value.reason

    async def asynchronously():
        async with AsyncClient(NOBODY, 5.0) as client:
            assert not await client.is_ready()
            await client.ask("shout", {"text": "a"})

    with pytest.raises(ServerRefused, match=r"503: .*connect"):
        asyncio.run(asynchronously())


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_of_a_stream_is_said():
    async def asynchronously(server):
        async with AsyncClient(server.grpc, 2.0) as client:
            async for answer in client.stream("count_stream", {"most": 5, "seconds": 0.3}):
                if answer["number"] == 1:
                    server.process.kill()

    with started(toy_words()) as server:
        server.event("ready")
        with pytest.raises(ServerRefused):
            asyncio.run(asynchronously(server))
