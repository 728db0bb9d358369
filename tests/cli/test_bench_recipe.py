"""`cat2dog bench --recipe`: a network that makes no pictures, in several ways, judged as its recipe says."""

from __future__ import annotations

import pytest

from bench.schema import read_result
from cli.main import main

RECIPE = ["bench", "--recipe", "tests.zoo.convnext.made:tiny"]


@pytest.mark.slow
def test_it_is_timed_and_judged(tmp_path, capsys):
    words = ["--peers", "torch-eager", "onnxruntime-cpu", "--batch", "1,2", "--rounds", "2", "--turn-ms", "5"]
    output = tmp_path / "r.json"
    assert main([*RECIPE, *words, "--images", "3", "--build-dir", str(tmp_path), "--output", str(output)]) == 0
    result = read_result(output)
    assert result["kind"] == "network" and result["complete"] and result["subject"]["parameters"] == 61_352
    for peer in result["peers"]:
        assert peer["status"] == "measured", peer
        assert peer["scores"]["metric"] == "top5" and peer["scores"]["worst"] >= 0.8 and peer["scores"]["samples"] == 3
        assert {(row["batch"], row["level"]) for row in peer["latency"]} == {
            (batch, level) for batch in (1, 2) for level in ("network", "host")
        }
    assert "2 of 2 measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ladder"], "--ladder and --engine are for checkpoints"),
        (["--peers", "fast", "--list"], "there is no peer 'fast' here; expected some of torch-eager"),
        (["--model", "models/tiny-128"], "not allowed with argument"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, words, said):
    assert main([*RECIPE, *words, "--build-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and "\n" not in err


def test_what_is_there_is_listed(tmp_path, capsys):
    assert main([*RECIPE, "--list", "--build-dir", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "torch-compile: torch.compile, default" in listed and "onnxruntime-cuda" in listed
