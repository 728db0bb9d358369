"""What is changed of PyTriton's half inside Triton is there to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

import pytriton.proxy

from serving.proxy import changed

OWN = Path(pytriton.proxy.__file__).parent


@pytest.mark.parametrize(
    ("name", "says"), [("communication.py", "timeout_s: float = 30.0"), ("model.py", "watching = loop.create_task")]
)
def test_the_half_in_triton_is_changed_and_is_python(name, says):
    own = (OWN / name).read_bytes()
    content = changed(f"file:1/{name}", own)
    assert says not in own.decode() and says in content.decode()
    compile(content, name, "exec")


def test_what_is_not_as_it_was_known_stays_as_it_is():
    assert changed("file:1/data.py", b"1") == b"1"
    assert changed("file:1/model.py", b"class TritonRequestsServer:\n") == b"class TritonRequestsServer:\n"
