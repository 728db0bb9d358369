"""`python -m serving.server`: the server process. `cat2dog serve` starts it, in the serving environment's Python."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InputError, ToolchainError
from runtime.runner import ImageRunner
from serving.arguments import add_arguments, limits_of, settings_of
from serving.log import JsonLog


def open_runner(path: Path, lanes: int = 2) -> ImageRunner:
    """An engine, or an ONNX file on the CPU, as an image runner. Raises InputError for anything else."""
    if path.suffix == ".engine":
        from runtime.tensorrt_runner import TensorRTRunner

        return ImageRunner.from_runner(TensorRTRunner(path, lanes=lanes, wait="block"))
    if path.suffix == ".onnx":
        from runtime.onnxruntime_runner import OnnxRuntimeRunner

        return ImageRunner.from_runner(OnnxRuntimeRunner(path))
    raise InputError(f"{path} is neither an engine nor an ONNX file; expected a file ending in .engine or .onnx")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving.server", description="Serve cat2dog on Triton.")
    parser.add_argument("networks", nargs="+", type=Path, metavar="FILE", help=".engine or .onnx, one a resolution")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        return serve(args, JsonLog())
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def serve(args: argparse.Namespace, log: JsonLog) -> int:
    """Open the networks, serve them, return the exit code. Raises ToolchainError where it does not come to that."""
    from serving.dogs import Dogs

    try:
        from serving.host import Host, one_log, stopped_by_signals
    except ImportError as error:
        raise InputError(
            f"serving needs PyTriton, in an environment of its own ({error}): `make serve` makes it, or "
            "pip install 'cat2dog[serving]' in a fresh one"
        ) from error
    settings, limits = settings_of(args), limits_of(args)
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_log(log))
        runners = []
        for path in args.networks:
            runners.append(stack.enter_context(open_runner(path)))
            log("set-up", network=str(path), resolution=runners[-1].resolution, lanes=runners[-1].lanes)
        dogs = Dogs(runners, limits, args.most_batch)
        host = Host([dogs], settings, log)
        stack.callback(host.close)
        stack.enter_context(stopped_by_signals(host))
        host.start()
        return host.wait()


if __name__ == "__main__":
    sys.exit(main())
