"""Places, the engine store and runs on an S3 server over HTTP."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="the package 'moto' is not installed: make test-fleet")
pytest.importorskip("s3fs", reason="the package 's3fs' is not installed: make test-fleet")

from engines.remote_store import RemoteStore, plan_name
from engines.shared_build import obtain
from fleet.drive import drive
from fleet.in_process import in_process
from fleet.opening import open_network
from fleet.task import open_task
from runtime.errors import EngineMismatch, InputError, ToolchainError
from runtime.manifest import read_manifest
from runtime.place import open_place
from tests.engines.test_remote_store import filed
from tests.fleet.pictures import IDENTITY, check_dogs, inverter, write_pictures
from tests.fleet.s3 import s3_server


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(endpoint, monkeypatch, request):
    import s3fs

    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{abs(hash(request.node.name)):x}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


def test_a_place(bucket, tmp_path):
    place = open_place(f"{bucket}/place")
    assert list(place.entries()) == []
    place.write("a/b.txt", b"hello")
    place.write("c.txt", b"four")
    assert sorted(each.name for each in place.entries()) == ["a/b.txt", "c.txt"]
    assert [each.name for each in place.entries(deep=False)] == ["c.txt"]
    assert place.read("a/b.txt", 5) == b"hello" and place.entry("c.txt").size == 4
    assert abs(place.entry("c.txt").modified - time.time()) < 100
    with pytest.raises(InputError, match="larger than the 4 bytes"):
        place.read("a/b.txt", 4)
    with pytest.raises(FileNotFoundError):
        place.read("no.txt", 4)
    with pytest.raises(FileNotFoundError):
        place.entry("no.txt")
    place.delete("c.txt")
    place.delete("c.txt")
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 50_000)
    place.upload(large, "large")
    place.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


def test_of_many_that_create_one_does(bucket):
    place = open_place(f"{bucket}/x")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: place.create("lease", str(number).encode()), range(8)))
    assert made.count(True) == 1
    assert place.read("lease", 9) == str(made.index(True)).encode()


def test_a_store_that_cannot_be_reached_is_one_line(bucket, monkeypatch):
    import s3fs

    with pytest.raises(ToolchainError, match=r"s3://no-such-bucket-here/a/b\.txt: "):
        open_place("s3://no-such-bucket-here/a").write("b.txt", b"")
    s3fs.S3FileSystem.clear_instance_cache()


def test_engines_are_built_once_and_verified(bucket, tmp_path):
    store = RemoteStore(f"{bucket}/engines")
    made = filed(tmp_path / "plan")
    key, manifest = read_manifest(made).key, read_manifest(made)
    built, got = [], []

    def machine(number: int) -> None:
        root = tmp_path / f"machine{number}"

        def build() -> Path:
            built.append(number)
            time.sleep(0.5)
            return filed(root)

        got.append(obtain(RemoteStore(f"{bucket}/engines"), key, root, build, poll_seconds=0.1))

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and len(got) == 6
    assert all(path.read_bytes() == made.read_bytes() for path, _ in got)
    assert store.collect(grace_seconds=-10) == []
    store.place.write(plan_name(manifest.sha256), b"x" * manifest.size)
    with pytest.raises(EngineMismatch, match="was altered"):
        store.fetch(key, tmp_path / "z")
    assert store.drop(lambda manifest: True) and store.collect(grace_seconds=-10) == [plan_name(manifest.sha256)]


def test_a_run_from_prefix_to_prefix_goes_on(bucket, tmp_path):
    cats, dogs = open_place(f"{bucket}/cats"), open_place(f"{bucket}/dogs")
    write_pictures(cats, 30)
    path = inverter(tmp_path)

    def run():
        task = open_task(cats, dogs, IDENTITY)
        with in_process(lambda: open_network(path), cats, dogs) as execute:
            return drive(task, execute, lambda what, fraction: None)

    assert run().done == 30
    dogs.delete("000011.png")
    assert (run().done, run().done) == (1, 0)
    check_dogs(dogs, range(30))


def test_ray_from_prefix_to_prefix(bucket, tmp_path):
    pytest.importorskip("ray", reason="the package 'ray' is not installed: make test-fleet")
    from tests.fleet.test_on_ray import run

    cats, dogs = open_place(f"{bucket}/cats"), open_place(f"{bucket}/dogs")
    write_pictures(cats, 100)
    summary, _ = run(cats, dogs, tmp_path, workers=2)
    assert summary.done == 100
    check_dogs(dogs, range(100))
