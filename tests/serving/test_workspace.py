"""The server's folder: its own, removed after it, and after one that was killed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runtime.errors import InputError
from serving import workspace as module
from serving.workspace import workspace


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "t"))
    monkeypatch.setattr(module, "_LONGEST", 1000)
    monkeypatch.setattr(module, "_SHARED_MEMORY", tmp_path / "shm")
    return tmp_path


def dead_process():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_it_is_gone_afterwards():
    with workspace() as (path, was_killed):
        path.mkdir()
        (path / "x").write_text("x")
        assert not was_killed and path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()


def test_what_a_killed_server_left_is_removed_and_said(places):
    with workspace() as (path, _):
        pass
    left = path.parent / f".tmp-{dead_process()}-abcd"
    left.mkdir()
    regions = [places / "shm" / f"pytrtion{pid}-a" for pid in (dead_process(), os.getpid())]
    for region in [*regions, places / "shm/other"]:
        region.write_text("x")
    with workspace() as (_, was_killed):
        assert was_killed
    assert not left.exists()
    assert sorted(each.name for each in (places / "shm").iterdir()) == ["other", regions[1].name]


def test_a_folder_that_others_may_write_to_is_refused(places):
    parent = places / "t" / f"cat2dog-serving-{os.getuid()}"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(InputError, match="is not this user's own folder"), workspace():
        pass
    parent.rmdir()
    parent.symlink_to(places / "shm")
    with pytest.raises(InputError, match="is not this user's own folder"), workspace():
        pass
