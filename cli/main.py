"""The command's entry: finds the subcommand, runs it, turns errors into one line and an exit code.

0 done   1 failed   2 wrong usage or bad input   3 accuracy gate   4 engine not of this machine   130 interrupted
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from runtime.errors import InputError, ToolchainError

# Each is a module cli.{name}_command with HELP, EXAMPLE, add_arguments and run; imported only to be described or run.
SUBCOMMANDS = (
    "init",
    "convert",
    "export",
    "build",
    "run",
    "accuracy",
    "tune",
    "bench",
    "serve",
    "triton-repo",
    "store",
    "sign",
    "verify",
    "doctor",
)
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in arguments
    try:
        namespace = parse(arguments)
        return int(namespace.run(namespace) or 0)
    except SystemExit as exit_:  # argparse: 0 after --help, 2 after wrong usage
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        print("interrupted; nothing unfinished was filed", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of the output has left
        return 1
    except ToolchainError as error:
        return _fail(error, str(error), error.exit_code, verbose)
    except OSError as error:
        hint = ": free some space and run the command again" if error.errno == errno.ENOSPC else ""
        return _fail(
            error, f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}{hint}", 1, verbose
        )
    except MemoryError as error:
        return _fail(error, "not enough memory for this checkpoint on this machine", 1, verbose)


def _fail(error: BaseException, text: str, code: int, verbose: bool) -> int:
    if verbose:
        import traceback

        traceback.print_exception(error)
    print(f"error: {text}", file=sys.stderr)
    return code


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse; `namespace.run` is the subcommand's function."""
    parser = _Parser(
        prog="cat2dog",
        description="Photos of cats into cartoon dogs, and any image model into TensorRT engines.",
        epilog="example: cat2dog run --model models/tiny-128 --input-image images/img1.jpg --output out.png",
    )
    parser.add_argument("--version", action="version", version=f"cat2dog {_version()}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for name in SUBCOMMANDS:
        command = importlib.import_module(f"cli.{name.replace('-', '_')}_command")
        sub = subparsers.add_parser(
            name, help=command.HELP, description=command.HELP, epilog=f"example: {command.EXAMPLE}", allow_abbrev=False
        )
        command.add_arguments(sub)
        sub.add_argument("--verbose", action="store_true", help="show tracebacks and the builder's log")
        sub.set_defaults(run=command.run)
    return parser.parse_args(arguments)


class _Parser(argparse.ArgumentParser):
    """Wrong usage is one line that says where the help is, instead of a page of it."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(InputError.exit_code, f"error: {message}; see `{self.prog} --help`\n")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("cat2dog")
    except PackageNotFoundError:
        return "(not installed)"
