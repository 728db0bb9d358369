"""The shared engine store in a folder: what is fetched is what was built, one builds while others wait, and garbage."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from engines.lease import Lease
from engines.remote_store import RemoteStore, lease_name, manifest_name, plan_name
from engines.shared_build import obtain
from engines.store import engine_path
from runtime.errors import EngineMismatch, ToolchainError
from runtime.manifest import read_manifest, write_manifest
from tests.serving.plans import write_plan


@pytest.fixture
def store(tmp_path):
    return RemoteStore(tmp_path / "store")


def filed(root: Path, **plan: object) -> Path:
    """An engine where `engines.store` files it."""
    from dataclasses import replace

    made = write_plan(root / "made", **plan)
    manifest = read_manifest(made)
    path = engine_path(root, manifest.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(made, path)
    write_manifest(path, replace(manifest, engine=path.name))
    return path


def test_what_is_fetched_is_what_was_published(store, tmp_path):
    engine = filed(tmp_path / "a")
    key = read_manifest(engine).key
    assert store.fetch(key, tmp_path / "b") is None
    store.publish(engine)
    fetched = store.fetch(key, tmp_path / "b")
    assert fetched == engine_path(tmp_path / "b", key)
    assert fetched.read_bytes() == engine.read_bytes()
    assert read_manifest(fetched) == read_manifest(engine)


@pytest.mark.parametrize("harm", ["altered", "shorter", "missing"])
def test_a_plan_that_is_not_what_was_built_is_not_used(store, tmp_path, harm):
    engine = filed(tmp_path / "a")
    manifest = read_manifest(engine)
    store.publish(engine)
    plan = Path(store.url) / plan_name(manifest.sha256)
    content = plan.read_bytes()
    plan.unlink()
    if harm != "missing":
        plan.write_bytes(b"x" + content[1:] if harm == "altered" else content[:-1])
    said = {"altered": "was altered", "shorter": "bytes, but", "missing": "is missing"}[harm]
    with pytest.raises(EngineMismatch, match=said):
        store.fetch(manifest.key, tmp_path / "b")
    assert [path for path in (tmp_path / "b").rglob("*") if path.is_file() and not path.name.endswith(".lock")] == []
    # Who needs it builds it anew, and what the store has is sound again.
    told = []
    rebuilt, fresh = obtain(
        store, manifest.key, tmp_path / "c", lambda: filed(tmp_path / "c"), lambda what, _: told.append(what)
    )
    assert fresh and rebuilt and any(said in what for what in told)
    assert store.fetch(manifest.key, tmp_path / "d").read_bytes() == content


def test_a_damaged_manifest_is_refused_and_stops_collecting(store, tmp_path):
    engine = filed(tmp_path / "a")
    key = read_manifest(engine).key
    store.publish(engine)
    name = Path(store.url) / manifest_name(key)
    name.write_text(name.read_text().replace("tiny-16", "tiny-17"))
    with pytest.raises(EngineMismatch, match="is damaged"):
        store.fetch(key, tmp_path / "b")
    with pytest.raises(EngineMismatch, match="is damaged"):
        store.collect(grace_seconds=-1)
    assert len(list((Path(store.url) / "plans").iterdir())) == 1


def test_a_folder_for_two_gpus_holds_both(store, tmp_path):
    for capability in ("8.0", "9.0"):
        store.publish(filed(tmp_path / "a", capability=capability))
    assert {manifest.key.compute_capability for manifest in store.manifests()} == {"8.0", "9.0"}


def test_garbage_is_what_no_manifest_names(store, tmp_path):
    kept, dropped = filed(tmp_path / "a"), filed(tmp_path / "a", capability="8.0")
    for engine in (kept, dropped):
        store.publish(engine)
    assert store.collect(grace_seconds=-1) == []
    assert store.drop(lambda manifest: manifest.key.compute_capability == "8.0")
    assert store.collect() == []  # it is young: its manifest may be on its way
    sha256 = read_manifest(dropped).sha256
    assert store.collect(grace_seconds=-1) == [plan_name(sha256)]
    assert store.fetch(read_manifest(kept).key, tmp_path / "b")


def test_of_many_that_ask_one_builds(store, tmp_path):
    key = read_manifest(filed(tmp_path / "plan")).key
    built, got = [], []

    def machine(number: int) -> None:
        root = tmp_path / f"machine{number}"

        def build() -> Path:
            built.append(number)
            time.sleep(0.3)
            return filed(root)

        got.append(obtain(store, key, root, build, poll_seconds=0.02))

    threads = [threading.Thread(target=machine, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and len(got) == 12
    assert [fresh for _, fresh in got].count(True) == 1
    assert all(path.read_bytes() == got[0][0].read_bytes() for path, _ in got)


def test_a_builder_that_falls_silent_is_succeeded(store, tmp_path):
    key = read_manifest(filed(tmp_path / "plan")).key
    dead = Lease(store.place, lease_name(key), "dead", 60)
    dead.look()
    assert dead.take()  # and never renewed
    root = tmp_path / "b"
    began = time.monotonic()
    path, fresh = obtain(store, key, root, lambda: filed(root), lease_seconds=0.4, poll_seconds=0.02)
    assert fresh and path and time.monotonic() - began >= 0.4


def test_a_builder_that_lives_is_waited_for_longer_than_a_lease(store):
    holder = Lease(store.place, "leases/x", "slow", 0.4)
    waiter = Lease(store.place, "leases/x", "waiter", 0.4)
    holder.look()
    assert holder.take()
    with holder:
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            waiter.look()
            assert not waiter.take()
            time.sleep(0.02)
    waiter.look()
    assert waiter.take()


def test_without_waiting_it_says_that_another_builds(store, tmp_path):
    key = read_manifest(filed(tmp_path / "plan")).key
    other = Lease(store.place, lease_name(key), "other", 60)
    other.look()
    other.take()
    assert obtain(store, key, tmp_path / "b", pytest.fail, wait=False) == (None, False)


def test_what_fails_for_the_builder_fails_for_who_waits(store, tmp_path):
    key = read_manifest(filed(tmp_path / "plan")).key
    holder = Lease(store.place, lease_name(key), "builder", 60)
    holder.look()
    holder.take()
    holder.__enter__()
    failed = []

    def wait() -> None:
        try:
            obtain(store, key, tmp_path / "b", pytest.fail, poll_seconds=0.02)
        except ToolchainError as error:
            failed.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    holder.__exit__(ToolchainError, ToolchainError("out of memory"), None)
    waiter.join(5)
    assert failed == ["builder, which was waited for, failed: out of memory"]
