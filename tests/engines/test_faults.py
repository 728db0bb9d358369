"""Faults while an engine is built: whatever happens, it is one line, nothing is filed and nothing goes on running."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engines import build as room
from engines.build import build
from engines.lowering import lower
from engines.process import run_child
from runtime import files
from runtime.errors import InputError, ToolchainError
from tests.engines.test_build import filed, request_of

ROOT = Path(__file__).resolve().parents[2]


def child_module(tmp_path, monkeypatch, body: str) -> str:
    """A module that stands in for `engines.child`; `tmp_path/pid` tells the process it ran in."""
    (tmp_path / "stand_in.py").write_text(
        "import json, os, sys, time, signal\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "request = json.loads(sys.stdin.read())\n"
        "def say(**event): print(json.dumps(event), flush=True)\n" + body
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "stand_in"


def run(module, request=None, progress=lambda phase, fraction: None):
    return run_child(sys.executable, module, request or {}, progress)


def ended(pid: int) -> bool:
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.02)
    return False


def test_progress_and_the_answer_come_through(tmp_path, monkeypatch):
    body = (
        "say(event='progress', phase='a', step=1, steps=4)\nsay(event='progress', phase='b', step=0, steps=0)\n"
        "say(event='done', got=request)"
    )
    seen = []
    answer = run(child_module(tmp_path, monkeypatch, body), {"x": 1}, lambda *event: seen.append(event))
    assert answer["got"] == {"x": 1, "parent": os.getpid()}
    assert seen == [("a", 0.25), ("b", None)]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("say(event='failed', text='no such layer', exit_code=1)", ToolchainError, r"^no such layer$"),
        ("say(event='failed', text='no BF16', exit_code=2)", InputError, r"^no BF16$"),
        (
            "print('out of luck', file=sys.stderr)\nos.kill(os.getpid(), signal.SIGKILL)",
            ToolchainError,
            r"^stand_in was ended by SIGKILL \(out of memory\?\); nothing was filed; last it said: out of luck$",
        ),
        ("os.abort()", ToolchainError, r"^stand_in was ended by SIGABRT; nothing was filed"),
        (
            "sys.exit(7)",
            ToolchainError,
            r"^stand_in ended with exit code 7 and no answer; nothing was filed$",
        ),
        ("raise OverflowError('too far')", ToolchainError, r"exit code 1 .*last it said: OverflowError: too far$"),
    ],
)
def test_how_a_child_may_end(body, kind, message, tmp_path, monkeypatch):
    with pytest.raises(ToolchainError, match=message) as caught:
        run(child_module(tmp_path, monkeypatch, body))
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_a_python_that_is_not_there_is_named():
    with pytest.raises(ToolchainError, match=r"^cannot start /nowhere/python: No such file or directory$"):
        run_child("/nowhere/python", "m", {}, lambda *event: None)


def test_an_interrupt_ends_the_child(tmp_path, monkeypatch):
    def interrupt(phase, fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            child_module(tmp_path, monkeypatch, "say(event='progress', phase='a', step=0, steps=0)\ntime.sleep(60)"),
            {},
            interrupt,
        )
    assert ended(int((tmp_path / "pid").read_text()))


def test_a_child_does_not_outlive_its_parent(tmp_path):
    """Killed outright, the parent can end nothing; the kernel ends the builder."""
    (tmp_path / "parent.py").write_text(
        "import json, os, subprocess, sys\n"
        "code = 'import sys,time,os; from engines.answer import die_with_parent; die_with_parent(int(sys.argv[1]));"
        " print(os.getpid(), flush=True); time.sleep(60)'\n"
        "subprocess.run([sys.executable, '-c', code, str(os.getpid())])\n"
    )
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    grandchild = int(parent.stdout.readline())
    assert Path(f"/proc/{grandchild}").exists()
    parent.kill()
    parent.wait()
    assert ended(grandchild)


def test_a_child_whose_parent_is_gone_already_ends():
    program = "from engines.answer import die_with_parent; die_with_parent(1 << 22); print('went on')"
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 1 and child.stdout == ""


def _killed(monkeypatch, signum):
    """Sends `signum` to the real build process as soon as it says that it builds."""
    real, killed = subprocess.Popen, []

    class Watched(real):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            if "engines.child" in arguments[0]:
                killed.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)

    def progress(phase, fraction):
        if phase == "building":
            killed[0].send_signal(signum)

    return progress, killed


def test_a_builder_that_is_killed_files_nothing(rtx, validation, tmp_path, monkeypatch):
    progress, _ = _killed(monkeypatch, signal.SIGKILL)
    message = r"^engines\.child was ended by SIGKILL \(out of memory\?\); nothing was filed"
    with pytest.raises(ToolchainError, match=message) as caught:
        build(request_of(tmp_path, validation), progress)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    assert filed(tmp_path / "engines") == []


def test_ctrl_c_in_a_build_files_nothing_and_ends_the_builder(rtx, validation, tmp_path, monkeypatch):
    _, children = _killed(monkeypatch, 0)

    def interrupt(phase, fraction):
        if phase == "building":
            threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt):
        build(request_of(tmp_path, validation), interrupt)
        time.sleep(5)  # should the build be quicker than the interrupt
    assert children[0].poll() is not None
    assert filed(tmp_path / "engines") == []


@contextlib.contextmanager
def disk_of(limit):
    """Writing beyond `limit` bytes into one file fails, here and in children, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_too_full_for_the_plan_files_nothing(rtx, validation, tmp_path):
    request = request_of(tmp_path, validation)
    with (
        disk_of(500_000),  # the copies of the graph that are judged first fit; the plan is four times that
        pytest.raises(ToolchainError, match=r"^cannot write into .*/aot-sm86_\S+: File too large$") as caught,
    ):
        build(request)
    assert caught.value.exit_code == 1
    assert filed(tmp_path / "engines") == []


def test_a_disk_too_full_for_anything_files_nothing(rtx, validation, tmp_path):
    with disk_of(10), pytest.raises(ToolchainError, match=r"^cannot write .*: File too large") as caught:
        build(request_of(tmp_path, validation))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert filed(tmp_path / "engines") == []


def test_a_manifest_that_cannot_be_written_files_no_engine(rtx, validation, tmp_path, monkeypatch):
    def full(path, manifest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "write_manifest", full)
    with pytest.raises(ToolchainError, match=r"^cannot write .*\.engine: No space left on device$"):
        build(request_of(tmp_path, validation))
    assert filed(tmp_path / "engines") == []


def test_a_lock_of_a_dead_process_is_free(rtx, validation, tmp_path):
    request = request_of(tmp_path, validation)
    path = room.engine_path(request.root, room.engine_key(request, rtx))
    program = f"import os; from runtime.files import exclusive; exclusive({str(path)!r}).__enter__(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 9
    assert build(request).fresh
    assert files.sha256_file(path) == room.read_manifest(path).sha256


def test_a_disk_too_full_for_a_copy_of_the_graph_names_the_folder_of_the_graph(rtx, validation, tmp_path):
    request = request_of(tmp_path, validation)
    lowered = lower(request.onnx, "native", request.batch).path
    with (
        disk_of(lowered.stat().st_size + 1000),  # the copy that overflow is looked for in has more nodes
        pytest.raises(ToolchainError, match=rf"^cannot write into {re.escape(str(lowered.parent))}: File too large$"),
    ):
        build(request)
    assert filed(tmp_path / "engines") == [] and not list(lowered.parent.glob(".tmp-*"))
