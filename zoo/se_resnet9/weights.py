"""Weights: seeded ones that hide nothing, and checkpoints as one safetensors file. Reading one runs no code.

python -m zoo.se_resnet9.weights --channels 3 --output se_resnet9.safetensors
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from runtime.errors import InputError
from runtime.files import atomic_path
from zoo.command import Parser, run
from zoo.se_resnet9.network import INPUT_CHANNELS, STEP, SEResNet9

_STEM = "stem.weight"
_MOST_CHANNELS = 64


def fixup(channels: int = 3, seed: int = 0) -> SEResNet9:
    """Fixup's initial weights: what training starts from. The process's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SEResNet9(channels)


def seeded(channels: int = 3, seed: int = 0) -> SEResNet9:
    """Weights as after some training, in eval mode.

    At Fixup's initial values the second convolutions are 0 and the scalars do nothing: what is wrong with either
    would not show. Here every scalar is a tenth of a unit or more from that, and every branch is as large as its
    identity.
    """
    network = fixup(channels, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for block in network.each_block():
            fan_in = block.conv2.in_channels * 9
            block.conv1.weight.normal_(0, (2 / (block.conv1.in_channels * 9)) ** 0.5, generator=generator)
            block.conv2.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if block.downsample is not None:
                block.downsample.weight.normal_(0, (1 / block.downsample.in_channels) ** 0.5, generator=generator)
            for scalar, rest in ((block.b1a, 0), (block.b1b, 0), (block.b2a, 0), (block.b2b, 0), (block.scale, 1)):
                far = 0.1 + 0.3 * torch.rand(1, generator=generator)
                sign = torch.where(torch.rand(1, generator=generator) < 0.5, -1.0, 1.0)
                scalar.copy_(rest + sign * far)
    return network.eval()


def save(path: str | os.PathLike[str], network: nn.Module) -> None:
    """Write the weights, FP32, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: weight.detach().float().cpu().contiguous() for name, weight in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def load(path: str | os.PathLike[str]) -> SEResNet9:
    """The network of a file, FP32 on the CPU, in eval mode; its stem tells how many channels the input has.

    Raises InputError for a file that is no such checkpoint; shapes are compared before anything is read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            given = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}
            channels = _channels(given.get(_STEM, []), str(path))
            with torch.device("meta"):
                network = SEResNet9(channels)
            expected = {name: list(weight.shape) for name, weight in network.state_dict().items()}
            for name in (name for name in sorted({*given, *expected}) if given.get(name) != expected.get(name)):
                raise InputError(
                    f"{path} holds {name} {given.get(name, 'not at all')}, expected {expected.get(name, 'not at all')}"
                )
            tensors = {name: file.get_tensor(name).float() for name in given}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is no checkpoint of an SE-ResNet9 ({str(error)[:200]}): give a .safetensors file"
        ) from error
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(True).eval()


def _channels(stem: list[int], path: str) -> int:
    patch = STEP * STEP
    if len(stem) != 4 or stem[1] % patch or not patch <= stem[1] <= patch * _MOST_CHANNELS:
        raise InputError(
            f"{path} has no stem of an SE-ResNet9: '{_STEM}' is {stem or 'missing'}, expected [64,16C,1,1]"
        )
    return stem[1] // patch


def main(arguments: Sequence[str] | None = None) -> int:
    """`init` for this network."""
    prog = "python -m zoo.se_resnet9.weights"
    parser = Parser(prog, "Write seeded weights.", f"{prog} --output se_resnet9.safetensors")
    parser.add_argument("--channels", type=int, choices=INPUT_CHANNELS, default=3, help="of the input (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fixup", action="store_true", help="Fixup's initial values, in place of ones as if trained")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")

    def work(args: argparse.Namespace) -> int:
        made = (fixup if args.fixup else seeded)(args.channels, args.seed)
        save(args.output, made)
        print(f"{args.output}: {sum(each.numel() for each in made.parameters()):,} parameters")
        return 0

    return run(parser, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
