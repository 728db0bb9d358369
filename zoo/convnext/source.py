"""What the commands share: where pictures and weights come from."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.errors import InputError
from zoo.command import Parser
from zoo.convnext.activations import ACTIVATIONS
from zoo.convnext.checkpoint import load
from zoo.convnext.config import FULL, TINY, Config, macs, parameter_count
from zoo.convnext.data import Data, Pictures, load_folder, synthetic
from zoo.convnext.model import ConvNeXt, seeded

SIZES = {"full": FULL, "tiny": TINY}


def add_data(parser: Parser, required: bool) -> None:
    """`--data FOLDER` or `--synthetic N`, with `--classes`."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="in Tiny-ImageNet's layout")
    source.add_argument(
        "--synthetic", type=int, metavar="N", help="the drawn stand-in with N pictures a class, in memory"
    )
    parser.add_argument("--classes", type=int, default=200, help="of the drawn stand-in (default: 200)")
    parser.add_argument("--judge", type=int, metavar="N", help="validation pictures to judge by (default: all)")


def add_network(parser: Parser) -> None:
    """`--checkpoint FILE`, or seeded weights of `--size` and `--activation`."""
    parser.add_argument("--checkpoint", type=Path, metavar="FILE.safetensors", help="(default: seeded weights)")
    add_size(parser)


def add_size(parser: Parser) -> None:
    """`--size` and `--activation` of seeded weights."""
    parser.add_argument("--activation", choices=tuple(ACTIVATIONS), default="gelu", help="(default: gelu)")
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="tiny: 32 px, for a CPU (default: full)")


def add_device(parser: Parser) -> None:
    """`--device`."""
    parser.add_argument("--device", choices=("cuda", "cpu"), help="(default: cuda where there is one)")


def device_of(args: argparse.Namespace) -> str:
    """The device asked for, or the one there is. Raises InputError for a GPU that is not there."""
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this PyTorch sees no GPU; leave it out, or give --device cpu")
    return str(device)


def data_of(args: argparse.Namespace, few: int = 1) -> Data:
    """The folder's pictures, or drawn ones, `few` a class where neither was asked for."""
    if args.judge is not None and args.judge < 1:
        raise InputError(f"--judge {args.judge}; expected at least 1")
    count = few if args.synthetic is None else args.synthetic
    data = load_folder(args.data) if args.data else synthetic(count, max(count // 10, 1), args.classes)
    if args.judge is None or args.judge >= len(data.val):
        return data
    rows = np.arange(args.judge) * len(data.val) // args.judge  # spread over them, and so over the classes
    return replace(data, val=Pictures(data.val.images[rows], data.val.labels[rows]))


def network_of(args: argparse.Namespace, classes: int) -> ConvNeXt:
    """The checkpoint's network, in eval mode. Raises InputError where it has other classes than the data."""
    if args.checkpoint is None:
        return seeded(replace(SIZES[args.size], activation=args.activation, classes=classes)).eval()
    network = load(args.checkpoint)
    if network.config.classes != classes:
        raise InputError(f"{args.checkpoint} is of {network.config.classes} classes, the data has {classes}")
    return network


def name_of(args: argparse.Namespace, network: ConvNeXt) -> str:
    """What results call it."""
    own = f"-{args.checkpoint.stem}" if args.checkpoint else ""
    return f"convnext-{network.config.activation}-{network.config.resolution}{own}"


def subject(name: str, config: Config, precision: str, pictures: int) -> dict[str, Any]:
    """What a result says of the network (schema: subject)."""
    return {
        "checkpoint": name,
        "resolution": config.resolution,
        "tokens": config.side(0) ** 2,
        "parameters": parameter_count(config),
        "precision": precision,
        "flops": 2 * macs(config),
        "attention_flops": 0,
        "images": pictures,
    }
