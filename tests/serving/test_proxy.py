"""What is changed of PyTriton's half inside Triton is there to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

import pytriton.proxy.communication as communication

from serving.proxy import patient


def test_the_half_in_triton_waits_longer_for_its_first_instance():
    own = Path(communication.__file__).read_bytes()
    changed = patient("file:1/communication.py", own)
    assert b"timeout_s: float = 30.0" in changed and len(changed) == len(own) + 1
    compile(changed, "communication.py", "exec")
    assert patient("file:1/data.py", own) == own
