"""How every server of this room begins and ends: one log, functions opened, Triton started, a signal, an exit code."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence

from runtime.errors import InputError, ToolchainError
from serving.arguments import settings_of
from serving.function import Function, StreamFunction
from serving.log import JsonLog
from serving.tensors import Tensors

Served = Function | StreamFunction | Tensors
# Opens what is to be served; what the functions do not close themselves is closed by the stack.
Opening = Callable[[contextlib.ExitStack, JsonLog], Sequence[Served]]


def run(opening: Opening, args: argparse.Namespace, make: str = "make serve", extra: str = "serving") -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code. What goes wrong before that is one line on stderr.

    `args` are those of `serving.arguments`. `make` and `extra` (of the package) are advised where PyTriton is missing.
    """
    try:
        return _served(opening, args, f"`{make}` makes it, or pip install 'cat2dog[{extra}]' in a fresh one")
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _served(opening: Opening, args: argparse.Namespace, advice: str) -> int:
    try:
        from serving.host import Host, one_log, stopped_by_signals
    except ImportError as error:
        raise InputError(f"serving needs PyTriton, in an environment of its own ({error}): {advice}") from error
    settings, log = settings_of(args), JsonLog()
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_log(log))
        host = Host(opening(stack, log), settings, log)
        stack.callback(host.close)
        stack.enter_context(stopped_by_signals(host))
        host.start()
        return host.wait()
