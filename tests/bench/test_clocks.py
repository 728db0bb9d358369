"""The GPU's clock while something is timed, with a stand-in for `nvidia-smi`."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from bench.clocks import Clocks


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Puts a script in the place of `nvidia-smi`."""

    def put(script):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


def test_what_is_told(smi, tmp_path):
    smi(
        f'echo "$@" > {tmp_path}/asked; echo "1980, 1980, 120.5, 700.00"; echo "1500, 1980, 699.0, 700.00";'
        ' echo "1400, 1980, 690.0, 700.00"; echo "14"; exec sleep 60'
    )
    with Clocks() as clocks:
        for _ in range(200):
            if (tmp_path / "asked").exists():
                break
            time.sleep(0.01)
        time.sleep(0.2)
    assert clocks.said == {
        "sm_mhz": {"median": 1500.0, "least": 1400.0, "most": 1980.0, "limit": 1980.0},
        "watts": {"median": 690.0, "most": 699.0, "limit": 700.0},
        "samples": 3,
    }
    assert "--loop-ms=20" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("script", ["exit 9", "echo '[N/A], [N/A], 1, 2'", "true"])
def test_nothing_is_told(smi, script):
    smi(script)
    with Clocks() as clocks:
        time.sleep(0.1)
    assert clocks.said == {"why_not": "nvidia-smi told nothing in that time"}


def test_one_that_does_not_stop_is_killed(smi, monkeypatch):
    smi("trap '' TERM; echo '1, 2, 3, 4'; while true; do sleep 0.1; done")
    real = subprocess.Popen.communicate

    def impatient(self, timeout=None):
        return real(self, timeout=timeout and 0.3)

    monkeypatch.setattr(subprocess.Popen, "communicate", impatient)
    with Clocks() as clocks:
        time.sleep(0.2)
    assert clocks.said["samples"] == 1


def test_no_such_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with Clocks() as clocks:
        pass
    assert clocks.said == {"why_not": "nvidia-smi: No such file or directory"}
