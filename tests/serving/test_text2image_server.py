"""Text to image behind a real Triton: pictures, streams, refusals, who waits, what the log says, a graceful stop."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
import urllib.error
import urllib.request

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")
pytest.importorskip("diffusers", reason="diffusers is in the extra text2image: make test-serving")

import numpy as np
from PIL import Image

from serving.client import AsyncClient, Client, ServerRefused
from tests.serving.conftest import ROOT, started
from tests.zoo.text2image import tiny
from tests.zoo.text2image.tiny_parts import SIDE
from zoo.text2image.loading import open_pipeline
from zoo.text2image.painter import Painter
from zoo.text2image.request import Request

pytestmark = pytest.mark.xdist_group("text2image")
SMALL = {"prompt": "a cat", "steps": 4, "width": 32, "height": 24}


@pytest.fixture(scope="module")
def server():
    words = [sys.executable, "-m", "serving.text2image_server", "--pipeline", str(tiny.stable_diffusion())]
    words += ["--captioner", str(tiny.captioner()), "--upscaler", str(tiny.upscaler()), "--device", "cpu"]
    with started([*words, "--queue", "4", "--timeout", "20"]) as running:
        running.event("ready", 120)
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc, timeout=60.0) as made:
        yield made


@pytest.fixture(scope="module")
def painter():
    return Painter(open_pipeline(str(tiny.stable_diffusion()), "cpu"))


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)))


def post(server, query="", body=None, kind="application/json"):
    url = f"{server.url('page')}/v1/text2image{query}"
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_prompt_becomes_the_picture_that_the_pipeline_makes(server, client, painter):
    answer = client.ask("text2image", {**SMALL, "seed": 5, "guidance": 3.0}, id="first")
    expected = painter.paint(Request("a cat", steps=4, seed=5, guidance=3.0, width=32, height=24)).picture
    # Two processes may split a product over threads differently.
    assert np.abs(pixels(answer["image"]).astype(int) - expected).max() <= 2
    assert (answer["step"], answer["steps"], answer["prompt"], answer["flagged"]) == (4, 4, b"a cat", False)
    request, response = server.about("first")
    assert (request["event"], response["event"], response["status"]) == ("request", "response", 200)
    assert response["denoise_ms"] > 0 and (response["width"], response["height"], response["seed"]) == (32, 24, 5)
    events = [each["event"] for each in server.events]
    assert events.index("set-up") < events.index("warm-up") < events.index("ready")


def test_pictures_on_the_way_are_streamed_as_they_come(client):
    answers = list(client.stream("text2image_stream", {**SMALL, "steps": 6, "every": 2}))
    assert [(each["step"], each["steps"]) for each in answers] == [(2, 6), (4, 6), (6, 6)]
    assert len({bytes(each["image"]) for each in answers}) == 3
    assert client.ask("text2image", {**SMALL, "steps": 6})["image"] == answers[-1]["image"]


def test_plain_http_takes_json_and_a_picture_to_begin_with(server, client):
    status, body = post(server, body=json.dumps(SMALL).encode())
    assert status == 200 and bytes(body) == client.ask("text2image", SMALL)["image"]
    file = io.BytesIO()
    Image.new("RGB", (50, 40), "red").save(file, "PNG")
    query = "?prompt=a%20cat&steps=4&strength=0.5&width=32&height=24&upscale=true&format=webp"
    status, body = post(server, query, file.getvalue(), "image/png")
    assert status == 200 and body.startswith(b"RIFF") and pixels(body).shape == (48, 64, 3)


def test_request_json_works_as_it_is(server):
    url = f"{server.url('http')}/v2/models/text2image/infer"
    body = (ROOT / "zoo/text2image/request.json").read_bytes()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        outputs = {each["name"]: each["data"][0] for each in json.load(response)["outputs"]}
    assert outputs["status"] == 200 and outputs["step"] == 4 and outputs["prompt"] == "a cat on a mat, photo"
    assert pixels(base64.b64decode(outputs["image"])).shape == (SIDE, SIDE, 3)
    assert server.about("request-json")


def test_a_picture_may_stand_for_the_prompt(client):
    file = io.BytesIO()
    Image.new("RGB", (50, 40), "red").save(file, "PNG")
    values = {**SMALL, "prompt_image": file.getvalue()}
    assert client.ask("text2image", values)["prompt"].endswith(b", a cat")
    del values["prompt"]
    assert client.ask("text2image", values)["prompt"]


@pytest.mark.parametrize(
    ("values", "status", "says"),
    [
        ({"prompt": b"\xff"}, 400, "prompt is not UTF-8"),
        ({"prompt": "a" * 5000}, 413, "prompt has 5000 bytes"),
        ({"prompt": ""}, 400, "there is no prompt"),
        ({"width": 33}, 400, "multiples of 8"),
        ({"steps": 1000}, 400, "steps is 1000; expected 1 to 100"),
        ({"image": b"nothing"}, 400, "the image is not an image"),
    ],
)
def test_bad_requests_are_refused_over_both_doors(client, values, status, says):
    for ask in (
        lambda given: client.ask("text2image", given),
        lambda given: list(client.stream("text2image_stream", given)),
    ):
        with pytest.raises(ServerRefused) as refused:
            ask({**SMALL, **values})
        assert refused.value.status == status and says in refused.value.reason
    assert client.ask("text2image", SMALL)["steps"] == 4


def test_many_at_once_take_turns_or_are_told_that_it_is_busy(server, client):
    values = [{**SMALL, "seed": seed, "steps": 20} for seed in range(12)]

    async def one(asker, given):
        try:
            return (await asker.ask("text2image", given))["image"]
        except ServerRefused as error:
            assert error.is_busy, error
            return None

    async def all_of_them():
        async with AsyncClient(server.grpc, timeout=60.0) as asker:
            return await asyncio.gather(*(one(asker, given) for given in values))

    images = asyncio.run(all_of_them())
    answered = [(given, image) for given, image in zip(values, images, strict=True) if image is not None]
    assert 2 <= len(answered) < len(values)  # the queue takes four
    for given, image in answered[:2]:
        assert client.ask("text2image", given)["image"] == image


def test_it_stops_when_what_it_accepted_is_answered(tmp_path):
    words = [sys.executable, "-m", "serving.text2image_server", "--pipeline", str(tiny.stable_diffusion())]
    with started(words, WARMUP_MODEL="0", MODEL_NAME="overridden") as running:
        running.event("ready", 120)

        async def ask_then_stop():
            async with AsyncClient(running.grpc, timeout=60.0) as client:
                asked = asyncio.create_task(client.ask("text2image", {**SMALL, "steps": 60}, id="last"))
                while not running.about("last"):
                    await asyncio.sleep(0.01)
                loop = asyncio.get_running_loop()
                code = loop.run_in_executor(None, running.stop)
                return await asked, await code

        answer, code = asyncio.run(ask_then_stop())
        assert (answer["steps"], code) == (60, 0)


def test_a_pipeline_that_is_none_is_one_line():
    with started([sys.executable, "-m", "serving.text2image_server", "--pipeline", "nowhere"]) as running:
        assert running.process.wait(60) == 2
        running.reader.join(10)
        (line,) = [each["text"] for each in running.events if each["event"] == "line"]
        assert line.startswith("error: 'nowhere' is no folder")
