"""The server's options: of `cat2dog serve`, which hands them on as they are, and of `python -m serving.server`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from runtime.errors import InputError
from serving.settings import Settings

if TYPE_CHECKING:
    from runtime.images import Limits

_DEFAULTS = Settings()
_NAMES = (
    *("host", "page_port", "http_port", "grpc_port", "metrics_port", "most_batch", "queue", "timeout", "gather_ms"),
    *("stop_seconds", "most_mib", "most_megapixels"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Addresses, batches, limits and times."""
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
    add_limits(parser)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """How large a picture may be; `limits_of` reads it."""
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


def add_tensors(parser: argparse.ArgumentParser) -> None:
    """Whether networks are served as they are, beside the function."""
    parser.add_argument(
        "--tensors",
        action="store_true",
        help="also take and give pixels, uint8 [B,R,R,3], as a model cat2dog_R of each resolution R",
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
    from runtime.images import Limits

    if not (0 < args.most_mib <= 1024 and 0 < args.most_megapixels <= 1000):
        raise InputError("--most-mib takes more than 0 to 1024, --most-megapixels more than 0 to 1000")
    return Limits(pixels=int(args.most_megapixels * 1e6), file_bytes=int(args.most_mib * (1 << 20)))


def words_of(args: argparse.Namespace) -> list[str]:
    """The options as they would be typed."""
    words = []
    for name in _NAMES:
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return words
