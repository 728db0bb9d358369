"""Fused blocks answer what plain ones do; the kernels are run in Triton's interpreter and compiled for a Hopper GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.zoo.convnext.made import SMALL
from zoo.convnext.activations import ACTIVATIONS
from zoo.convnext.config import FULL
from zoo.convnext.fused import FusedBlock, depthwise_sums, fused, normed_mix
from zoo.convnext.model import seeded

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_fused_network_answers_what_the_plain_one_does(name):
    plain = seeded(replace(SMALL, activation=name)).eval()
    for weight in plain.parameters():  # norms start as ones and zeros, which would hide them
        weight.data.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    quick = fused(plain)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert isinstance(quick.stages[0][0], FusedBlock) and not isinstance(plain.stages[0][0], FusedBlock)
    with torch.no_grad():
        torch.testing.assert_close(quick(x), plain(x), rtol=1e-4, atol=1e-4)


def test_the_operators_are_sound_for_torch_compile():
    x = torch.randn(2, 4, 8, 8)
    weight, bias = torch.randn(16, 1, 7, 7), torch.randn(16)
    torch.library.opcheck(depthwise_sums, (x, weight, bias), test_utils=("test_schema", "test_faketensor"))
    y, parts = depthwise_sums(x, weight, bias)
    rest = (torch.randn(16, 8, 8), torch.randn(16, 8, 8), torch.randn(16, 16, 1, 1), torch.randn(16), "relu", 1e-5)
    torch.library.opcheck(normed_mix, (y, parts, *rest), test_utils=("test_schema", "test_faketensor"))


def test_sums_do_not_cancel_where_the_mean_is_large():
    x, weight = torch.randn(1, 4, 16, 16), torch.randn(16, 1, 7, 7)
    y, parts = depthwise_sums(x, weight, torch.full((16,), 3e3))
    variance = (parts[0, :, 2].sum() / parts[0, :, 0].sum()).item()
    assert parts.shape[1] == 1 and variance == pytest.approx(y.double().var(correction=0).item(), rel=1e-3)


@pytest.mark.slow
def test_the_kernels_compute_the_same_in_tritons_interpreter():
    pytest.importorskip("triton", reason="no Triton for this platform")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.zoo.convnext.interpreted"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(4))
def test_the_kernels_compile_for_a_hopper_gpu(stage):
    triton = pytest.importorskip("triton", reason="no Triton for this platform")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zoo.convnext import fused_kernels as kernels

    target, wide = GPUTarget("cuda", 90, 32), 4 * FULL.channels[stage]
    tiles = triton.next_power_of_2(FULL.channels[stage] * -(-(FULL.side(stage) ** 2) // kernels.PIXELS))
    pointers = {name: "*fp16" for name in ("y", "norm_weight", "norm_bias", "weight", "bias", "out")}
    sizes = {"WIDE": wide, "TILES": tiles, "CODE": kernels.GELU, "M": 128, "N": 64, "K": 64}
    order = ["y", "parts", "norm_weight", "norm_bias", "weight", "bias", "out", "area", "tiles", "epsilon", *sizes]
    types = {**pointers, "parts": "*fp32", "area": "i32", "tiles": "i32", "epsilon": "fp32"}
    signature = {name: types.get(name, "constexpr") for name in order}
    made = triton.compile(
        ASTSource(kernels._mix, signature=signature, constexprs=sizes),
        target=target,
        options={"num_warps": 4, "num_stages": 3},
    )
    assert made.metadata.shared <= 227 << 10 and len(made.asm["cubin"]) > 1000


@pytest.mark.gpu
@pytest.mark.parametrize("stage", range(4))
def test_on_a_gpu_a_fused_block_errs_no_more_than_twice_what_the_plain_one_does(stage):
    plain = seeded(FULL).eval()
    block, quick = plain.stages[stage][0], fused(plain).stages[stage][0]
    x = torch.randn(3, FULL.channels[stage], FULL.side(stage), FULL.side(stage))
    with torch.no_grad():
        exact = block.double()(x.double())
        half = block.half().cuda()(x.half().cuda()).double().cpu()
        got = quick.half().cuda()(x.half().cuda()).double().cpu()
    assert (got - exact).abs().max() <= 2 * (half - exact).abs().max()
