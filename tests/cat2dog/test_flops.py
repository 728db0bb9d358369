from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cat2dog.config import NAMED
from cat2dog.flops import flops
from cat2dog.model import Cat2Dog

TINY = NAMED["tiny-128"]
CASES = {**NAMED, "swiglu": replace(TINY, mlp="swiglu", mlp_ratio=8 / 3, bias=False, rope=False, norm="rmsnorm")}


def plain_attention(q, k, v):
    return (q @ k.transpose(-1, -2)).softmax(dim=-1) @ v


@pytest.mark.parametrize("name", CASES)
def test_flops_are_those_that_torch_counts(name):
    config = CASES[name]
    with torch.device("meta"):
        model = Cat2Dog(config)
        image = torch.empty(1, 3, config.resolution, config.resolution)
    with FlopCounterMode(display=False) as counter:
        model(image, plain_attention)
    counted = {str(op): number for op, number in counter.get_flop_counts()["Global"].items()}
    attention = counted.pop("aten.bmm")
    assert set(counted) <= {"aten.mm", "aten.addmm"}
    assert flops(config).attention == attention
    assert flops(config).gemm == sum(counted.values())
    assert flops(config).total == counter.get_total_flops()


def test_a_batch_costs_as_many_times_more():
    with torch.device("meta"):
        model = Cat2Dog(TINY)
        image = torch.empty(3, 3, 128, 128)
    with FlopCounterMode(display=False) as counter:
        model(image, plain_attention)
    assert counter.get_total_flops() == 3 * flops(TINY).total
