"""The fast class gives the plain network's outputs and gradients; its operators are sound ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.library import opcheck

from runtime.errors import InputError, ToolchainError
from zoo.se_resnet9.fast import FastSEResNet9
from zoo.se_resnet9.folded import Folded
from zoo.se_resnet9.graphs import InferenceGraph, TrainingGraph
from zoo.se_resnet9.network import SEResNet9
from zoo.se_resnet9.operators import relu_pair, shifted_relu, squeeze_merge
from zoo.se_resnet9.weights import seeded

HERE = Path(__file__).parent


def drawn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, dtype=dtype, generator=generator)
    x = x.to(memory_format=torch.channels_last) if len(shape) == 4 else x
    return x.requires_grad_()


def calls(dtype=torch.float64):
    """Each operator, with inputs that want gradients."""
    z, other = drawn(2, 16, 2, 2, dtype=dtype), drawn(2, 16, 2, 2, seed=1, dtype=dtype)
    a, b, scale, bias = (drawn(1, seed=seed, dtype=dtype) for seed in range(2, 6))
    gate = [drawn(*shape, seed=6 + i, dtype=dtype) for i, shape in enumerate(((1, 16), (1,), (16, 1), (16,)))]
    return [
        (shifted_relu, (z, a, b)),
        (relu_pair, (z, a)),
        (squeeze_merge, (z, other, scale, bias, *gate, a)),
    ]


@pytest.mark.parametrize("index", range(3))
def test_gradients_of_operators_are_those_of_finite_differences(index):
    operator, inputs = calls()[index]
    assert torch.autograd.gradcheck(operator, inputs)


@pytest.mark.parametrize("index, dtype", [(0, torch.float32), (1, torch.bfloat16), (2, torch.bfloat16)])
def test_operators_keep_what_pytorch_asks_of_them(index, dtype):
    operator, inputs = calls(dtype)[index]
    verdicts = opcheck(operator, inputs, rtol=1e-2, atol=1e-2)
    assert set(verdicts.values()) == {"SUCCESS"} and "test_faketensor" in verdicts


def test_gradients_of_gradients_are_refused():
    z, a, b = drawn(1, 16, 2, 2), drawn(1, seed=1), drawn(1, seed=2)
    (g,) = torch.autograd.grad(shifted_relu(z, a, b).square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(g.sum(), z)


@pytest.mark.parametrize("channels", [3, 1, 11])
def test_outputs_and_gradients_are_the_plain_networks(channels):
    plain = seeded(channels).double()
    fast = FastSEResNet9.of(plain)
    assert isinstance(fast, SEResNet9) and set(fast.state_dict()) == set(plain.state_dict())
    image, g = drawn(3, channels, 64, 64), drawn(3, 512, 2, 2, seed=1)
    other = image.detach().clone().requires_grad_()
    expected, got = plain(image), fast(other)
    assert torch.allclose(got, expected, atol=1e-12) and got.is_contiguous(memory_format=torch.channels_last)
    expected.backward(g)
    got.backward(g)
    assert torch.allclose(other.grad, image.grad, atol=1e-10)
    for (name, mine), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-8, atol=1e-9), name


def test_in_half_precision_it_is_no_further_off_than_twice_the_plain_network():
    reference, image = seeded().double(), drawn(4, 3, 64, 64).detach()
    plain = seeded().bfloat16()
    with torch.no_grad():
        expected = reference(image)
        errors = [(net(image.bfloat16()).double() - expected).norm() for net in (FastSEResNet9.of(plain), plain)]
    assert errors[0] <= 2 * errors[1] and errors[1] > 0


def test_weights_go_to_and_fro():
    fast = FastSEResNet9(1)
    fast.load_state_dict(seeded(1).state_dict())
    SEResNet9(1).load_state_dict(fast.state_dict())
    assert fast.each_block()[2].conv2.weight.is_contiguous(memory_format=torch.channels_last)


def script(name, *words, timeout=280, **environment):
    done = subprocess.run(
        [sys.executable, str(HERE / name), *words],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_kernels_are_their_formulas():
    pytest.importorskip("triton", reason="Triton is not installed here: pip install 'cat2dog[kernels]'")
    assert "as the formulas have it" in script("interpreted.py", "pieces", TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_folded_networks_are_the_plain_network_before_and_after_new_weights():
    pytest.importorskip("triton", reason="Triton is not installed here: pip install 'cat2dog[kernels]'")
    assert "as the formulas have it" in script("interpreted.py", "networks", TRITON_INTERPRET="1", timeout=880)


@pytest.mark.slow
def test_kernels_compile_for_hopper_with_tensor_cores():
    pytest.importorskip("triton", reason="Triton is not installed here: pip install 'cat2dog[kernels]'")
    assert "_convolve_merge" in script("compiled.py", "--all")


def test_what_cannot_be_is_said():
    with pytest.raises(InputError, match="no form 'cutlass'; expected one of cudnn, triton"):
        Folded(seeded().half(), 2, "cutlass")
    with pytest.raises(InputError, match=r"float32; kernels take float16 and bfloat16: network.half\(\)"):
        Folded(seeded(), 2)
    image = torch.zeros(2, 3, 64, 64)
    for make in (lambda: InferenceGraph(seeded(), image), lambda: TrainingGraph(seeded(), image, image)):
        with pytest.raises(ToolchainError, match="needs its tensors on a GPU, not on cpu"):
            make()
