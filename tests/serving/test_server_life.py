"""How a server starts, stops, and starts again after it was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

from serving.client import AsyncClient, Client, ServerRefused
from serving.settings import Settings
from tests.serving.conftest import started, toy_words


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


@pytest.mark.parametrize(
    "moment",
    [
        "is ready",
        pytest.param("answers", marks=pytest.mark.slow),
        pytest.param("warms up", marks=pytest.mark.slow),
        pytest.param("starts Triton", marks=pytest.mark.slow),
        pytest.param("loads functions", marks=pytest.mark.slow),
        pytest.param("stops", marks=pytest.mark.slow),
    ],
)
def test_a_server_killed_at_any_moment_starts_again_with_no_repair(moment):
    ports = chosen_ports()
    left = shared_memory()
    with started(toy_words(), ports, TOY_WARM_SECONDS="1") as server:
        come_to(moment, server)
        server.process.kill()
        server.process.wait()
    with started(toy_words(), ports) as server:
        server.event("ready", 120)
        with Client(server.grpc) as client:
            assert client.ask("shout", {"text": "again"})["loud"] == b"AGAIN"
            assert [each["number"] for each in client.stream("count_stream", {"most": 2})] == [1, 2]
        assert server.stop() == 0
    assert not shared_memory() - left


def come_to(moment, server):
    """Wait for that moment of the server's life."""
    if moment == "warms up":
        time.sleep(1.0)
    elif moment == "starts Triton":
        server.event("warm-up")
    elif moment == "loads functions":
        server.event("warm-up")
        time.sleep(1.5)
    else:
        server.event("ready")
    if moment in ("answers", "stops"):
        asyncio.run(_leave_work(server, "stops" if moment == "stops" else ""))


async def _leave_work(server, stops):
    async with AsyncClient(server.grpc) as client:
        asks = [asyncio.create_task(client.ask("shout", {"text": "x", "seconds": 1.5})) for _ in range(6)]
        asks.append(asyncio.create_task(_numbers(client)))
        await asyncio.sleep(0.7)
        if stops:
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.4)
        for each in asks:
            each.cancel()
        await asyncio.gather(*asks, return_exceptions=True)


def chosen_ports():
    """Words for four free ports."""
    here = Settings(http=0, grpc=0, metrics=0, page=0).chosen()
    return [
        word for door in ("page", "http", "grpc", "metrics") for word in (f"--{door}-port", str(getattr(here, door)))
    ]


def shared_memory():
    """What servers of this user share with their Tritons, and whose owner is gone."""
    found = [each for each in Path("/dev/shm").glob("pytrtion*-*") if each.stat().st_uid == os.getuid()]
    owners = [each.name.removeprefix("pytrtion").split("-")[0] for each in found]
    return {each.name for each, owner in zip(found, owners, strict=True) if not Path(f"/proc/{owner}").exists()}


def test_it_is_not_ready_while_it_warms_up():
    with started(toy_words(), TOY_WARM_SECONDS="1.5") as server:
        began = time.monotonic()
        server.event("ready")
        assert time.monotonic() - began > 1.5
        assert server.event("warm-up")["seconds"] >= 1.5
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(60) == 0
