"""`python -m zoo.resnet50`: photos to the lines about them, as the runner in C++ prints them too."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InputError
from zoo.command import Parser, run
from zoo.resnet50.labels import labels_of
from zoo.resnet50.pixels import MOST_SEED, find_jpegs
from zoo.resnet50.running import about, open_network, seen

MOST_ROUNDS = 10_000
MOST_THREADS = 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify; returns the exit code."""
    parser = Parser(
        "python -m zoo.resnet50",
        "The two likeliest classes of photos, and mean and variance of their embeddings.",
        "python -m zoo.resnet50 --images images --network build/onnx/resnet50-random_fp32.onnx",
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, metavar="PATH", help="JPEG files, or folders of them"
    )
    parser.add_argument(
        "--network", type=Path, metavar="FILE", help=".engine or .onnx of this recipe (default: PyTorch)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE.safetensors", help="of PyTorch (default: seeded random ones)"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="1000 lines, a name each (default: torchvision's)")
    parser.add_argument("--seed", type=int, default=0, help="of the crops' places (default: 0)")
    parser.add_argument("--threads", type=int, metavar="N", help="of ONNX Runtime (default: its own choice)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="pictures so many times, with --json")
    parser.add_argument("--json", action="store_true", help="print a JSON object a picture instead, with times")
    return run(parser, _classify, arguments)


def _classify(args: argparse.Namespace) -> int:
    if not 0 <= args.seed <= MOST_SEED:
        raise InputError(f"--seed {args.seed} was given; expected 0 to {MOST_SEED}")
    if not 1 <= args.rounds <= MOST_ROUNDS or (args.rounds > 1 and not args.json):
        raise InputError(f"--rounds {args.rounds} was given; expected 1 to {MOST_ROUNDS}, and --json")
    paths = find_jpegs(args.images)
    labels = labels_of(args.labels)
    faults = 0
    if args.threads is not None and not 1 <= args.threads <= MOST_THREADS:
        raise InputError(f"--threads {args.threads} was given; expected 1 to {MOST_THREADS}")
    with open_network(args.network, args.weights, args.threads) as runner:
        if args.json:
            print(json.dumps({"runner": about(runner)}))
        for _ in range(args.rounds):
            for each in seen(paths, runner, args.seed):
                if each.fault is not None:
                    faults += 1
                    print(f"skipped: {each.fault}", file=sys.stderr)
                if args.json:
                    print(json.dumps(each.facts()))
                elif each.answer is not None:
                    print(*each.answer.lines(each.number, labels), sep="\n")
    if faults:
        raise InputError(f"{faults} of {len(paths) * args.rounds} pictures could not be read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
