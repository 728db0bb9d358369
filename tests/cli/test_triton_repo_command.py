"""`cat2dog triton-repo`: which engines it finds, and what it says where there are none."""

from __future__ import annotations

import json

import pytest

from cli.main import main
from tests.serving.plans import write_plan


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "build" / "engines"


def test_the_newest_engine_for_each_gpu_is_taken(build, capsys):
    write_plan(build / "a", date="2026-01-01")
    newest = write_plan(build / "a", date="2026-03-01")
    other = write_plan(build / "b", capability="8.0", date="2026-02-01")
    write_plan(build / "b", checkpoint="tiny-32", side=32)
    write_plan(build / "c", capability="8.6", gate="pending")
    assert main(["triton-repo", "out", "--model", "models/tiny-16", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {path.rpartition("/")[2] for path in answer["engines"]} == {newest.name, other.name}
    assert answer["models"] == ["tiny-16", "tiny-16_decode", "tiny-16_encode", "tiny-16_picture"]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (None, "--flavor tensorrt --batch 1-8`"),
        ({"flavor": "tensorrt_rtx"}, "(there is one, but of tensorrt_rtx)"),
        ({"gate": "pending"}, "(there is one, but its gate is pending)"),
        ({"batch": (2, 2, 4)}, "(there is one, but for batches from 2 on)"),
    ],
)
def test_without_an_engine_it_says_how_to_build_one(build, capsys, plan, reason):
    if plan:
        write_plan(build / "a", **plan)
    assert main(["triton-repo", "out", "--model", "models/tiny-16"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no fp16 engine of models/tiny-16 for Triton is filed in build/engines")
    assert reason in error and error.count("\n") == 1


def test_nothing_to_write_is_wrong_usage(build, capsys):
    assert main(["triton-repo", "out"]) == 2
    assert "give --model FOLDER" in capsys.readouterr().err


def test_a_given_engine_is_taken(build, capsys):
    path = write_plan(build.parent / "mine")
    assert main(["triton-repo", "out", "--engine", str(path), "--format", "jpeg", "--quality", "90"]) == 0
    assert "start Triton with out/start.sh" in capsys.readouterr().out
    assert main(["triton-repo", "out", "--engine", str(path), "--quality", "90"]) == 2
