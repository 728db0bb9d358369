"""Triton's kernels on a CPU, in Triton's interpreter: run by a test, in a process that has TRITON_INTERPRET=1."""

from __future__ import annotations

import sys

import torch

from zoo.se_resnet9 import formulas, kernels
from zoo.se_resnet9.fast import FastSEResNet9
from zoo.se_resnet9.folded import FORMS, Folded
from zoo.se_resnet9.weights import seeded


def close(got, expected, what):
    """Each within FP16's rounding of the other."""
    assert got.shape == expected.shape and got.dtype == expected.dtype, what
    assert got.stride() == expected.stride(), what
    error = (got.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-3)
    assert error < 3e-3, f"{what}: {error}"


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator).half()
    return x.to(memory_format=torch.channels_last) if len(shape) == 4 else x


def pieces():
    """Each kernel beside its formula, with sizes that are not whole blocks."""
    z, g, other = (drawn(3, 32, 4, 4, seed=seed) for seed in range(3))
    a, b, scale, bias = (drawn(1, seed=seed) for seed in range(3, 7))
    gate = drawn(2, 32, seed=8), drawn(2, seed=9), drawn(32, 2, seed=10), drawn(32, seed=11)
    calls = {
        "shifted_relu": (z, a, b),
        "shifted_relu_backward": (g, z, a),
        "relu_pair": (z, a),
        "relu_pair_backward": (g, other, z),
        "squeeze_merge": (z, other, scale, bias, *gate, a),
        "squeeze_merge_backward": (g, z, other, scale, bias, *gate),
    }
    for name, given in calls.items():
        got, expected = getattr(kernels, name)(*given), getattr(formulas, name)(*given)
        pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
        for index, (one, other_one) in enumerate(pairs):
            close(one, other_one, f"{name}[{index}]")


def networks():
    """Every folded form beside the plain network in FP64, before and after new weights."""
    for channels, form in ((3, "cudnn"), (1, "triton"), (11, "fused"), (3, "mixed")):
        network = seeded(channels).half()
        image = drawn(2, channels, 64, 64).contiguous()
        folded = Folded(FastSEResNet9.of(network), 2, form)
        for seed in (0, 5):
            network = seeded(channels, seed).half()
            folded._network.load_state_dict(network.state_dict())
            folded.refold()
            expected = network.double()(image.double())
            got = folded(image)
            assert got.is_contiguous(memory_format=torch.channels_last)
            error = (got.double() - expected).abs().max() / expected.abs().max()
            assert error < 5e-3, f"{form}: {error}"
    assert set(FORMS) == {"cudnn", "triton", "fused", "mixed"}


if __name__ == "__main__":
    with torch.no_grad():
        {"pieces": pieces, "networks": networks}[sys.argv[1]]()
    print("as the formulas have it")
