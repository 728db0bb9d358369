"""Ray Data workers on this machine, killed at random: no picture is lost, and none is there twice."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the package 'ray' is not installed: make test-fleet")

from fleet.drive import drive
from fleet.on_ray import RayPool
from fleet.task import RUN_FILE, open_task
from runtime.errors import InputError, ToolchainError
from runtime.place import open_place
from tests.fleet.pictures import IDENTITY, check_dogs, inverter, write_pictures


class Killer:
    """Kills one of this process's Ray actors now and then."""

    def __init__(self, seconds: float):
        self.killed = 0
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._kill, daemon=True)

    def _kill(self) -> None:
        chance = random.Random(7)
        while not self._stop.wait(chance.uniform(0.5, 1.5) * self._seconds):
            if actors := our_actors():
                os.kill(chance.choice(actors), signal.SIGKILL)
                self.killed += 1

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


def our_actors() -> list[int]:
    """Processes of Ray Data actors whose ancestor is this process."""
    parents, actors = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(folder.name)] = int(words[1])
        if title.startswith(b"ray::") and b"MapWorker" in title:
            actors.append(int(folder.name))

    def ours(pid: int) -> bool:
        while pid > 1:
            if pid == os.getpid():
                return True
            pid = parents.get(pid, 0)
        return False

    return [pid for pid in actors if ours(pid)]


def run(cats, dogs, tmp_path, workers=3):
    task = open_task(cats, dogs, IDENTITY)
    with RayPool("local", workers, gpu=False) as pool:
        opening = pool.ship(inverter(tmp_path / "network"), "cpu", 1)
        return drive(task, pool.executor(opening, cats, dogs), lambda what, fraction: None), task


@pytest.mark.parametrize(
    ("count", "every"), [(1500, 1.5), pytest.param(10_000, 3.0, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_workers_killed_at_random(tmp_path, count, every):
    cats, dogs = open_place(tmp_path / "cats"), open_place(tmp_path / "dogs")
    write_pictures(cats, count)
    began = time.monotonic()
    with Killer(every) as killer:
        summary, task = run(cats, dogs, tmp_path)
    print(f"{count} pictures, {killer.killed} workers killed, {summary}, {time.monotonic() - began:.0f} s")
    assert killer.killed >= 2
    assert not task.failures
    assert (summary.done, summary.failed) == (count, 0)
    check_dogs(dogs, range(count))


def test_what_is_done_is_not_done_again_and_a_fault_is_told(tmp_path):
    cats, dogs = open_place(tmp_path / "cats"), open_place(tmp_path / "dogs")
    write_pictures(cats, 100)
    dogs.write(RUN_FILE, json.dumps(vars(IDENTITY)).encode())
    for number in range(60):
        dogs.write(f"{number:06d}.png", b"drawn before")
    cats.write("000099.png", b"no picture")
    summary, task = run(cats, dogs, tmp_path, workers=2)
    assert (summary.done_before, summary.done, summary.failed) == (60, 39, 1)
    assert dogs.read("000059.png", 99) == b"drawn before"
    assert task.given_up["000099.png"].attempts == 2
    assert "000099.png" in task.given_up["000099.png"].reason


class Refusing:
    """An engine of another machine, say."""

    def __call__(self):
        raise InputError("this engine belongs elsewhere")


def test_a_network_that_cannot_be_opened_ends_the_run(tmp_path):
    cats, dogs = open_place(tmp_path / "cats"), open_place(tmp_path / "dogs")
    write_pictures(cats, 10)
    task = open_task(cats, dogs, IDENTITY)
    with RayPool("local", 1, gpu=False) as pool:
        with pytest.raises(ToolchainError, match=r"this engine belongs elsewhere") as error:
            drive(task, pool.executor(Refusing(), cats, dogs), lambda what, fraction: None)
    assert "\n" not in str(error.value)


def test_no_gpu_and_no_cluster_are_one_line():
    with pytest.raises(ToolchainError, match="the Ray cluster at 'local' has no GPU"):
        RayPool("local", None, gpu=True)
    with pytest.raises(ToolchainError, match=r"there is no Ray cluster at '127\.0\.0\.1:1': "):
        RayPool("127.0.0.1:1", None, gpu=False)
