"""`soak.gpu` around stand-ins for its cases: one that breaks its promise is told of, and the others are run, too."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.flavors import Flavor
from soak import gpu
from soak.gpu_cases import CASES
from soak.result import Broken

FLAVOR = Flavor("tensorrt", "8.6.0", "python3.10", can_build=True, can_run=True)


@pytest.fixture
def ran(monkeypatch):
    """The cases in the order in which they ran; `says` is what some print, or raise, in place of a sound report."""
    order = []
    says = {}

    def run(words, **options):
        name = words[3]
        order.append(name)
        said = says.get(name, '{"sha256": "a"}')
        if isinstance(said, Exception):
            raise said
        return SimpleNamespace(
            stdout=f"noise\n{said}\n", stderr="last\nwords", returncode=-11 if "{" not in said else 0
        )

    monkeypatch.setattr(gpu, "build", lambda request: SimpleNamespace(path=Path("tiny.engine")))
    monkeypatch.setattr(gpu, "validation_of", lambda path: None)
    monkeypatch.setattr(gpu, "request_of", lambda *given, **options: None)
    monkeypatch.setattr(gpu, "write_tiny", lambda path: path)
    monkeypatch.setattr(gpu.subprocess, "run", run)
    return SimpleNamespace(order=order, says=says)


def test_each_case_is_followed_by_a_first_answer_and_a_context_may_end_its_process(ran, tmp_path):
    ran.says["lost_context"] = ""
    found = gpu.run(tmp_path, 1, FLAVOR)
    assert ran.order == ["first"] + [each for name in CASES if name != "first" for each in (name, "first")]
    assert set(found) == {"build_seconds", *CASES} - {"first"} and found["lost_context"] == {"ended": "SIGSEGV"}


def test_a_broken_promise_ends_nothing_and_all_are_told_of(ran, tmp_path, capsys):
    ran.says["loads"] = '{"broken": "memory grew\\nby a lot"}'
    ran.says["failing_kernel"] = ""
    ran.says["out_of_memory_running"] = subprocess.TimeoutExpired("python", 31)
    with pytest.raises(Broken) as error:
        gpu.run(tmp_path, 1, FLAVOR)
    assert set(ran.order) == set(CASES)
    loads, running, kernel = str(error.value).split("; ")
    assert loads == "loads: memory grew by a lot" and kernel == "failing_kernel: it ended with SIGSEGV: last words"
    assert running.startswith("out_of_memory_running: Command 'python' timed out after 31 seconds")
    assert "lost_context: {" in capsys.readouterr().out
