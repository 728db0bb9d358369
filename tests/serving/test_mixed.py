"""Thousands of requests, a tenth of them bad in every way, over both doors: each has its right answer or its reason."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

import aiohttp
import numpy as np

from serving.client import AsyncClient, ServerRefused
from tests.bench.inverter import write_inverter
from tests.serving.conftest import network_words, started
from tests.serving.pictures import BAD, GOOD, SIDE, dog_of, pixels

TOGETHER = 24
PATIENCE = 4
# Who goes away, and who does not come to an end with sending.
RUDE = ("cancelled", "cancelled over gRPC", "left in the middle of the body", "slow")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    networks = [write_inverter(folder / f"{side}.onnx", side) for side in (SIDE, 2 * SIDE)]
    options = ("--queue", "100", "--most-mib", "0.2", "--most-megapixels", "0.1", "--timeout", str(PATIENCE))
    with started(network_words(*networks, options=options)) as running:
        running.event("ready")
        yield running


class Asker:
    """Asks over gRPC or plain HTTP. An answer is a file, or a status and a reason."""

    def __init__(self, server, client, session):
        self.client, self.session = client, session
        self.page = ("127.0.0.1", int(server.event("ready")["page"]))
        self.url = server.url("page") + "/v1/cat2dog"

    async def over_grpc(self, values):
        try:
            return (await self.client.ask("cat2dog", values))["dog"]
        except ServerRefused as refusal:
            return refusal.status, refusal.reason

    async def over_http(self, values):
        query = {name: str(value) for name, value in values.items() if name != "image"}
        async with self.session.post(self.url, params=query, data=values.get("image")) as answer:
            body = await answer.read()
            return body if answer.status == 200 else (answer.status, json.loads(body)["reason"])

    async def rude(self, kind, number):
        """What the rude one is told, if anything."""
        if kind == "cancelled over gRPC":
            task = asyncio.create_task(self.client.ask("cat2dog", {"image": GOOD[0]}))
            await asyncio.sleep(0.002 * (number % 8))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return None
        reader, writer = await asyncio.open_connection(*self.page)
        id = f"{kind.split()[0]}-{number}"
        head = f"POST /v1/cat2dog HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\nContent-Length: {len(GOOD[0])}\r\n\r\n"
        writer.write(head.encode() + (GOOD[0] if kind == "cancelled" else GOOD[0][:100]))
        await writer.drain()
        told = (await reader.read(12)).decode() if kind == "slow" else await asyncio.sleep(0.002 * (number % 8))
        writer.close()
        return told


async def ask_all(server, count):
    """Kinds of requests as they went, and what was wrong with an answer."""
    turn, seen, faults = asyncio.Semaphore(TOGETHER), Counter(), []

    async def one(asker, number):
        way = asker.over_http if number % 3 == 0 else asker.over_grpc
        odd = number // 10 % (len(BAD) + len(RUDE))
        if number % 10 != 7:
            side = SIDE * (1 + number % 2)
            image = GOOD[number % len(GOOD)]
            answer = await way({"image": image, "resolution": side})
            right = isinstance(answer, bytes) and np.array_equal(pixels(answer), dog_of(image, side))
            seen["good"] += 1
        elif odd < len(BAD):
            values, status, reason = BAD[odd]
            answer = await way(values)
            right = isinstance(answer, tuple) and answer[0] == status and reason in answer[1]
            seen["bad"] += 1
        else:
            kind = RUDE[odd - len(BAD)]
            answer = await asker.rude(kind, number)
            right = answer == "HTTP/1.1 408" if kind == "slow" else answer is None
            seen[kind] += 1
        if not right:
            faults.append((number, answer[:200] if isinstance(answer, (bytes, str)) else answer))

    async def in_turn(asker, number):
        async with turn:
            await one(asker, number)

    limits = aiohttp.TCPConnector(limit=0)
    async with AsyncClient(server.grpc, 60.0) as client, aiohttp.ClientSession(connector=limits) as session:
        asker = Asker(server, client, session)
        await asyncio.gather(*(in_turn(asker, number) for number in range(count)))
    return seen, faults


def memory(pid):
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def holds(pid):
    """Threads and open files of a process."""
    return tuple(len(list(Path(f"/proc/{pid}/{kind}").iterdir())) for kind in ("task", "fd"))


@pytest.mark.parametrize("count", [700, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_good_bad_and_rude_requests_mixed(server, count, record_property):
    pid = server.process.pid
    asyncio.run(ask_all(server, 200))
    before, held = memory(pid), holds(pid)
    seen, faults = asyncio.run(ask_all(server, count))
    grown = (memory(pid) - before) / 2**20
    record_property("measured", f"{dict(seen)}: memory {before / 2**20:.0f} MiB, then {grown:+.1f} MiB")
    assert not faults, (len(faults), faults[:5])
    assert seen["good"] == count * 9 // 10 and set(seen) == {"good", "bad", *RUDE}
    assert grown < 40
    assert all(now <= was + 30 for now, was in zip(holds(pid), held, strict=True))
    assert not [each for each in server.events if each["event"] == "fault"]
    left = [each for each in server.events if each["event"] == "http" and str(each["id"]).startswith("left-")]
    assert left and {each["status"] for each in left} == {499}
