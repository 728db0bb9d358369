"""Pictures through the whole server: `cat2dog serve` started as a user does, clients, and load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

import numpy as np

from runtime.images import read_image
from serving.client import AsyncClient, Client, ServerRefused
from serving.loops import percentiles
from tests.bench.inverter import write_inverter
from tests.serving.conftest import ROOT, network_words, started
from tests.serving.pictures import GOOD, SIDE, dog_of, pixels

CORE = ROOT / ".venv" / "bin" / "cat2dog"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    networks = [write_inverter(folder / f"{side}.onnx", side) for side in (SIDE, 2 * SIDE)]
    options = ("--queue", "100", "--most-mib", "0.2", "--most-megapixels", "0.1", "--tensors")
    with started(network_words(*networks, options=options)) as running:
        running.event("ready")
        yield running


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


def pictures(count, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_pixels_in_and_out(server):
    with Client(server.grpc) as client:
        for side in (SIDE, 2 * SIDE):
            cats = pictures(3, side)
            assert np.array_equal(client.run(f"cat2dog_{side}", cats, id=f"pixels-{side}"), 255 - cats)
        with pytest.raises(ServerRefused, match="400"):
            client.run(f"cat2dog_{SIDE}", pictures(9))  # more than a batch
        with pytest.raises(ServerRefused, match="400"):
            client.run(f"cat2dog_{SIDE}", pictures(1, SIDE + 1))
    request, response = server.about(f"pixels-{SIDE}")
    assert request["fields"] == {"image": "3 pictures"}
    assert (response["status"], response["pictures"], response["function"]) == (200, 3, f"cat2dog_{SIDE}")
    assert {"queue_ms", "compute_ms", "total_ms"} <= set(response)
    metrics = urllib.request.urlopen(server.url("page") + "/metrics").read().decode()
    assert f'cat2dog_requests_total{{function="cat2dog_{SIDE}",status="200"}}' in metrics


def test_pixels_of_many_clients_are_not_mixed_up(server):
    async def all_of_them():
        async with AsyncClient(server.grpc, 30.0) as client:
            sent = [pictures(1 + seed % 4, seed=seed) for seed in range(40)]
            got = await asyncio.gather(*(client.run(f"cat2dog_{SIDE}", each) for each in sent))
            return zip(sent, got, strict=True)

    assert all(np.array_equal(dog, 255 - cat) for cat, dog in asyncio.run(all_of_them()))
    responses = [each for each in list(server.events) if each["event"] == "response" and "pictures" in each]
    assert max(int(each["batch"]) for each in responses) > 4  # Triton brought some together


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


def test_load_of_pixels(server):
    words = ["--url", server.grpc, "--pixels", str(SIDE), "--batch", "4", "--clients", "2", "--seconds", "0.5"]
    done = subprocess.run([sys.executable, "-m", "serving.load", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["rounds"]
    assert only["answered"] > 5 and only["wrong"] == only["refused"] == 0
    assert only["pictures_per_second"] == pytest.approx(4 * only["answered_per_second"], rel=0.01)


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
