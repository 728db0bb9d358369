"""What a person sees: progress on a terminal (and only there), tables, JSON."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Update = Callable[[str, "float | None"], None]


@contextlib.contextmanager
def progress(title: str) -> Iterator[Update]:
    """Show long work on stderr: `update(what, fraction)`, a spinner where the fraction is None, and the elapsed time.

    Where stderr is no terminal, nothing is shown.
    """
    if not sys.stderr.isatty():
        yield lambda what, fraction: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)

        def update(what: str, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            bars.update(task, description=f"{title}: {what}"[:90], total=total, completed=fraction or 0.0)

        yield update


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout; numbers to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title), title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(text(cell)) for cell in row))  # a file name is no markup
    # A pipe or file has no width; 80 columns would fold paths that others want to read.
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)


def text(cell: Any) -> str:
    """A table cell: floats to two places, None as a dash."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return "inf" if math.isinf(cell) and cell > 0 else f"{cell:.2f}"
    return str(cell)


def print_json(value: Any) -> None:
    """Print JSON on stdout; infinite scores as the text "inf"."""
    print(json_text(value))


def json_text(value: Any) -> str:
    """As `print_json` prints it."""
    return json.dumps(_plain(value), indent=2)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    @property
    def ms(self) -> float:
        """Elapsed milliseconds."""
        return (time.perf_counter() - self.began) * 1000
