"""Weights: a safetensors file of torchvision's, or seeded random ones that behave like a trained network's."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from runtime.errors import InputError, MissingExtra
from zoo.resnet50.network import Pixels, ResNet50
from zoo.resnet50.pictures import drawn_crops

# torchvision's own file has 102 MB.
MOST_BYTES = 1 << 30
# Chosen so that the first class of a picture gets ten percent and more, and another picture another class: one that is
# hardly ahead of the second, or the same for all, would prove nothing about a runtime that keeps it.
_FC_GAIN = 120.0
_SEEN = 4


def seeded(seed: int = 0) -> ResNet50:
    """A ResNet50 with random weights, in eval mode.

    Every filter sums to zero, so that a flat input says nothing to the next layer, as after the normalisation of a
    trained network; with He's initialisation alone, all pictures give one answer after some fifty layers. What the
    embeddings of drawings have in common, the last layer takes away.
    """
    generator = torch.Generator().manual_seed(seed)
    network = ResNet50().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                weight = torch.randn(module.weight.shape, generator=generator)
                weight -= weight.mean((1, 2, 3), keepdim=True)
                module.weight.copy_(weight * (2 / weight[0].numel()) ** 0.5)
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
        network.fc.weight.normal_(0, _FC_GAIN / network.fc.in_features**0.5, generator=generator)
        crops = torch.from_numpy(drawn_crops(_SEEN, seed))
        embedding = network(Pixels()(crops))[1].mean(0)
        # In steps, so that what a machine rounds otherwise does not make another network.
        network.fc.bias.copy_((-network.fc.weight @ embedding * 16).round() / 16)
    return network


def load(path: str | os.PathLike[str]) -> ResNet50:
    """A ResNet50 with the weights of a safetensors file, in eval mode. Raises InputError for anything else."""
    path = Path(path)
    check_file(path, ".safetensors")
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingExtra("safetensors", "loading weights", "safetensors") from error
    try:
        state = load_file(path)
    except Exception as error:  # safetensors' own kind, and the file system's
        raise InputError(f"{path} is no sound safetensors file: {' '.join(str(error).split())[:200]}") from error
    return filled(state, path)


def filled(state: dict[str, torch.Tensor], path: Path) -> ResNet50:
    """A ResNet50 with `state`, in eval mode. Raises InputError where tensors are missing, foreign or misshapen."""
    network = ResNet50().eval()
    expected = network.state_dict()
    # torchvision's older files have no counters, which say nothing of a network at rest.
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    foreign = [name for name in state if name not in expected]
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"has {foreign[0]}"
        raise InputError(f"{path} {what}; expected the {len(expected)} tensors of torchvision's resnet50")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise InputError(f"{path}: {name} is {list(tensor.shape)}; expected {list(expected[name].shape)}")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} has values that are not finite")
    network.load_state_dict(state, strict=False)
    return network.float()


def check_file(path: Path, suffix: str) -> None:
    """Raise InputError unless `path` is a file that ends in `suffix` and is not larger than weights can be."""
    if path.suffix != suffix:
        raise InputError(f"{path} was given; expected a file that ends in {suffix}")
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; expected torchvision's resnet50 weights")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has more than {MOST_BYTES >> 30} GiB; expected some 100 MB of weights")
