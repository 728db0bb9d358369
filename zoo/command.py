"""What the zoo's commands share: an error is one line and an exit code, as `cat2dog`'s are."""

from __future__ import annotations

import argparse
import contextlib
import errno
import sys
from collections.abc import Callable, Iterator, Sequence

from runtime.errors import InputError, ToolchainError

INTERRUPTED = 130
Progress = Callable[[int, int], None]


class Parser(argparse.ArgumentParser):
    """Wrong usage is one line that says where the help is. Has `--verbose`, which shows tracebacks."""

    def __init__(self, prog: str, description: str, example: str):
        super().__init__(prog=prog, description=description, epilog=f"example: {example}", allow_abbrev=False)
        self.add_argument("--verbose", action="store_true", help="show tracebacks")

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(InputError.exit_code, f"error: {message}; see `{self.prog} --help`\n")


def run(parser: Parser, work: Callable[[argparse.Namespace], int], arguments: Sequence[str] | None) -> int:
    """Parse and work; returns the exit code: 0, 1 failed, 2 bad input, 4 foreign engine, 130 interrupted."""
    verbose = False
    try:
        args = parser.parse_args(arguments)
        verbose = args.verbose
        return work(args)
    except SystemExit as exit_:  # argparse: 0 after --help, 2 after wrong usage
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        print("interrupted; nothing unfinished was kept", file=sys.stderr)
        return INTERRUPTED
    except (ToolchainError, OSError, MemoryError) as error:
        if verbose:
            import traceback

            traceback.print_exception(error)
        print(f"error: {_line(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 1)


@contextlib.contextmanager
def bar(what: str) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere: called with how many of how many are done."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError):
        hint = ": free some space and run the command again" if error.errno == errno.ENOSPC else ""
        return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}{hint}"
    return str(error) or "not enough memory for this model on this machine"
