"""The network is the one described, whatever its activation; its checkpoints hold it and refuse the rest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from runtime.errors import InputError
from tests.zoo.convnext.made import SMALL
from zoo.convnext.activations import ACTIVATIONS, FastSwish, activation
from zoo.convnext.checkpoint import load, save
from zoo.convnext.config import FULL, TINY, Config, macs, parameter_count
from zoo.convnext.model import ConvNeXt, seeded


def test_parameters_and_arithmetic_are_exactly_those_of_the_document():
    with torch.device("meta"):
        model = ConvNeXt()
        with FlopCounterMode(display=False) as counter:
            assert model(torch.empty(1, 3, 224, 224)).shape == (1, 200)
    assert sum(weight.numel() for weight in model.parameters()) == parameter_count(FULL) == 18_166_472
    assert counter.get_total_flops() == 2 * macs(FULL) == 2 * 2_233_836_544


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_block_is_what_is_written_out_here(name):
    model = seeded(replace(TINY, activation=name)).double()
    block = model.stages[0][0]
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wide = torch.nn.functional.conv2d(x, block.depthwise.weight, block.depthwise.bias, padding=3, groups=16)
    mean = wide.mean((1, 2, 3), keepdim=True)
    std = (wide.var((1, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    normed = (wide - mean) / std * block.norm.weight + block.norm.bias
    mixed = torch.einsum("oc,bchw->bohw", block.mix.weight[:, :, 0, 0], normed) + block.mix.bias[:, None, None]
    written = {
        "gelu": 0.5 * mixed * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (mixed + 0.044715 * mixed**3))),
        "relu": mixed.clamp_min(0),
        "hardswish": mixed * (mixed + 3).clamp(0, 6) / 6,
        "fastswish": torch.where(
            mixed.abs() <= 3, mixed * (mixed + 3.230769) / 6.230769, torch.where(mixed > 3, mixed, -(mixed**-2))
        ),
    }[name]
    out = torch.einsum("oc,bchw->bohw", block.project.weight[:, :, 0, 0], written) + block.project.bias[:, None, None]
    torch.testing.assert_close(block(x), x + out, rtol=0, atol=1e-6)


def test_fastswish_meets_at_its_edges_and_has_a_slope_everywhere():
    x = torch.tensor([-1e4, -3.0000001, -3, -2.9999999, -1, 0, 1, 2.9999999, 3, 3.0000001, 1e4], dtype=torch.float64)
    x.requires_grad_()
    y = FastSwish()(x)
    near = y.detach()
    assert near[1].item() == pytest.approx(-1 / 9, abs=1e-6) and near[3].item() == pytest.approx(-1 / 9, abs=1e-6)
    assert near[7].item() == pytest.approx(3, abs=1e-6) and near[9].item() == pytest.approx(3, abs=1e-6)
    assert near[-1] == 1e4 and near[0] == -1e-8
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    inner = torch.tensor([-7.0, -2, 0, 2, 7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FastSwish(), (inner,))
    assert activation("gelu").approximate == "tanh"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks": (1,)}, "1 stages have blocks and 4 channels"),
        ({"resolution": 225}, "resolution 225 of a ConvNeXt; expected a multiple of 32"),
        ({"resolution": 1 << 20}, "expected 1 to 1024"),
        ({"channels": (64, 96, 128, 0)}, "channels 0"),
        ({"activation": "swish"}, "activation 'swish'; expected one of gelu, relu, hardswish, fastswish"),
        ({"channels": (2048, 2048, 2048, 2048), "resolution": 1024}, "expected at most 1073741824"),
    ],
)
def test_what_cannot_be_built_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        replace(Config(), **change)


def test_a_checkpoint_holds_the_network(tmp_path):
    model = seeded(SMALL, seed=3)
    save(tmp_path / "a.safetensors", model)
    again = load(tmp_path / "a.safetensors")
    x = torch.randn(1, 3, 32, 32)
    assert again.config == SMALL and not again.training and torch.equal(again(x), model.eval()(x))


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "a.safetensors"
    save(path, seeded(SMALL))
    header = {"convnext": json.dumps({"blocks": [1, 1], "channels": [16, 32], "resolution": 32, "classes": 4})}
    tensors = load_file(path)
    save_file({**tensors, "head.bias": torch.zeros(5)}, tmp_path / "b.safetensors", header)
    with pytest.raises(InputError, match=r"holds head.bias \[5\], expected \[4\]"):
        load(tmp_path / "b.safetensors")
    save_file({**tensors, "extra": torch.zeros(5)}, tmp_path / "c.safetensors", header)
    with pytest.raises(InputError, match=r"holds extra \[5\], expected not at all"):
        load(tmp_path / "c.safetensors")
    save_file(tensors, tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="no config of a ConvNeXt in its header"):
        load(tmp_path / "d.safetensors")
    huge = {"convnext": json.dumps({"blocks": [64], "channels": [2048], "resolution": 1024, "classes": 4})}
    save_file(tensors, tmp_path / "e.safetensors", huge)
    with pytest.raises(InputError, match="parameters; expected at most"):
        load(tmp_path / "e.safetensors")
    for bad in (b"", b"no tensors", path.read_bytes()[:1000]):
        (tmp_path / "f.safetensors").write_bytes(bad)
        with pytest.raises(InputError, match="is no checkpoint of a ConvNeXt"):
            load(tmp_path / "f.safetensors")
