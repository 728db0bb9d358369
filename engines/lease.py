"""Who of many machines builds: a lease in a shared place, taken by an exclusive create, lost by silence.

No clock is compared with another machine's: the holder renews a counter, and whoever waits takes over when the lease
has not changed for `seconds` of the waiter's own clock. A lease's generations are files `NAME/00000001.json`; only the
newest counts, and taking over is creating the next, which a store gives to one caller alone. Two holders at once are
possible (one that was cut off, and its successor): what is done under a lease must be harmless when done twice.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from types import TracebackType

from runtime.errors import ToolchainError
from runtime.place import Place

_MOST_BYTES = 1 << 16
# Who waits asks so much less often each time, down to one in so many times the first interval.
SLOWER = 1.5
SLOWEST = 8


@dataclass(frozen=True)
class Holding:
    """What a generation's file says: who, renewed how often, and how it ended ("" while it is held)."""

    owner: str
    token: str
    count: int = 0
    ended: str = ""


class Lease:
    """One machine's view of the lease `name`; `look` and `take` until that gives True, then work in a `with` block."""

    def __init__(self, place: Place, name: str, owner: str, seconds: float):
        self._place = place
        self._name = name
        self._seconds = seconds
        self._mine = Holding(owner, secrets.token_hex(8))
        self._generation = 0
        self._seen: tuple[int, Holding] | None = None
        self._since = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    def look(self) -> None:
        """See who holds it now. Raises ToolchainError for a faulty place."""
        newest = self._newest()
        if newest != self._seen:
            self._seen, self._since = newest, time.monotonic()

    def take(self) -> bool:
        """Take the lease if, at the last look, it was free, had ended, or had been silent for long enough."""
        seen = self._seen
        if seen and not seen[1].ended and time.monotonic() - self._since < self._seconds:
            return False
        generation = seen[0] + 1 if seen else 1
        if not self._place.create(self._file(generation), _text(self._mine)):
            return False
        self._generation = generation
        return True

    def holder(self) -> str:
        """Who was seen to hold it; "" before anybody was."""
        return self._seen[1].owner if self._seen else ""

    def ended(self) -> str:
        """How the newest holding that was seen ended; "" while it is held."""
        return self._seen[1].ended if self._seen else ""

    def __enter__(self) -> Lease:
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        if not self.lost:
            # Kept, not deleted: generations only rise, so that nobody takes one that another is passing over.
            ended = "done" if error is None else f"failed: {' '.join(str(error).split())[:500] or type(error).__name__}"
            self._mine = replace(self._mine, ended=ended)
            self._place.write(self._file(self._generation), _text(self._mine))
            for old in range(max(1, self._generation - 3), self._generation):
                self._place.delete(self._file(old))

    def _renew(self) -> None:
        while not self._stop.wait(self._seconds / 4):
            try:
                newest = self._newest()
                if newest and newest[0] > self._generation:
                    self.lost = True
                    return
                self._mine = replace(self._mine, count=self._mine.count + 1)
                self._place.write(self._file(self._generation), _text(self._mine))
            except ToolchainError:
                continue  # an outage of the store; when it lasts, another takes over, which the next look finds

    def _newest(self) -> tuple[int, Holding] | None:
        names = [each.name.rpartition("/")[2] for each in self._place.entries(self._name)]
        numbers = sorted(
            (int(name[:8]) for name in names if name.endswith(".json") and name[:8].isdigit()), reverse=True
        )
        if not numbers:
            return None
        try:
            return numbers[0], _holding(self._place.read(self._file(numbers[0]), _MOST_BYTES))
        except FileNotFoundError:
            return numbers[0], Holding("", "", ended="gone")

    def _file(self, generation: int) -> str:
        return f"{self._name}/{generation:08d}.json"


def wait_for(lease: Lease, ready: Callable[[], bool], poll: float, waiting: Callable[[str], None]) -> bool:
    """True when the lease was taken, False when `ready` was; asks both every `poll` seconds, and ever less often.

    Ten thousand machines that ask every two seconds would be more than one prefix of S3 answers.
    Raises ToolchainError where a holder that was waited for failed: what failed there fails here, too.
    """
    held = False
    longest = poll * SLOWEST
    while True:
        if ready():
            return False
        lease.look()
        if held and lease.ended().startswith("failed"):
            raise ToolchainError(f"{lease.holder()}, which was waited for, {lease.ended()}")
        if lease.take():
            return not ready() or _give_up(lease)
        held = held or not lease.ended()
        waiting(lease.holder())
        time.sleep(poll * random.uniform(0.5, 1.5))  # not all at once
        poll = min(poll * SLOWER, longest)


def _give_up(lease: Lease) -> bool:
    with lease:
        return False


def _text(holding: Holding) -> bytes:
    return json.dumps(asdict(holding)).encode()


def _holding(data: bytes) -> Holding:
    try:
        return Holding(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise ToolchainError(f"a lease is damaged ({error}): delete it, and the next builder makes another") from error
