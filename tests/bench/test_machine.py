"""What a result says of the command that made it."""

from __future__ import annotations

from bench.machine import command_line


def test_paths_of_this_machine_stay_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--engine",
        "build/a b.engine",
        "--output",
        "/elsewhere/out/x.json",
        str(tmp_path / "build/y.onnx"),
        "--profile",
    ]
    assert command_line("python -m bench.engine", words) == (
        "python -m bench.engine --engine 'build/a b.engine' --output x.json build/y.onnx --profile"
    )
