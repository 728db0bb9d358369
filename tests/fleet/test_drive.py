"""A task through folders: resumed, retried once, refused where it would mix; workers that die are stood by."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fleet.drive import drive
from fleet.in_process import in_process
from fleet.opening import open_network
from fleet.station import Result, Station
from fleet.task import FAILED_FILE, Identity, open_task
from runtime.errors import InputError, ToolchainError
from runtime.place import open_place
from tests.fleet.pictures import IDENTITY, check_dogs, inverter, write_pictures


def silent(what, fraction):
    pass


@pytest.fixture
def places(tmp_path):
    cats, dogs = open_place(tmp_path / "cats"), open_place(tmp_path / "dogs")
    write_pictures(cats, 40)
    return cats, dogs


def run(places, tmp_path, wrap=lambda execute: execute):
    task = open_task(*places, IDENTITY)
    path = inverter(tmp_path / "network")
    with in_process(lambda: open_network(path), *places) as execute:
        return drive(task, wrap(execute), silent), task


def test_an_interrupted_run_goes_on(places, tmp_path):
    def interrupted(execute):
        def some(pairs, company):
            for count, result in enumerate(execute(pairs, company)):
                if count == 10:
                    raise KeyboardInterrupt
                yield result

        return some

    with pytest.raises(KeyboardInterrupt):
        run(places, tmp_path, interrupted)
    before = len(list(places[1].entries())) - 1
    assert 10 <= before < 40
    summary, _ = run(places, tmp_path)
    assert (summary.pictures, summary.done_before, summary.done, summary.failed) == (40, before, 40 - before, 0)
    check_dogs(places[1], range(40))
    assert run(places, tmp_path)[0].done == 0


def test_what_fails_is_retried_once_and_listed(places, tmp_path):
    cats, dogs = places
    cats.write("000003.png", b"no picture")
    asked = []

    def watched(execute):
        return lambda pairs, company: (asked.append([name for name, _ in pairs]), execute(pairs, company))[1]

    summary, _ = run(places, tmp_path, watched)
    assert (summary.done, summary.failed) == (39, 1)
    assert asked[1:] == [["000003.png"]]
    listed = json.loads(dogs.read(FAILED_FILE, 1 << 20))
    assert listed["000003.png"]["attempts"] == 2 and listed["000003.png"]["reason"].startswith("000003.png: ")
    assert run(places, tmp_path, watched)[0].failed == 1 and len(asked) == 2  # given up
    cats.write("000003.png", cats.read("000004.png", 9999))
    dogs.delete(FAILED_FILE)
    summary, _ = run(places, tmp_path)
    assert (summary.done_before, summary.done, summary.failed) == (39, 1, 0)


def test_a_picture_that_kills_its_worker_is_found(places, tmp_path):
    companies = []

    def deadly(execute):
        def dies(pairs, company):
            companies.append(company)
            size = company or len(pairs)
            for start in range(0, len(pairs), size):
                part = pairs[start : start + size]
                if all(name != "000007.png" for name, _ in part):
                    yield from execute(part, company)

        return dies

    summary, task = run(places, tmp_path, deadly)
    assert companies[0] is None and companies[-1] == 1
    assert (summary.done, summary.failed) == (39, 1)
    assert "worker died" in task.given_up["000007.png"].reason


def test_a_run_that_cannot_go_on_says_so(places, tmp_path):
    def full(execute):
        return lambda pairs, company: iter([Result("", fatal="No space left on device")])

    with pytest.raises(ToolchainError, match=r"No space left on device; what is done stays done"):
        run(places, tmp_path, full)


def test_a_failing_output_is_no_picture_s_fault(places, tmp_path):
    class Full:
        url = "full"

        def write(self, name, data):
            raise ToolchainError(f"full/{name}: No space left on device")

    path = inverter(tmp_path / "network")
    station = Station(lambda: open_network(path), places[0], Full())
    with pytest.raises(ToolchainError, match="No space"):
        list(station.work([("000001.png", "000001.png")]))
    station.close()


def test_dogs_of_two_networks_do_not_mix(places, tmp_path):
    run(places, tmp_path)
    other = Identity("other", "fp16", "0" * 64, "1" * 64)
    with pytest.raises(InputError, match=r"dogs of another network \(checkpoint, precision differ: .*inverter fp32"):
        open_task(*places, other)


def test_dogs_of_nobody_are_not_taken_for_done(places):
    places[1].write("000001.png", b"a dog of before")
    with pytest.raises(InputError, match=r"holds 000001\.png, drawn by nobody knows what"):
        open_task(*places, IDENTITY)


def test_two_cats_with_one_dog(places):
    places[0].write("000001.jpg", b"x")
    with pytest.raises(InputError, match=r"000001\.jpg and 000001\.png would both be written to 000001\.png"):
        open_task(*places, IDENTITY)


def test_a_damaged_list_of_failures(places, tmp_path):
    run(places, tmp_path)
    places[1].write(FAILED_FILE, b'{"000001.png": 3}')
    with pytest.raises(InputError, match=r"failed\.json is damaged: delete it"):
        open_task(*places, IDENTITY)


def test_an_engine_or_network_travels_by_content(tmp_path):
    from fleet.opening import Shipped

    path = inverter(tmp_path)
    runner = Shipped({path.name: lambda: np.fromfile(path, np.uint8)}, path.name)()
    with runner:
        assert runner.run(np.zeros((1, 8, 8, 3), np.uint8)).min() == 255


def test_each_gpu_takes_its_own_engine_from_the_store(tmp_path, monkeypatch):
    import fleet.opening
    from engines.remote_store import RemoteStore
    from fleet.opening import FromStore
    from runtime.gpu import Gpu
    from runtime.manifest import read_manifest
    from tests.engines.test_remote_store import filed

    store = RemoteStore(tmp_path / "store")
    engines = {cc: filed(tmp_path / "a", capability=cc) for cc in ("8.0", "9.0")}
    for engine in (*engines.values(), filed(tmp_path / "a", capability="8.6", gate="pending")):
        store.publish(engine)
    opened = []
    monkeypatch.setattr(fleet.opening, "open_network", lambda path: opened.append(read_manifest(path).key))
    opening = FromStore(store.url, read_manifest(engines["8.0"]).key)
    for cc in engines:
        monkeypatch.setattr(fleet.opening, "find_gpus", lambda cc=cc: [Gpu(0, f"GPU {cc}", cc, 1, "13.0")])
        opening()
    assert [key.compute_capability for key in opened] == ["8.0", "9.0"]
    monkeypatch.setattr(fleet.opening, "find_gpus", lambda: [Gpu(0, "GPU 8.6", "8.6", 1, "13.0")])
    with pytest.raises(InputError, match=r"has no engine of tiny-16 fp16 for GPU 8\.6: build"):
        opening()
