"""How long and how dear a million pictures are on so many GPUs: arithmetic on measured times and named assumptions.

Service times, codecs, plans and builds are read from `bench/results`; what is not measured there is an `Assumed`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet.on_ray import block_size

RESULTS = Path("bench/results")


@dataclass(frozen=True)
class Assumed:
    """What no result file says; seconds, US dollars, bits a second, requests a second.

    `puts` and `gets` are what AWS documents for one prefix of S3; `store_bits` is one server's 100 Gbit/s link.
    """

    gpu_hour: float = 3.00
    boot: float = 60.0
    load: float = 10.0
    nic_bits: float = 25e9
    store_bits: float = 100e9
    puts: float = 3500.0
    gets: float = 5500.0


@dataclass(frozen=True)
class Measured:
    """Of one checkpoint on one GPU: milliseconds a picture, of a core's codecs for one, plan bytes, build seconds.

    `photo_ms` is a camera's photo decoded and fitted and a dog encoded; `small_ms` the same where the picture has the
    network's size. `tasks` is how many tasks a second Ray Data's driver was seen to give out.
    """

    checkpoint: str
    gpu: str
    gpu_ms: float
    photo_ms: float
    small_ms: float
    cores: int
    plan_bytes: int
    build_seconds: float
    tasks: float


def measured(checkpoint: str, results: Path = RESULTS) -> Measured:
    """Read the result files. Raises KeyError or FileNotFoundError where one does not say what is needed."""
    resolution = int(checkpoint.rpartition("-")[2])
    engines = _json(results / "engines" / f"{checkpoint}_linear_h200.json")
    engine = engines["engines"][0]
    codecs = _json(results / "codecs" / "codecs_cpu.json")["codecs"]

    def codec(step: str, library: str) -> float:
        found = (row for row in codecs if (row["step"], row["pixels"], row["library"]) == (step, resolution, library))
        return float(next(found)["ms"]["median"])

    encode = codec("encode png", "runtime")
    return Measured(
        checkpoint=checkpoint,
        gpu=engines["machine"]["gpu"],
        gpu_ms=engine["ms"]["median"],
        photo_ms=codec("decode and fit", "runtime") + encode,
        small_ms=codec("decode jpeg", "simplejpeg") + encode,
        cores=engines["machine"]["cores"],
        plan_bytes=engine["bytes"],
        build_seconds=engine["build_seconds"],
        tasks=_json(results / "fleet" / "ray_cpu.json")["tasks_per_second"],
    )


@dataclass(frozen=True)
class Case:
    """`pictures` on `gpus` of one type; `cold`: nobody has built the engine; `prefixes` of the object store."""

    gpus: int
    pictures: int = 1_000_000
    photos: bool = False
    cold: bool = True
    prefixes: int = 1


@dataclass(frozen=True)
class Estimate:
    """Seconds until the last picture, dollars, what holds it up, and the plan traffic in bytes."""

    seconds: float
    dollars: float
    limit: str
    store_bytes: float


def picture_seconds(case: Case, facts: Measured) -> tuple[float, str]:
    """Of one GPU with its cores, codecs beside the network: seconds a picture, and which of them it waits for."""
    codec = (facts.photo_ms if case.photos else facts.small_ms) / facts.cores
    return max(facts.gpu_ms, codec) / 1000, "codecs" if codec > facts.gpu_ms else "GPUs"


def fetch_seconds(facts: Measured, assumed: Assumed) -> float:
    """Of one plan, when nobody else fetches."""
    return 8 * facts.plan_bytes / min(assumed.nic_bits, assumed.store_bits)


def shared_rates(case: Case, facts: Measured, assumed: Assumed) -> dict[str, float]:
    """Pictures a second that everything shared lets through, by its name."""
    return {
        "S3 PUTs of a prefix": assumed.puts * case.prefixes,
        "S3 GETs of a prefix": assumed.gets * case.prefixes,
        "Ray's driver": facts.tasks * block_size(case.pictures, case.gpus, gpu=True),
    }


def estimate(case: Case, facts: Measured, assumed: Assumed) -> Estimate:
    """Machines boot together, one builds, plans go out one after the other at the store's rate, all draw.

    With the first machine ready at t0 and the last F later, W seconds of one GPU's work on N GPUs end at
    t0 + F/2 + W/N, or, if that is before the last is ready, at t0 + sqrt(2 F W / N); a shared rate r bounds it by
    t0 + pictures / r.
    """
    each, slower = picture_seconds(case, facts)
    first = assumed.boot + (facts.build_seconds if case.cold else 0.0) + fetch_seconds(facts, assumed) + assumed.load
    spread = max(0.0, 8 * facts.plan_bytes * case.gpus / assumed.store_bits - fetch_seconds(facts, assumed))
    busy = case.pictures * each / case.gpus
    work = spread / 2 + busy if busy >= spread / 2 else math.sqrt(2 * spread * busy)
    rates = shared_rates(case, facts, assumed)
    slowest = min(rates, key=lambda name: rates[name])
    shared = case.pictures / rates[slowest]
    seconds = first + max(work, shared)
    parts = {"start and build": first, slowest: shared, slower: busy, "plans to the machines": work - busy}
    if shared > work:
        parts = {"start and build": first, slowest: shared}
    limit = max(parts, key=lambda name: parts[name])
    return Estimate(seconds, case.gpus * seconds / 3600 * assumed.gpu_hour, limit, float(case.gpus * facts.plan_bytes))


def breaking_points(case: Case, facts: Measured, assumed: Assumed) -> dict[str, int]:
    """How many GPUs saturate each thing that is shared, fewest first: beyond, more GPUs draw nothing more."""
    each, _ = picture_seconds(case, facts)
    # Of a backlog so long that its tasks are as large as they get.
    endless = replace(case, pictures=1 << 40)
    points = {name: max(1, math.floor(rate * each)) for name, rate in shared_rates(endless, facts, assumed).items()}
    return dict(sorted(points.items(), key=lambda point: point[1]))


def cores_per_gpu(facts: Measured, photos: bool) -> int:
    """Cores that decode and encode as fast as one GPU draws."""
    return math.ceil((facts.photo_ms if photos else facts.small_ms) / facts.gpu_ms)


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
