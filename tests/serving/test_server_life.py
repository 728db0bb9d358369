"""How a server starts, stops, and starts again after it was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

from serving.client import AsyncClient, Client, ServerRefused
from tests.serving.conftest import ROOT, started, toy_words


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_across_a_stop(number):
    with started(toy_words("--queue", "64", "--most-batch", "1")) as server:

        async def one(client, text):
            return await client.ask("shout", {"text": text, "seconds": 0.4})

        async def all_of_them():
            async with AsyncClient(server.grpc) as client:
                await client.ask("shout", {"text": "connected"})
                asked = [asyncio.create_task(one(client, f"t{each}")) for each in range(13)]
                stream = asyncio.create_task(_numbers(client))
                await asyncio.sleep(0.6)
                server.process.send_signal(number)
                await asyncio.sleep(0.3)
                late = await asyncio.gather(one(client, "late"), return_exceptions=True)
                return await asyncio.gather(*asked), await stream, late

        answers, numbers, (late,) = asyncio.run(all_of_them())
        assert [each["loud"] for each in answers] == [f"T{each}".encode() for each in range(13)]
        assert numbers == [1, 2, 3, 4, 5]
        assert isinstance(late, ServerRefused)
        assert server.process.wait(60) == 0
        assert server.event("stopping")["why"] == number.name
        assert server.event("stopped")


async def _numbers(client):
    return [each["number"] async for each in client.stream("count_stream", {"most": 5, "seconds": 0.3})]


def test_a_killed_server_starts_again_with_no_repair():
    with started(toy_words()) as server:
        ready = server.event("ready")
        server.process.kill()
        server.process.wait()
    ports = [word for door in ("page", "http", "grpc", "metrics") for word in (f"--{door}-port", str(ready[door]))]
    words = [sys.executable, "-m", "tests.serving.toy_server", *ports]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in process.stderr:
            if '"ready"' in line:
                break
        with Client(f"127.0.0.1:{ready['grpc']}") as client:
            assert client.ask("shout", {"text": "again"})["loud"] == b"AGAIN"
        # The log must go on being read: a full pipe would hold up the end.
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_it_is_not_ready_while_it_warms_up():
    with started(toy_words(), TOY_WARM_SECONDS="1.5") as server:
        began = time.monotonic()
        server.event("ready")
        assert time.monotonic() - began > 1.5
        assert server.event("warm-up")["seconds"] >= 1.5
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(60) == 0
