"""`python -m zoo.resnet50.convert`: torchvision's `.pth` weights to safetensors, without running what is in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import atomic_path
from zoo.command import Parser, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; returns the exit code."""
    parser = Parser(
        "python -m zoo.resnet50.convert",
        "torchvision's resnet50 weights (.pth) to safetensors; nothing in the file is executed.",
        "python -m zoo.resnet50.convert --weights resnet50-11ad3fa6.pth --output models/resnet50.safetensors",
    )
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE.pth")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    return run(parser, _convert, arguments)


def _convert(args: argparse.Namespace) -> int:
    from safetensors.torch import save_file

    from zoo.resnet50.weights import check_file, filled

    if args.output.suffix != ".safetensors":
        raise InputError(f"output {args.output} was given; expected a name that ends in .safetensors")
    check_file(args.weights, ".pth")
    network = filled(_state_of(args.weights), args.weights)
    with atomic_path(args.output) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"{args.output}: {count} parameters, {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


def _state_of(path: Path) -> dict[str, Any]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, pickle's and zipfile's own kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is refused: it is damaged, or would run code when loaded ({reason})") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise InputError(f"{path} holds no state_dict; expected names and tensors, as torchvision's weights have them")
    return state


if __name__ == "__main__":
    sys.exit(main())
