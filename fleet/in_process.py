"""One station in this process: what `cat2dog run` does without Ray, with the same account of what is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from fleet.station import Result, Station, told
from runtime.place import Place
from runtime.runner import ImageRunner


@contextlib.contextmanager
def in_process(
    opening: Callable[[], ImageRunner], source: Place, output: Place
) -> Iterator[Callable[[Sequence[tuple[str, str]], int | None], Iterator[Result]]]:
    """What `fleet.drive` drives, with its runner open inside the `with` block."""
    station = Station(opening, source, output)

    def execute(pairs: Sequence[tuple[str, str]], company: int | None) -> Iterator[Result]:
        yield from told(station.work(pairs))

    try:
        yield execute
    finally:
        station.close()
