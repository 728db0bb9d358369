"""A ConvNeXt in INT8, as Q/DQ ONNX: from calibration alone, or after a short training that knows of the rounding."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from engines.batch import BatchProfile
from engines.lowering import load, lower
from export.export import export
from runtime.errors import ToolchainError
from zoo.convnext.fake_quant import Ranges, layers_of, quantizing
from zoo.convnext.loop import accuracy, prepared
from zoo.convnext.model import ConvNeXt
from zoo.convnext.recipe import convnext
from zoo.quantizer import with_qdq

# A tenth of the rate that the network was trained with: it has little way to go.
RATE = 3e-5
_MOST_BATCH = 64
Pictures = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Quantized:
    """A network in INT8: plain FP32 weights, the layers that are rounded, and their activations' magnitudes by path.

    `right` is the share of validation pictures it gets right, rounding simulated.
    """

    network: ConvNeXt
    layers: tuple[str, ...]
    magnitudes: Mapping[str, float]
    right: float


def calibrated(network: ConvNeXt, scheme: str, calibration: Tensor, val: Pictures, batch: int = 64) -> Quantized:
    """Post-training: ranges are the largest magnitudes that `calibration`, uint8 `[N,S,S,3]`, gives rise to."""
    network = copy.deepcopy(network).eval()
    layers = layers_of(network, scheme)
    with quantizing(network, layers) as ranges:
        _observe(network, calibration, batch)
        right = _right(network, ranges, val, batch)
    return Quantized(network, tuple(layers), ranges.magnitudes(), right)


def finetuned(
    network: ConvNeXt,
    scheme: str,
    train: Pictures,
    val: Pictures,
    steps: int,
    batch: int = 64,
    rate: float = RATE,
    seed: int = 0,
    say: Callable[[int, int], None] = lambda done, total: None,
) -> Quantized:
    """Quantization-aware: `steps` of AdamW with rounding in the forward pass, from the calibrated ranges on.

    The rate falls to nothing over the steps. `network` itself stays as it is. Raises ToolchainError where the loss is
    no number any more.
    """
    network = copy.deepcopy(network).train()
    layers = layers_of(network, scheme)
    images, labels = train
    generator = torch.Generator().manual_seed(seed)
    with quantizing(network, layers) as ranges:
        _observe(network, images[: 4 * batch], batch)
        ranges.state = "learn"
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            chosen = torch.randint(len(labels), (batch,), generator=generator).to(labels.device)
            logits = network(prepared(images[chosen], network.config.resolution))
            loss = functional.cross_entropy(logits, labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            say(step + 1, steps)
        if steps and not math.isfinite(float(loss.detach())):
            raise ToolchainError(f"the loss is {float(loss.detach())} after {steps} steps in INT8; give a lower rate")
        network.eval()
        right = _right(network, ranges, val, batch)
    return Quantized(network, tuple(layers), ranges.magnitudes(), right)


def logits(each: Quantized, images: Tensor) -> Tensor:
    """What the network answers with rounding simulated: float `[N,classes]` of uint8 `[N,S,S,3]`."""
    with quantizing(each.network, each.layers) as ranges, torch.no_grad():
        ranges.most = {name: torch.tensor(most, device=images.device) for name, most in each.magnitudes.items()}
        ranges.state = "hold"
        return each.network(prepared(images, each.network.config.resolution))


def write(each: Quantized, target: Path, calibration: np.ndarray, wide_weights: bool = False) -> Path:
    """Write the Q/DQ graph to `target` with the FP32 one beside it, uint8 `[B,R,R,3]` in, logits out, any batch.

    `calibration` is uint8 `[N,R,R,3]`: the quantizer runs it, though the ranges are those of `each`; `wide_weights` is
    the quantizer's.
    """
    recipe = convnext(copy.deepcopy(each.network).cpu(), target.stem)
    neutral = export(recipe, target.with_name(f"{target.stem}_fp32.onnx"), "fp32").path
    model = load(lower(neutral, "decomposed", BatchProfile(1, 1, _MOST_BATCH)).path)
    nodes = {layer: node_of(model, layer) for layer in each.layers}
    ranges = {nodes[layer]: most for layer, most in each.magnitudes.items()}
    return with_qdq(
        model, target, {"image": calibration}, list(nodes.values()), ranges, outputs=False, wide_weights=wide_weights
    )


def node_of(model: ir.Model, layer: str) -> str:
    """The name of the convolution or product that a layer of the network became. Raises ToolchainError for none."""
    for node in model.graph:
        module, _, _ = str(node.name).rpartition("/")
        if module == f"network.{layer}" and node.op_type in ("Conv", "Gemm", "MatMul"):
            return str(node.name)
    raise ToolchainError(f"the exported graph has no convolution or product of layer {layer}")


def _observe(network: ConvNeXt, images: Tensor, batch: int) -> None:
    with torch.no_grad():
        for start in range(0, len(images), batch):
            network(prepared(images[start : start + batch], network.config.resolution))


def _right(network: ConvNeXt, ranges: Ranges, val: Pictures, batch: int) -> float:
    ranges.state = "hold"
    return accuracy(network, *val, batch)


def taken(images: np.ndarray, count: int) -> np.ndarray:
    """`count` of the pictures, spread over them."""
    rows: Sequence[int] = [index * len(images) // count for index in range(min(count, len(images)))]
    return images[list(rows)]
