"""`python -m serving.client`: one request from the command line, its outputs into files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serving.client import Client, Progress, ServerRefused, Value


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 answered, 1 the server refused or is not there, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m serving.client", description="Ask a function of the server.")
    parser.add_argument("image", nargs="?", type=Path, help="picture file, where the function takes one")
    parser.add_argument("output", type=Path, help="file for the picture that comes back")
    parser.add_argument("--url", default="127.0.0.1:8001", help="Triton's gRPC address (default: 127.0.0.1:8001)")
    parser.add_argument("--function", default="cat2dog", help="which function (default: cat2dog)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field: a number, true, false, or a text"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait at most (default: 60)")
    parser.add_argument("--progress", action="store_true", help="take the answers one by one, as they come")
    args = parser.parse_args(arguments)
    try:
        values: dict[str, Value] = dict(map(_field, args.set))
        if args.image is not None:
            values["image"] = args.image.read_bytes()
        with Client(args.url, args.timeout) as client:
            outputs = client.ask(args.function, values, progress=_teller() if args.progress else None)
        _write(args.output, outputs)
    except ServerRefused as error:
        print(f"error: the server refused, {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _teller() -> Progress:
    began = time.monotonic()

    def tell(number: int, answer: dict[str, Value]) -> None:
        told = ", ".join(f"{name} {_told(value)}" for name, value in answer.items())
        print(f"{time.monotonic() - began:7.2f} s  answer {number}: {told}", file=sys.stderr)

    return tell


def _write(path: Path, outputs: dict[str, Value]) -> None:
    """The picture into the file, what else there is onto stdout."""
    for name, value in outputs.items():
        if isinstance(value, bytes) and len(value) > 64:
            path.write_bytes(value)
            print(f"{path}: {name}, {len(value)} bytes")
        else:
            print(f"{name}: {_told(value)}")


def _told(value: Value) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes" if len(value) > 64 else value.decode("utf-8", "replace")
    return str(value)


def _field(text: str) -> tuple[str, Value]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: expected NAME=VALUE")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
