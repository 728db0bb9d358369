"""`python -m serving.server`: the server process. `cat2dog serve` starts it, in the serving environment's Python."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.errors import EngineMismatch, InputError
from runtime.runner import ImageRunner
from runtime.signing import signed_only
from serving import start
from serving.arguments import add_arguments, add_tensors, limits_of
from serving.log import JsonLog


def open_runner(path: Path, lanes: int = 2) -> ImageRunner:
    """An engine, or an ONNX file on the CPU, as an image runner. Raises InputError for anything else."""
    if path.suffix == ".engine":
        from runtime.tensorrt_runner import TensorRTRunner

        return ImageRunner.from_runner(TensorRTRunner(path, lanes=lanes, wait="block"))
    if path.suffix == ".onnx":
        from runtime.onnxruntime_runner import OnnxRuntimeRunner

        if signed_only():
            raise EngineMismatch(f"{path} cannot be signed, and only signed engines are served: give a FILE.engine")
        return ImageRunner.from_runner(OnnxRuntimeRunner(path))
    raise InputError(f"{path} is neither an engine nor an ONNX file; expected a file ending in .engine or .onnx")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.server", description="Serve cat2dog on Triton.")
    parser.add_argument("networks", nargs="+", type=Path, metavar="FILE", help=".engine or .onnx, one a resolution")
    add_arguments(parser)
    add_tensors(parser)
    args = parser.parse_args(arguments)
    return start.run(lambda stack, log: dogs_of(stack, log, args.networks, args, open_runner), args)


def dogs_of(
    stack: contextlib.ExitStack,
    log: JsonLog,
    networks: Sequence[Path],
    args: argparse.Namespace,
    opening: Callable[[Path], ImageRunner],
) -> list[start.Served]:
    """The networks opened, as cat2dog's function; with `--tensors` each one as it is, too."""
    from serving.dogs import Dogs

    limits = limits_of(args)
    runners = []
    for path in networks:
        runners.append(stack.enter_context(opening(path)))
        log("set-up", network=str(path), resolution=runners[-1].resolution, lanes=runners[-1].lanes)
    dogs = Dogs(runners, limits, args.most_batch)
    return [dogs, *(dogs.tensors() if args.tensors else ())]


if __name__ == "__main__":
    sys.exit(main())
