"""`python -m serving.server`: the server process. `cat2dog serve` starts it, in the serving environment's Python."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InputError, ToolchainError
from runtime.images import Limits
from runtime.runner import ImageRunner
from serving.log import JsonLog
from serving.settings import Settings

_DEFAULTS = Settings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `cat2dog serve` has too, and hands on as they are."""
    parser.add_argument(
        "--host", default=_DEFAULTS.host, help=f"address to listen on (default: {_DEFAULTS.host}, this machine alone)"
    )
    for name, about in (
        ("page", "the web page, and plain HTTP"),
        ("http", "Triton's HTTP"),
        ("grpc", "Triton's gRPC"),
        ("metrics", "Triton's metrics"),
    ):
        port = getattr(_DEFAULTS, name)
        parser.add_argument(
            f"--{name}-port", type=int, default=port, metavar="N", help=f"of {about} (default: {port}; 0: any free one)"
        )
    parser.add_argument(
        "--most-batch", type=int, default=8, metavar="N", help="pictures brought together at most (default: 8)"
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=_DEFAULTS.queue,
        metavar="N",
        help=f"requests that may wait, the next is refused at once (default: {_DEFAULTS.queue})",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=_DEFAULTS.timeout,
        metavar="S",
        help=f"seconds that a request may wait (default: {_DEFAULTS.timeout:g})",
    )
    parser.add_argument(
        "--gather-ms",
        type=float,
        default=_DEFAULTS.gather * 1000,
        metavar="MS",
        help=f"how long a batch that is not full is waited for (default: {_DEFAULTS.gather * 1000:g})",
    )
    parser.add_argument(
        "--stop-seconds",
        type=float,
        default=_DEFAULTS.stop,
        metavar="S",
        help=f"time that answering what was accepted may take after SIGTERM or Ctrl-C (default: {_DEFAULTS.stop:g})",
    )
    parser.add_argument(
        "--most-mib", type=float, default=20, metavar="MIB", help="size of a picture's file at most (default: 20)"
    )
    parser.add_argument(
        "--most-megapixels",
        type=float,
        default=50,
        metavar="MP",
        help="width x height of a picture at most, by its header (default: 50)",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    """Raises InputError for impossible ones."""
    return Settings(
        host=args.host,
        http=args.http_port,
        grpc=args.grpc_port,
        metrics=args.metrics_port,
        page=args.page_port,
        queue=args.queue,
        timeout=args.timeout,
        gather=args.gather_ms / 1000,
        stop=args.stop_seconds,
    )


def limits_of(args: argparse.Namespace) -> Limits:
    """Raises InputError for impossible ones."""
    if not (0 < args.most_mib <= 1024 and 0 < args.most_megapixels <= 1000):
        raise InputError("--most-mib takes more than 0 to 1024, --most-megapixels more than 0 to 1000")
    return Limits(pixels=int(args.most_megapixels * 1e6), file_bytes=int(args.most_mib * (1 << 20)))


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
        here = host.settings
        log("ready", host=here.host, http=here.http, grpc=here.grpc, metrics=here.metrics, page=here.page)
        return host.wait()


if __name__ == "__main__":
    sys.exit(main())
