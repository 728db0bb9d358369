"""Files written whole or not at all, and what killed processes leave."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runtime.files import atomic_path, exclusive, remove_leftovers, sha256_file, sha256_text, write_bytes, write_text


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    target = tmp_path / "plan"
    write_text(target, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_written_is_shared_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "plan", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "plan").stat().st_mode & 0o777 == 0o640


def test_writing_leaves_the_umask_of_the_process_alone(tmp_path, monkeypatch):
    """Threads that read it by changing it would leave it at 0 for each other."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    write_bytes(tmp_path / "plan", b"x")


def test_hash_of_a_file_is_that_of_its_text(tmp_path):
    write_text(tmp_path / "a", "dög" * 3_000_000)
    assert sha256_file(tmp_path / "a") == sha256_text("dög" * 3_000_000)


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".tmp-{dead.pid}-a.engine").write_text("x")
    (tmp_path / f".tmp-{dead.pid}-b").mkdir()
    (tmp_path / f".tmp-{dead.pid}-b" / "c").write_text("x")
    mine = tmp_path / f".tmp-{os.getpid()}-d.engine"
    mine.write_text("x")
    (tmp_path / "result.engine").write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [mine.name, "result.engine"]


def test_a_lock_is_freed_when_its_holder_is_killed(tmp_path):
    program = (
        "import sys, time; from runtime.files import exclusive\n"
        "with exclusive(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    waits = []

    def on_wait(lock):
        waits.append(lock.name)
        holder.kill()

    with exclusive(tmp_path / "x", on_wait):
        assert waits == [".x.lock"]
    holder.wait()
