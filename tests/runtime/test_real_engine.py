"""The runner on TensorRT's real engine: the one that CAT2DOG_TEST_ENGINE names, with its manifest beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.engine_file import engine_manifest
from runtime.errors import Busy, EngineMismatch, ToolchainError
from runtime.gpu import find_gpus, no_gpu_reason
from runtime.manifest import manifest_path, write_manifest
from runtime.tensorrt_runner import TensorRTRunner

VARIABLE = "CAT2DOG_TEST_ENGINE"
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def engine() -> Path:
    if not find_gpus():
        pytest.skip(no_gpu_reason())
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} names no engine")
    return Path(named)


def feed_of(runner: TensorRTRunner, batch: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    feed = {}
    for spec in runner.inputs:
        most = spec.maximum or spec.shape
        shape = tuple(
            min(batch, top) if size < 0 and axis == 0 else top
            for axis, (size, top) in enumerate(zip(spec.shape, most, strict=True))
        )
        values = generator.integers(0, 256, shape) if spec.dtype == "uint8" else generator.normal(size=shape)
        feed[spec.name] = values.astype(spec.numpy_dtype)
    return feed


def batches_of(runner: TensorRTRunner) -> list[int]:
    least, most = runner.inputs[0].sizes(0)
    return sorted({least, most or least})


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("wait", ["spin", "block"])
def test_many_threads_get_what_one_gets(engine, cuda_graph, wait):
    with TensorRTRunner(engine, lanes=1, cuda_graph=False) as runner:
        feeds = [feed_of(runner, batch, seed) for batch in batches_of(runner) for seed in range(3)]
        expected = [runner.infer(feed) for feed in feeds]
    wrong: list[object] = []
    with TensorRTRunner(engine, lanes=3, cuda_graph=cuda_graph, wait=wait) as runner:

        def work(shift: int) -> None:
            for turn in range(4 * len(feeds)):
                index = (turn + shift) % len(feeds)
                try:
                    got = runner.infer(feeds[index])
                except ToolchainError as error:
                    wrong.append(error)
                    return
                wrong.extend(n for n, array in expected[index].items() if not np.array_equal(got[n], array))

        threads = [threading.Thread(target=work, args=(shift,)) for shift in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_into_given_arrays_and_what_it_takes(engine, capsys):
    with TensorRTRunner(engine) as runner:
        feed = feed_of(runner, 1, 0)
        expected = runner.infer(feed)
        outputs = {name: np.empty_like(array) for name, array in expected.items()}
        took = []
        for _ in range(200):
            began = time.perf_counter()
            runner.infer_into(feed, outputs)
            took.append((time.perf_counter() - began) * 1e6)
        for name, array in expected.items():
            np.testing.assert_array_equal(outputs[name], array)
        lane = runner._pool.take()
        replay = lane.prepare(tuple(array.shape for array in feed.values()))
        bare = []
        for _ in range(200):
            began = time.perf_counter()
            replay.start(list(feed.values()))
            lane.wait()
            bare.append((time.perf_counter() - began) * 1e6)
        runner._pool.give(lane)
    typical, least = statistics.median(took), statistics.median(bare)
    with capsys.disabled():
        print(f"\ninfer_into {typical:.0f} us, copies in and replay alone {least:.0f} us (medians of 200)", end=" ")
    size = sum(array.nbytes for array in outputs.values())
    assert typical - least < 60 + size / 2e3  # the copy out at 2 GB/s or better


def test_busy_and_closing_while_threads_run(engine):
    runner = TensorRTRunner(engine, lanes=1)
    feed = feed_of(runner, 1, 0)
    lane = runner._pool.take()
    with pytest.raises(Busy, match=r"none of 1 lanes of this runner came free within 0\.01 s"):
        runner.infer(feed, timeout=0.01)
    runner._pool.give(lane)
    ended: list[str] = []

    def work() -> None:
        try:
            while True:
                runner.infer(feed)
        except ToolchainError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    runner.close()
    runner.close()
    for thread in threads:
        thread.join(30)
    assert ended == ["this TensorRT runner is closed; make a new one"] * 3


def test_an_altered_plan_is_refused(engine, tmp_path):
    copy = tmp_path / engine.name
    shutil.copy(manifest_path(engine), manifest_path(copy))
    with open(engine, "rb") as source, open(copy, "wb") as target:
        shutil.copyfileobj(source, target)
        target.seek(engine_manifest(engine).size // 2)
        target.write(b"altered!")
    with pytest.raises(EngineMismatch, match="was altered"):
        TensorRTRunner(copy)
    with open(copy, "r+b") as target:
        target.truncate(1000)
    with pytest.raises(EngineMismatch, match="has 1000 bytes, but"):
        TensorRTRunner(copy)


def _altered(engine, copy):
    with open(copy, "r+b") as target:
        target.seek(engine_manifest(engine).size // 2)
        target.write(b"altered!")


def _truncated(engine, copy):
    os.truncate(copy, engine_manifest(engine).size // 3)


def _no_plan(engine, copy):
    """Only TensorRT can tell that this is none: its manifest fits it."""
    plan = os.urandom(1 << 20)
    copy.write_bytes(plan)
    changed = replace(engine_manifest(engine), size=len(plan), sha256=hashlib.sha256(plan).hexdigest())
    write_manifest(copy, replace(changed, engine=copy.name))


def _of_another(**facts):
    def change(engine, copy):
        manifest = engine_manifest(engine)
        write_manifest(copy, replace(manifest, engine=copy.name, key=replace(manifest.key, **facts)))

    return change


FAULTS = {
    "altered": (_altered, "was altered: its sha256 begins with"),
    "truncated": (_truncated, "were built"),
    "no plan of TensorRT's": (_no_plan, "TensorRT cannot load"),
    "of another GPU": (_of_another(gpu="NVIDIA A100", compute_capability="8.0"), "was built for NVIDIA A100"),
    "of another version": (_of_another(flavor_version="8.4.0"), "was built by tensorrt 8.4.0"),
    "without its manifest": (lambda engine, copy: manifest_path(copy).unlink(), "manifest"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_command_says_of_an_engine_that_does_not_belong_here(engine, tmp_path, fault):
    spoil, said = FAULTS[fault]
    copy, dog = tmp_path / engine.name, tmp_path / "dog.png"
    shutil.copy(engine, copy)
    shutil.copy(manifest_path(engine), manifest_path(copy))
    spoil(engine, copy)
    words = [sys.executable, "-m", "cli", "run", "--engine", str(copy), "--input-image", "images/img1.jpg"]
    child = subprocess.run([*words, "--output", str(dog)], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (child.returncode, dog.exists()) == (4, False), child.stderr
    (line,) = child.stderr.strip().splitlines()
    assert line.startswith("error: ") and said in line and "cat2dog build" in line
