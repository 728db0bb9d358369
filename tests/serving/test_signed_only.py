"""Where only signed engines are to be loaded, the server takes nothing else."""

from __future__ import annotations

import pytest

from runtime.errors import EngineMismatch
from runtime.signing import VARIABLE

pytest.importorskip("prometheus_client", reason="the server is in the serving environment: make test-serving")


def test_a_network_that_cannot_be_signed_is_not_served(tmp_path, monkeypatch):
    from serving.server import open_runner

    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "x.onnx").touch()
    with pytest.raises(EngineMismatch, match=r"x\.onnx cannot be signed, and only signed engines are served"):
        open_runner(tmp_path / "x.onnx")
