"""Pictures through the whole server: `cat2dog serve` started as a user does, good and bad requests mixed, and load."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

import numpy as np
from PIL import Image

from runtime.images import read_image
from serving.client import AsyncClient, Client, ServerRefused
from serving.load import percentiles
from tests.bench.inverter import write_inverter
from tests.serving.conftest import ROOT, network_words, started

CORE = ROOT / ".venv" / "bin" / "cat2dog"
SIDE = 32


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    networks = [write_inverter(folder / f"{side}.onnx", side) for side in (SIDE, 2 * SIDE)]
    options = ("--queue", "100", "--most-mib", "0.2", "--most-megapixels", "0.1")
    with started(network_words(*networks, options=options)) as running:
        running.event("ready")
        yield running


def picture(seed, size=(60, 50), kind="JPEG"):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def dog_of(file, side=SIDE):
    return 255 - read_image(file, side)


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)))


GOOD = [picture(seed, kind=kind) for seed in range(6) for kind in ("JPEG", "PNG")]
BAD = [
    ({"image": GOOD[0][:400]}, 400, "damaged or truncated"),
    ({"image": b"text"}, 400, "is not an image"),
    ({"image": b""}, 400, "is empty"),
    ({"image": picture(1, (400, 300), "PNG")[:5000]}, 400, "120"),
    ({"image": GOOD[0] + b"\0" * 300_000}, 413, "at most 209715 are taken"),
    ({"image": GOOD[0], "resolution": 7}, 400, "resolution 7 is not served; expected one of 32, 64"),
    ({"image": GOOD[0], "format": "tiff"}, 400, "expected one of png, jpeg, webp"),
    ({"image": GOOD[0], "quality": 101, "format": "jpeg"}, 400, "quality is 101; expected 1 to 100"),
    ({"image": GOOD[0], "colour": "red"}, 400, "colour"),
    ({"resolution": 32}, 400, "image"),
]
BAD[3] = ({"image": picture(1, (400, 300), "JPEG")}, 400, "400 x 300 pixels, more than the 0.1 million allowed")


async def ask_all(url, asks, together=24):
    turn = asyncio.Semaphore(together)

    async with AsyncClient(url, timeout=60.0) as client:

        async def one(values):
            async with turn:
                try:
                    return await client.ask("cat2dog", values)
                except ServerRefused as error:
                    return error

        return await asyncio.gather(*map(one, asks))


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_good_and_bad_requests_mixed(server, count):
    asks, expected = [], []
    for number in range(count):
        if number % 10 == 7:
            values, status, reason = BAD[number // 10 % len(BAD)]
            expected.append((status, reason))
        else:
            side = SIDE * (1 + number % 2)
            values = {"image": GOOD[number % len(GOOD)], "resolution": side}
            expected.append(dog_of(values["image"], side))
        asks.append(values)
    before = _memory(server.process.pid)
    answers = asyncio.run(ask_all(server.grpc, asks))
    for answer, wanted in zip(answers, expected, strict=True):
        if isinstance(wanted, tuple):
            assert isinstance(answer, ServerRefused), wanted
            assert answer.status == wanted[0] and wanted[1] in answer.reason, (answer, wanted)
        else:
            assert not isinstance(answer, ServerRefused), answer
            assert np.array_equal(pixels(answer["dog"]), wanted)
    assert _memory(server.process.pid) - before < 100 << 20


def _memory(pid):
    """Resident bytes of the server's process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_plain_http(server):
    url = f"{server.url('page')}/v1/cat2dog"
    with urllib.request.urlopen(urllib.request.Request(url, GOOD[1]), timeout=30) as answer:
        assert answer.headers["Content-Type"] == "image/png"
        assert np.array_equal(pixels(answer.read()), dog_of(GOOD[1]))
    with urllib.request.urlopen(urllib.request.Request(f"{url}?format=webp&resolution=64", GOOD[1])) as answer:
        assert answer.headers["Content-Type"] == "image/webp"
        assert np.array_equal(pixels(answer.read()), dog_of(GOOD[1], 64))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, GOOD[1][:300]))
    assert refused.value.code == 400 and "damaged" in json.load(refused.value)["reason"]


def test_the_request_file_works_with_tritons_http(server):
    request = urllib.request.Request(
        f"{server.url('http')}/v2/models/cat2dog/infer", (ROOT / "serving/request.json").read_bytes()
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        outputs = {each["name"]: each["data"][0] for each in json.load(answer)["outputs"]}
    assert (outputs["status"], outputs["reason"]) == (200, "")
    import base64

    assert pixels(base64.b64decode(outputs["dog"])).shape == (SIDE, SIDE, 3)


def test_the_command_line_client(server, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(GOOD[0])
    words = [sys.executable, "-m", "serving.client", "--url", server.grpc, str(tmp_path / "cat.jpg")]
    done = subprocess.run([*words, str(tmp_path / "dog.png")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(pixels((tmp_path / "dog.png").read_bytes()), dog_of(GOOD[0]))
    done = subprocess.run([*words, "x.png", "--set", "resolution=5"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "error: the server refused, 400: resolution 5" in done.stderr


def test_the_example_client_stands_alone(server, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(GOOD[0])
    words = [sys.executable, str(ROOT / "serving/example_client.py"), server.url("page"), "cat.jpg", "dog.png"]
    done = subprocess.run([words[0], "-I", *words[1:]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(pixels((tmp_path / "dog.png").read_bytes()), dog_of(GOOD[0]))


def test_load(server, tmp_path):
    """Two closed loops and an open one beyond what is answered, short."""
    (tmp_path / "cat.jpg").write_bytes(GOOD[0])
    words = ["--url", server.grpc, "--image", str(tmp_path / "cat.jpg"), "--seconds", "1"]
    words += ["--clients", "1", "16", "--rates", "20"]
    done = subprocess.run([sys.executable, "-m", "serving.load", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, many, rate = json.loads(done.stdout)["rounds"]
    assert one["answered"] > 5 and many["answered"] > 5 and rate["answered"] > 5
    assert one["refused"] == many["refused"] == one["wrong"] == many["wrong"] == 0
    assert one["answer_ms"]["p50"] <= one["answer_ms"]["p95"] <= one["answer_ms"]["max"]
    assert rate["offered_per_second"] == pytest.approx(20, rel=0.2)


def test_percentiles():
    assert percentiles([]) is None
    assert percentiles([each / 1000 for each in range(1, 101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def test_the_command_serves_a_checkpoint():
    if not CORE.exists():
        pytest.skip(f"{CORE} is not there: make test-serving makes it")
    words = [str(CORE), "serve", "--model", "models/tiny-128", "--most-batch", "2"]
    with started(words, CAT2DOG_PYTHON_SERVING=sys.executable) as server:
        network = server.event("set-up", 200)["network"]
        server.event("ready", 200)
        with Client(server.grpc) as client:
            file = (ROOT / "images/img1.jpg").read_bytes()
            dog = pixels(client.ask("cat2dog", {"image": file})["dog"])
        from runtime.metrics import psnr
        from runtime.onnxruntime_runner import OnnxRuntimeRunner
        from runtime.runner import ImageRunner

        with ImageRunner(OnnxRuntimeRunner(ROOT / str(network))) as runner:
            (own,) = runner.run(read_image(file, 128)[None])
        assert psnr(dog, own) > 50
        assert server.stop() == 0
