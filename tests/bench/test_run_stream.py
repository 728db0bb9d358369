"""The bench of the stream runs, and says what it found."""

from __future__ import annotations

import json
import os

import pytest

from bench.run_stream import main
from runtime.gpu import find_gpus, no_gpu_reason


def test_a_small_run(tmp_path, capsys):
    path = tmp_path / "results.json"
    words = ["--pictures", "21", "--resolution", "32", "--batch", "4", "--ms", "2", "--output", str(path)]
    assert main(words) == 0
    result = json.loads(path.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert (result["pictures"], result["batch"], result["lanes"]) == (21, 4, 2)
    assert set(result["seconds_alone"]) == {"decode", "run", "encode"}
    assert result["seconds_alone"]["run"] >= 6 * 0.002
    assert 0 < result["seconds_together"] < 30 and result["machine"]["python"]


def test_what_cannot_be_run_is_said_in_a_line(tmp_path, capsys):
    assert main(["--onnx", str(tmp_path / "none.onnx"), "--pictures", "1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "none.onnx does not exist" in line


@pytest.mark.gpu
def test_a_real_engine_under_a_stream(tmp_path, capsys):
    if not find_gpus():
        pytest.skip(no_gpu_reason())
    engine = os.environ.get("CAT2DOG_TEST_ENGINE")
    if not engine:
        pytest.skip("CAT2DOG_TEST_ENGINE names no engine")
    path = tmp_path / "results.json"
    assert main(["--pictures", "300", "--engine", engine, "--output", str(path)]) == 0
    result = json.loads(path.read_text())
    with capsys.disabled():
        print(f"\n{result['seconds_alone']} s alone, {result['seconds_together']} s together,", end=" ")
        print(f"{result['pictures_a_second']} pictures a second with {result['workers']} workers", end=" ")
    assert result["seconds_together"] < result["seconds_in_turn"]
