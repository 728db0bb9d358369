"""Peers in turns, in real worker processes: what is measured, and that one that fails spoils nothing."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from bench.conductor import METHOD, Conductor, Entry, Plan, Task
from bench.machine import machine
from bench.pipes import Worker, WorkerFailed
from bench.results import peers_result
from bench.schema import check_result
from runtime.images import encode_image
from tests.bench.inverter import write_inverter

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)


def entry(name, spec, python=sys.executable, **options):
    return Entry(name, f"about {name}", "cpu", "fp32", python, spec, **options)


def task(expected=255 - IMAGES):
    return Task(IMAGES, expected, flops=1000, jpegs=[encode_image(image, ".jpg") for image in IMAGES])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A good peer, one that starts beside others, four that fail each in its way, and one that takes no batches."""
    folder = tmp_path_factory.mktemp("bench")
    spec = {"kind": "onnxruntime", "provider": "cpu", "onnx": str(write_inverter(folder / "a.onnx"))}
    small = write_inverter(folder / "small.onnx", side=4)
    one = write_inverter(folder / "one.onnx", batch=1)
    dying = folder / "dying"
    dying.write_text("#!/bin/sh\necho it burns >&2\nexit 3\n")
    dying.chmod(0o755)
    entries = [
        entry("good", spec),
        entry("single", spec, alone=False, most_batch=1),
        entry("dying", spec, python=str(dying)),
        entry("nowhere", spec, python="/nowhere/python"),
        entry("wrong size", {**spec, "onnx": str(small)}, alone=False),
        entry("absent", None, reason="there is none"),
        entry("one at a time", {**spec, "onnx": str(one)}, startups=1),
    ]
    saved = []
    plan = Plan(batches=(1, 4), rounds=3, turn_ms=5, startups=2, seconds=60)
    wrong = np.array(255 - IMAGES)
    wrong[0, 0, 0, 0] ^= 16
    conductor = Conductor(entries, task(wrong), plan, lambda what, fraction: None, lambda: saved.append(len(saved)))
    began = time.monotonic()
    conductor.run()
    result = peers_result("peers", machine((), "test"), SUBJECT, METHOD, conductor.peers, conductor.ceilings, True)
    return result, saved, time.monotonic() - began


SUBJECT = {
    "checkpoint": "inverter", "resolution": 8, "tokens": 1, "parameters": 1, "precision": "fp32", "flops": 1000,
    "attention_flops": 0, "images": 3,
}  # fmt: skip


def peer(measured, name):
    return next(each for each in measured[0]["peers"] if each["name"] == name)


def test_a_whole_result(measured):
    result, saved, seconds = measured
    check_result(result)
    assert len(saved) >= 5 and seconds < 60


def test_a_peer_that_works(measured):
    good = peer(measured, "good")
    assert good["status"] == "measured" and "reason" not in good
    seen = [(each["level"], each["batch"]) for each in good["latency"]]
    one_by_one = [("network", 1), ("host", 1), ("picture", 1)]
    assert seen == [*one_by_one, ("stream", 1), ("network", 4), ("host", 4), ("stream", 4)]
    for each in good["latency"]:
        least = 3 if each["level"] == "stream" else 9
        assert each["ms"]["rounds"] == 3 and each["ms"]["count"] >= least and 0 < each["ms"]["median"] < 1000
    network = good["latency"][0]
    assert network["images_per_second"] == pytest.approx(1000 / network["ms"]["median"], rel=1e-3)
    # 1000 operations a run: TFLOP/s, and percent of what the CPU reached.
    assert network["tflops"] == pytest.approx(1e-6 / network["ms"]["median"], rel=1e-2)
    (ceiling,) = measured[0]["ceilings"]
    assert ceiling["peak_tflops"] is None and network["mfu_of_tflops"] == ceiling["tflops"] > 0.001
    assert good["startup"]["runs"] == 2 and good["startup"]["alone"]
    assert list(good["startup"]["seconds"]) == ["python", "import", "load", "first run"]
    assert good["python"] == ".".join(map(str, sys.version_info[:3])) and "onnxruntime" in good["versions"]


def test_psnr_is_against_what_was_expected(measured):
    scores = peer(measured, "good")["psnr_db"]
    off = 10 * np.log10(255**2 * IMAGES[0].size / 16**2)
    assert scores == {"mean": pytest.approx(off, abs=0.01), "worst": pytest.approx(off, abs=0.01), "each": [
        pytest.approx(off, abs=0.01), None, None]}  # fmt: skip


def test_one_that_starts_beside_others(measured):
    single = peer(measured, "single")
    assert not single["startup"]["alone"] and {each["batch"] for each in single["latency"]} == {1}


def test_those_that_fail_say_why(measured):
    said = {name: peer(measured, name) for name in ("dying", "nowhere", "wrong size", "absent")}
    assert {name: each["status"] for name, each in said.items()} == {
        "dying": "failed", "nowhere": "failed", "wrong size": "failed", "absent": "absent",
    }  # fmt: skip
    assert said["dying"]["reason"] == "the worker ended with exit code 3; last it said: it burns"
    assert said["nowhere"]["reason"] == "/nowhere/python cannot be started: No such file or directory"
    assert said["wrong size"]["reason"].startswith("start-up: input 'image' has shape [1, 8, 8, 3]; expected [?,4,4,3]")
    assert said["absent"]["reason"] == "there is none"
    one = peer(measured, "one at a time")
    assert one["status"] == "partly" and {each["batch"] for each in one["latency"]} == {1}
    assert one["reason"].startswith("batch 4: ") and one["reason"].count("batch 4: ") == 1, "said once for both sweeps"


def test_an_answer_that_does_not_come():
    worker = Worker(sys.executable)
    with pytest.raises(WorkerFailed, match="no answer within 0 s") as failed:
        worker.receive(0.1)
    assert not failed.value.alive
    pid = worker._process.pid
    worker.end()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_workers_end_when_the_bench_is_interrupted(tmp_path):
    spec = {"kind": "onnxruntime", "provider": "cpu", "onnx": str(write_inverter(tmp_path / "a.onnx"))}
    seen = []

    def update(what, fraction):
        if what.startswith("batch"):
            seen.extend(seat.worker._process.pid for seat in conductor._seats)
            raise KeyboardInterrupt

    plan = Plan(batches=(1,), rounds=2, turn_ms=5, startups=1, seconds=60)
    conductor = Conductor([entry("good", spec)], task(), plan, update, lambda: None)
    with pytest.raises(KeyboardInterrupt):
        conductor.run()
    assert len(seen) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)
