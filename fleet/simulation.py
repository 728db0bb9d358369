"""The same fleet event by event, in SimPy: every machine boots, asks the store, waits or builds, fetches and draws."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from engines.lease import SLOWER, SLOWEST
from engines.shared_build import POLL_SECONDS
from fleet.capacity import Assumed, Case, Measured, fetch_seconds, picture_seconds, shared_rates
from fleet.on_ray import block_size

_REQUESTS_A_POLL = 3  # the manifest, the list of the lease's generations, the newest of them


@dataclass(frozen=True)
class Simulated:
    """Seconds until the last picture, pictures drawn, builds, most requests of waiting machines in one second."""

    seconds: float
    pictures: int
    builds: int
    peak_polls: int


def simulate(case: Case, facts: Measured, assumed: Assumed, seed: int = 1) -> Simulated:
    """Run the fleet until its last picture; services vary by a tenth."""
    return _Fleet(case, facts, assumed, seed).run()


class _Fleet:
    def __init__(self, case: Case, facts: Measured, assumed: Assumed, seed: int):
        self.case, self.facts, self.assumed = case, facts, assumed
        self.chance = random.Random(seed)
        self.clock = simpy.Environment()
        streams = max(1, round(assumed.store_bits / min(assumed.nic_bits, assumed.store_bits)))
        self.store = simpy.Resource(self.clock, streams)
        self.built = not case.cold
        self.building = False
        self.builds = self.drawn = 0
        self.left = case.pictures
        self.block = block_size(case.pictures, case.gpus, gpu=True)
        self.polls: Counter[int] = Counter()
        # Each thing that is shared serves one block after the other: when it is free next.
        self.rates = shared_rates(case, facts, assumed)
        self.free = dict.fromkeys(self.rates, 0.0)
        self.each = picture_seconds(case, facts)[0]
        self.end = 0.0

    def run(self) -> Simulated:
        machines = [self.clock.process(self.machine()) for _ in range(self.case.gpus)]
        self.clock.run(simpy.AllOf(self.clock, machines))
        return Simulated(self.end, self.drawn, self.builds, max(self.polls.values(), default=0))

    def machine(self) -> Generator[Any, Any, None]:
        yield self.clock.timeout(self.about(self.assumed.boot))
        yield from self.engine()
        with self.store.request() as stream:
            yield stream
            if self.left:  # a machine that comes too late has nothing to fetch an engine for
                yield self.clock.timeout(fetch_seconds(self.facts, self.assumed))
        if self.left:
            yield self.clock.timeout(self.assumed.load)
        while self.left:
            block = min(self.block, self.left)
            self.left -= block
            # Reading, giving out and writing go on beside drawing: whatever ends last is waited for.
            shared = max(self.serve(name, block) for name in self.rates)
            yield self.clock.timeout(max(self.about(block * self.each), shared - self.clock.now))
            self.drawn += block
            self.end = self.clock.now

    def engine(self) -> Generator[Any, Any, None]:
        poll = POLL_SECONDS
        while not self.built:
            self.polls[int(self.clock.now)] += _REQUESTS_A_POLL
            if not self.building:
                self.building = True
                self.builds += 1
                yield self.clock.timeout(self.facts.build_seconds)
                self.built = True
                return
            yield self.clock.timeout(poll * self.chance.uniform(0.5, 1.5))
            poll = min(poll * SLOWER, POLL_SECONDS * SLOWEST)

    def serve(self, name: str, pictures: int) -> float:
        self.free[name] = max(self.free[name], self.clock.now) + pictures / self.rates[name]
        return self.free[name]

    def about(self, seconds: float) -> float:
        return seconds * self.chance.uniform(0.9, 1.1)
