"""The network is the one described; its weights, pixels and head are, too."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from runtime.errors import InputError
from zoo.se_resnet9.encoder import Encoder
from zoo.se_resnet9.network import SEResNet9, SpaceToDepth, macs, parameter_count
from zoo.se_resnet9.pixels import ColourPixels, DepthPixels, RunningNorm
from zoo.se_resnet9.weights import fixup, load, main, save, seeded


@pytest.mark.parametrize("channels, parameters", [(3, 4_938_256), (1, 4_936_208), (11, 4_946_448)])
def test_parameters_and_arithmetic_are_exactly_those_of_the_document(channels, parameters):
    with torch.device("meta"):
        network = SEResNet9(channels)
        with FlopCounterMode(display=False) as counter:
            assert network(torch.empty(1, channels, 64, 64)).shape == (1, 512, 2, 2)
    assert sum(weight.numel() for weight in network.parameters()) == parameter_count(channels) == parameters
    assert counter.get_total_flops() == 2 * macs(channels)
    assert macs(3) == 63_744_512
    assert not any("norm" in name or name.endswith(("conv1.bias", "conv2.bias")) for name in network.state_dict())


def test_space_to_depth_is_as_written():
    x = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12)
    y = SpaceToDepth()(x)
    for c, i, j, h, w in ((0, 0, 0, 0, 0), (2, 3, 1, 1, 2), (1, 2, 3, 0, 1)):
        assert torch.equal(y[:, (i * 4 + j) * 3 + c, h, w], x[:, c, 4 * h + i, 4 * w + j])


@pytest.mark.parametrize("index", [0, 1])
def test_a_block_is_what_is_written_out_here(index):
    """With scalars that do something, at the border too: they are added before the padding."""
    block = seeded().each_block()[index].double()
    x = torch.randn(2, 64, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stride = index + 1
    padded = torch.zeros(2, 64, 18, 18, dtype=torch.float64)
    padded[:, :, 1:-1, 1:-1] = x + block.b1a
    o = torch.relu(functional.conv2d(padded, block.conv1.weight, stride=stride) + block.b1b) + block.b2a
    o = functional.conv2d(functional.pad(o, (1, 1, 1, 1)), block.conv2.weight) * block.scale + block.b2b
    gate = o.mean((2, 3)) @ block.se.squeeze.weight.t() + block.se.squeeze.bias
    gate = torch.sigmoid(torch.relu(gate) @ block.se.excite.weight.t() + block.se.excite.bias)
    if stride == 2:
        windows = sum(padded[:, :, i : i + 16 : 2, j : j + 16 : 2] for i in range(3) for j in range(3))
        x = torch.einsum("oc,bchw->bohw", block.downsample.weight[:, :, 0, 0], windows / 9)
    written = torch.relu(o * gate[:, :, None, None] + x)
    assert torch.allclose(block(padded[:, :, 1:-1, 1:-1] - block.b1a), written, atol=1e-9)


def test_fixups_initial_weights():
    network = fixup()
    assert torch.equal(network.stem.weight, fixup().stem.weight)
    for block in network.each_block():
        out = block.conv1.out_channels
        assert block.conv1.weight.std().item() == pytest.approx((2 / (9 * out)) ** 0.5 / 2, rel=0.03)
        assert not block.conv2.weight.any() and block.scale == 1
        assert not any(each.any() for each in (block.b1a, block.b1b, block.b2a, block.b2b))
        if block.downsample is not None:
            assert block.downsample.weight.std().item() == pytest.approx((2 / out) ** 0.5, rel=0.03)


def test_no_scalar_of_the_seeded_weights_could_be_left_out():
    network = seeded()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = network(image)
        for block in network.each_block():
            for name, rest in (("b1a", 0.0), ("b1b", 0.0), ("b2a", 0.0), ("b2b", 0.0), ("scale", 1.0)):
                scalar = getattr(block, name)
                kept = scalar.clone()
                scalar.fill_(rest)
                # Of 1e-3 a cosine of 0.999 would still see half.
                assert (network(image) - right).norm() / right.norm() > 5e-3, name
                scalar.copy_(kept)


def test_weights_survive_a_file_and_a_file_that_is_not_theirs_is_refused(tmp_path, capsys):
    path = tmp_path / "depth.safetensors"
    assert main(["--channels", "1", "--seed", "3", "--output", str(path)]) == 0
    assert "4,936,208 parameters" in capsys.readouterr().out
    loaded = load(path)
    assert loaded.channels == 1 and not loaded.training
    for name, weight in seeded(1, 3).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    wrong = seeded()
    wrong.blocks[1].conv1 = torch.nn.Conv2d(64, 127, 3, bias=False)
    save(path, wrong)
    with pytest.raises(InputError, match=r"blocks.1.conv1.weight \[127, 64, 3, 3\], expected \[128, 64, 3, 3\]"):
        load(path)
    save(path, torch.nn.Conv2d(3, 4, 1))
    with pytest.raises(InputError, match="has no stem of an SE-ResNet9"):
        load(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="is no checkpoint of an SE-ResNet9"):
        load(path)


def test_the_encoder_around_it():
    encoder = Encoder().eval()
    assert sum(weight.numel() for weight in encoder.parameters()) == 6_643_472
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert encoder(image).shape == (2, 512)
    assert Encoder(depth=True).eval()(torch.rand(2, 1, 64, 64) * 12).shape == (2, 512)


def test_the_running_norm_is_that_of_all_it_saw():
    norm = RunningNorm(3)
    batches = [torch.randn(n, 3, 4, 5, generator=torch.Generator().manual_seed(n)) * n + n for n in (2, 7, 1)]
    for batch in batches:
        norm(batch)
    seen = torch.cat(batches)
    assert torch.allclose(norm.mean, seen.mean((0, 2, 3), keepdim=True), atol=1e-4)
    assert torch.allclose(norm.variance, seen.var((0, 2, 3), keepdim=True, correction=0), rtol=1e-4)
    norm.eval()
    expected = (seen - norm.mean) / norm.variance.sqrt()
    assert torch.allclose(norm(seen), expected) and norm.count == len(seen)
    flat = RunningNorm(1)
    flat(torch.ones(4, 1, 2, 2))
    assert torch.allclose(flat.eval()(torch.full((1, 1, 1, 1), 1.05)), torch.tensor(0.5))


def test_colours_and_depth_as_the_document_has_them():
    norm = ColourPixels().eval()
    assert torch.allclose(norm(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)), torch.tensor(10.0))  # 1 / sqrt(0.01)
    metres = torch.tensor([-1.0, 0.0, 0.99, 1.0, 5.5, 9.999, 10.0, 37.0]).view(1, 1, 2, 4)
    channels = DepthPixels()(metres)
    assert channels.shape == (1, 11, 2, 4)
    assert channels[0, 0].flatten().tolist() == pytest.approx([0, 0, 0.099, 0.1, 0.55, 0.9999, 1, 1])
    assert channels[0, 1:].argmax(0).flatten().tolist() == [0, 0, 0, 1, 5, 9, 9, 9]
    assert torch.equal(channels[0, 1:].sum(0), torch.ones(2, 4))
