"""Rows of training learn, go on where they stopped, and say what they measured."""

from __future__ import annotations

import json

import pytest
import torch

from bench.schema import read_result
from runtime.errors import InputError
from tests.zoo.convnext.made import SMALL, drawn, tensors, trained
from zoo.convnext.checkpoint import load
from zoo.convnext.loop import Plan, accuracy, train_row
from zoo.convnext.train import main

COMMAND = ["--size", "tiny", "--classes", "4", "--synthetic", "10", "--device", "cpu"]


def test_it_learns_what_was_drawn(tmp_path):
    model = trained(tmp_path / "s.safetensors")
    assert accuracy(model, *tensors(drawn().val), 32) >= 0.5  # a guess is right in a quarter


def test_a_row_goes_on_where_it_stopped_as_if_it_had_not(tmp_path):
    def run(name, epochs):
        return train_row("vanilla", SMALL, drawn(), Plan(epochs, 16, "cpu"), tmp_path / name, lambda line: None)

    whole, record = run("whole", 2)
    run("halves", 1)
    halves, again = run("halves", 2)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), halves.parameters(), strict=True))
    assert [each["loss"] for each in again.epochs] == [each["loss"] for each in record.epochs]
    with pytest.raises(InputError, match="is of a run with batch 16, not 8; give another --out folder"):
        train_row("vanilla", SMALL, drawn(), Plan(3, 8, "cpu"), tmp_path / "whole", lambda line: None)


@pytest.mark.parametrize("spoil", [lambda data: data[:2000], lambda data: b"", lambda data: data[:8] + b"x" + data[9:]])
def test_a_damaged_state_is_refused_in_a_line(tmp_path, spoil):
    path = tmp_path / "state"
    train_row("vanilla", SMALL, drawn(), Plan(1, 48, "cpu"), path, lambda line: None)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match="remove it to start anew"):
        train_row("vanilla", SMALL, drawn(), Plan(2, 48, "cpu"), path, lambda line: None)


def test_the_command_writes_rows_and_checkpoints(tmp_path, capsys):
    out = tmp_path / "out"
    words = [*COMMAND, "--rows", "vanilla", "amp", "--epochs", "1", "--batch", "8", "--out", str(out)]
    assert main(words) == 0
    assert "2 rows on synthetic, 4 classes" in capsys.readouterr().out
    result = read_result(out / "training.json")
    rows = result["training"]["rows"]
    assert result["complete"] and [row["name"] for row in rows] == ["vanilla", "amp"]
    assert abs(rows[0]["epochs"][0]["loss"] - rows[1]["epochs"][0]["loss"]) < 0.02  # one order, one start
    assert rows[0]["epochs"][0]["seconds"] > 0
    assert load(out / "amp.safetensors").config.classes == 4
    assert main([*words[:-2], "--out", str(out), "--seconds", "1e-9"]) == 0  # nothing left to do
    assert read_result(out / "training.json")["training"]["rows"] == rows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "nowhere"], "wnids.txt cannot be read"),
        (["--synthetic", "10", "--epochs", "0"], "--epochs 0; expected 1 to 1000"),
        (["--synthetic", "1", "--classes", "2"], "--batch 128 of 2 pictures"),
        (["--synthetic", "0"], "classes with 0"),
        (["--synthetic", "10", "--rows", "fast"], "invalid choice: 'fast'"),
        (["--synthetic", "10", "--seconds", "nan"], "--seconds nan"),
        ([], "one of the arguments --data --synthetic is required"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, words, said):
    assert main([*words, "--size", "tiny", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and "\n" not in err


@pytest.mark.slow
def test_compiled_rows_learn_the_same(tmp_path):
    words = [*COMMAND, "--rows", "vanilla", "compile", "both", "--epochs", "2", "--batch", "8", "--out", str(tmp_path)]
    assert main(words) == 0
    rows = json.loads((tmp_path / "training.json").read_text())["training"]["rows"]
    assert rows[1]["compile_seconds"] > 0 and "compile_seconds" not in rows[0]
    losses = [row["epochs"][-1]["loss"] for row in rows]
    assert max(losses) - min(losses) < 0.05
