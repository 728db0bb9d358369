"""The fused operators of a block's first half beside PyTorch's own, eager and compiled, on a GPU."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.convnext.fused import FusedBlock
from zoo.convnext.model import Block, ConvNeXt

_WARM_UP, _RUNS = 5, 30


def compared(network: ConvNeXt, batch: int, deadline: float) -> list[dict[str, Any]]:
    """A row a stage (schema: kernel), of a whole block in FP16; stages that the time does not reach are left out."""
    rows = []
    for stage, blocks in enumerate(network.stages):
        if time.monotonic() > deadline:
            break
        assert isinstance(blocks, nn.Sequential) and isinstance(blocks[0], Block)
        plain = copy.deepcopy(blocks[0]).eval().requires_grad_(False).half().cuda()
        fused = FusedBlock(plain, network.config.activation)
        side, d = network.config.side(stage), network.config.channels[stage]
        x = torch.randn(batch, d, side, side, dtype=torch.float16, device="cuda")
        with torch.no_grad():
            expected = copy.deepcopy(blocks[0]).eval().double().cuda()(x.double())
            error = float((fused(x) - expected).abs().max() / expected.abs().max())
            row = {
                "name": f"block of stage {stage}",
                "shape": list(x.shape),
                "plain_ms": _milliseconds(plain, x),
                "fused_ms": _milliseconds(fused, x),
                "relative_error": float(f"{error:.3g}"),
            }
            if time.monotonic() < deadline:
                row["compiled_ms"] = _milliseconds(torch.compile(plain, dynamic=False), x)
        rows.append(row)
    return rows


def _milliseconds(work: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Of one run as a CUDA graph, the median."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            work(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = work(x)
    first, second = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times = []
    for _ in range(_WARM_UP + _RUNS):
        first.record()
        graph.replay()
        second.record()
        second.synchronize()
        times.append(first.elapsed_time(second))
    del kept
    return round(statistics.median(times[_WARM_UP:]), 5)
