"""`python -m tests.serving.sleeper MS`: a server whose network takes its time and no core, as one on a GPU does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.run_stream import FixedTimeRunner
from runtime.runner import ImageRunner
from serving import start
from serving.arguments import add_arguments, add_tensors
from serving.server import dogs_of

SIDE, BATCH, LANES = 256, 8, 2


def opened(ms: float) -> ImageRunner:
    """255 - image, after so many milliseconds a batch; one batch at a time, whichever lane asks."""
    return ImageRunner(FixedTimeRunner(SIDE, BATCH, LANES, ms))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("ms", type=float)
    add_arguments(parser)
    add_tensors(parser)
    args = parser.parse_args()
    return start.run(
        lambda stack, log: dogs_of(stack, log, [Path("sleeper")], args, lambda path: opened(args.ms)), args
    )


if __name__ == "__main__":
    sys.exit(main())
