"""Weights in and out: torchvision's names and shapes or none, and nothing in a file is executed."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from runtime.errors import InputError
from zoo.resnet50 import convert, weights
from zoo.resnet50.network import ResNet50


@pytest.fixture(scope="module")
def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_pth_file_becomes_safetensors(state, tmp_path, capsys):
    # As torchvision's older files are: without the counters of batches.
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "resnet50.pth")
    target = tmp_path / "resnet50.safetensors"
    assert convert.main(["--weights", str(tmp_path / "resnet50.pth"), "--output", str(target)]) == 0
    assert "25557032 parameters" in capsys.readouterr().out
    loaded = weights.load(target)
    assert not loaded.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_is_refused_unread(tmp_path, capsys):
    made = tmp_path / "made-by-a-pickle"
    for name, content in (("bomb.pth", pickle.dumps({"x": Bomb(str(made))}, protocol=2)), ("text.pth", b"no weights")):
        (tmp_path / name).write_bytes(content)
        assert convert.main(["--weights", str(tmp_path / name), "--output", str(tmp_path / "x.safetensors")]) == 2
        error = capsys.readouterr().err
        assert "is refused: it is damaged, or would run code" in error and error.count("\n") == 1
    torch.save([1, 2], tmp_path / "list.pth")
    assert convert.main(["--weights", str(tmp_path / "list.pth"), "--output", str(tmp_path / "x.safetensors")]) == 2
    assert "holds no state_dict" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists() and not made.exists()


def test_other_weights_are_refused(state, tmp_path):
    cases = [
        ({**state, "fc.bias": torch.zeros(10)}, r"fc\.bias is \[10\]; expected \[1000\]"),
        (
            {name: tensor for name, tensor in state.items() if name != "layer3.4.conv2.weight"},
            r"lacks layer3\.4\.conv2",
        ),
        ({**state, "fc.more": torch.zeros(1)}, r"has fc\.more"),
        ({**state, "bn1.bias": torch.full((64,), float("nan"))}, "not finite"),
    ]
    for wrong, words in cases:
        with pytest.raises(InputError, match=words):
            weights.filled(wrong, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        weights.load(tmp_path / "x.pth")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="no sound safetensors file"):
        weights.load(tmp_path / "x.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="lacks conv1"):
        weights.load(tmp_path / "x.safetensors")


def test_half_precision_weights_are_widened(state, tmp_path):
    loaded = weights.filled({name: tensor.half() for name, tensor in state.items()}, tmp_path / "x.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_seed_makes_the_same_weights(network):
    again = weights.seeded(0)
    assert torch.equal(again.conv1.weight, network.conv1.weight) and torch.equal(again.fc.bias, network.fc.bias)
    assert isinstance(again, ResNet50)
