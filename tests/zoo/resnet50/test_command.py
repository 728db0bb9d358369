"""The command with PyTorch, and its faults; with ONNX files it is tested beside the runner in C++."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from runtime.errors import InputError
from zoo.resnet50 import __main__ as command
from zoo.resnet50 import recipe, running
from zoo.resnet50.network import Classifier

IMAGES = Path(__file__).resolve().parents[3] / "images"
MEAN = r"mean: \d\.\d{6} variance: \d\.\d{6} of image #(\d+)"
CLASSES = r"image #(\d+) is \d+\.\d\d% a .+ and \d+\.\d\d% a .+"


def test_lines_by_pytorch(network, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "seeded", lambda: network)
    assert command.main(["--images", str(IMAGES / "img2.jpg"), str(IMAGES / "img1.jpg")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.fullmatch(MEAN, line)[1] for line in lines[::2]] == ["1", "2"]
    assert [re.fullmatch(CLASSES, line)[1] for line in lines[1::2]] == ["1", "2"]
    with torch.inference_mode():
        crop = torch.from_numpy(running.pixels.read_crop(IMAGES / "img2.jpg", 0, 0))
        logits, embedding, _ = Classifier(network).eval()(crop[None])
    best = torch.softmax(logits[0].double(), 0).topk(2)
    shown = [float(number) for number in re.findall(r"([\d.]+)%", lines[1])]
    assert shown == pytest.approx([100 * float(p) for p in best.values], abs=0.006)
    assert float(lines[0].split()[1]) == pytest.approx(float(embedding.mean()), abs=1e-6)
    assert float(lines[0].split()[3]) == pytest.approx(float(embedding.var()), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "-1"], "--seed -1 was given"),
        (["--rounds", "2"], "--rounds 2 was given; expected 1 to 10000, and --json"),
        (["--network", "x.plan"], "is neither an engine nor an ONNX file"),
        (["--network", "absent.onnx"], "does not exist"),
        (["--network", "absent.onnx", "--weights", "x.safetensors"], "leave one of them out"),
        (["--weights", "absent.safetensors"], "does not exist"),
    ],
)
def test_wrong_usage(arguments, words, capsys):
    assert command.main(["--images", str(IMAGES), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ")


def test_a_pending_engine_is_not_run(tmp_path, monkeypatch):
    from runtime import engine_file
    from runtime.manifest import Build, EngineKey, Gate, Manifest

    key = EngineKey("r", "0" * 64, "0" * 64, "fp16", "none", "tensorrt", "10.6.0", gpu="x", compute_capability="9.0")
    manifest = Manifest("x.engine", "0" * 64, 1, key, Gate("pending", "cosine", 0.9, "x"), Build(1.0, 1, "x", "x"))
    monkeypatch.setattr(engine_file, "engine_manifest", lambda path: manifest)
    with pytest.raises(InputError, match="has not passed its gate yet"):
        running.open_network(tmp_path / "x.engine", None)


def test_cat2dog_run_takes_the_same_crops(network, monkeypatch, capsys):
    from cli.main import main

    monkeypatch.setattr(recipe, "seeded", lambda: network)
    images = [str(IMAGES / "img1.jpg"), str(IMAGES / "img3.jpg")]
    assert command.main(["--images", *images]) == 0
    lines = capsys.readouterr().out.splitlines()
    target = ["--recipe", "zoo.resnet50.recipe:resnet50", "--runner", "pytorch", "--no-psnr", "--json"]
    assert main(["run", *target, "--input-image", *images]) == 0
    said = [row["answer"] for row in json.loads(capsys.readouterr().out)["samples"]]
    assert said == [f"{first}; {second}" for first, second in zip(lines[::2], lines[1::2], strict=True)]
