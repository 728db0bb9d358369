"""Writes fleet/CAPACITY.md: the arithmetic's tables, each figure from result files, each row simulated.

make test-fleet && .venv-fleet/bin/python -m fleet.capacity_page
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleet.capacity import (
    RESULTS,
    Assumed,
    Case,
    Measured,
    breaking_points,
    cores_per_gpu,
    estimate,
    fetch_seconds,
    measured,
)
from fleet.simulation import simulate
from runtime.files import write_text

PAGE = Path(__file__).with_name("CAPACITY.md")
CHECKPOINTS = ("500m-256", "500m-512", "500m-1024")
GPUS = (1, 10, 100, 1000, 10_000)
_MANY = 1000  # prefixes


def page(results: Path = RESULTS) -> str:
    """The page."""
    facts = {name: measured(name, results) for name in CHECKPOINTS}
    assumed = Assumed()
    return "\n\n".join(
        [
            "# Capacity",
            "Written by `python -m fleet.capacity_page` from `bench/results`; do not edit. The arithmetic is "
            "`fleet/capacity.py`, the simulation that checks it `fleet/simulation.py`.",
            _inputs(facts, assumed),
            _broken(facts, assumed),
            "## A million pictures",
            "Cold: no machine has the engine, so one builds and the others wait. Pictures have the network's size, "
            f"the object store {_MANY} prefixes. \"Plans\" is what the store sends to machines.",
            *(_million(facts[name], assumed) for name in CHECKPOINTS),
            _prefix(facts["500m-256"], assumed),
            _store(facts["500m-256"], assumed),
            _simulated(),
        ]
    ) + "\n"  # fmt: skip


def _inputs(facts: dict[str, Measured], assumed: Assumed) -> str:
    rows = [
        (name, f"{each.gpu_ms:.2f}", f"{each.small_ms:.2f}", f"{each.photo_ms:.0f}",
         f"{cores_per_gpu(each, False)} / {cores_per_gpu(each, True)}", f"{each.plan_bytes / 1e6:.0f}",
         f"{each.build_seconds:.0f}") for name, each in facts.items()
    ]  # fmt: skip
    columns = ("checkpoint", "GPU ms", "core ms", "core ms, photo", "cores a GPU / photos", "plan MB", "build s")
    first = next(iter(facts.values()))
    return (
        f"## Measured\n\n{_table(columns, rows)}\n\nGPU: {first.gpu}, TensorRT, FP16, batch 1, one CUDA graph replay a "
        "picture; one core decodes a JPEG and encodes a PNG (a photo is a camera's, of many megapixels); cores a "
        "GPU are "
        "what keeps up with it. Ray Data's driver gave out "
        f"{first.tasks:.0f} tasks a second on two busy cores.\n\n## Assumed\n\n"
        f"{assumed.gpu_hour:.2f} dollars a GPU-hour, {first.cores} cores beside each GPU, {assumed.boot:.0f} s to "
        f"boot, "
        f"{assumed.load:.0f} s to load an engine, {assumed.nic_bits / 1e9:.0f} Gbit/s a machine, "
        f"{assumed.store_bits / 1e9:.0f} Gbit/s of the store, {assumed.puts:.0f} PUTs and {assumed.gets:.0f} GETs "
        f"a second "
        "and prefix (AWS documents these of S3). Nobody measured these for this project: change `Assumed` and "
        "write the "
        "page again."
    )


def _broken(facts: dict[str, Measured], assumed: Assumed) -> str:
    rows = []
    for name, each in facts.items():
        points = breaking_points(Case(1), each, assumed)
        rows.append((name, *(f"{points[key]}" for key in sorted(points))))
    columns = ("checkpoint", *sorted(breaking_points(Case(1), next(iter(facts.values())), assumed)))
    return (
        "## Where it breaks first\n\nGPUs beyond which more draw nothing more, of one run with one output prefix:\n\n"
        f"{_table(columns, rows)}\n\n"
        "1. **Cores.** Before a second GPU is bought: a camera's photos want more cores than machines have beside "
        "a GPU "
        '(column "cores a GPU / photos" above). Store pictures near the size of the network.\n'
        "2. **PUTs of one prefix.** Dogs of one run go into one folder. Split a backlog into prefixes, with one "
        "`cat2dog run` each; they share nothing but the engine store.\n"
        "3. **The driver.** Its tasks are made larger for GPUs (`fleet.on_ray.block_size`), up to 1024 pictures.\n"
        "4. **Plans to the machines**, from a thousand GPUs on: see the store below."
    )


def _million(facts: Measured, assumed: Assumed) -> str:
    rows = []
    for gpus in GPUS:
        case = Case(gpus, prefixes=_MANY)
        told, simulated = estimate(case, facts, assumed), simulate(case, facts, assumed)
        rows.append(
            (f"{gpus:,}", _time(told.seconds), _time(simulated.seconds), f"{told.dollars:,.2f}", told.limit,
             f"{told.store_bytes / 1e9:,.0f} GB")
        )  # fmt: skip
    return f"### {facts.checkpoint}\n\n" + _table(
        ("GPUs", "until done", "simulated", "dollars", "most of it", "plans"), rows
    )


def _prefix(facts: Measured, assumed: Assumed) -> str:
    rows = []
    for prefixes in (1, 10, 100):
        case = Case(100, pictures=100_000_000, cold=False, prefixes=prefixes)
        told, simulated = estimate(case, facts, assumed), simulate(case, facts, assumed)
        rows.append((prefixes, _time(told.seconds), _time(simulated.seconds), f"{told.dollars / 100:.2f}", told.limit))
    return (
        "### What prefixes are worth\n\nA hundred GPUs, a hundred million pictures of 256 px, engines at hand; "
        "dollars of "
        "a million pictures:\n\n"
        + _table(("prefixes", "until done", "simulated", "dollars a million", "most of it"), rows)
    )


def _store(facts: Measured, assumed: Assumed) -> str:
    rows = []
    for gpus in GPUS:
        simulated = simulate(Case(gpus, prefixes=_MANY), facts, assumed)
        spread = 8 * facts.plan_bytes * gpus / assumed.store_bits
        rows.append((f"{gpus:,}", simulated.builds, f"{simulated.peak_polls:,}", _time(max(spread, 0.001))))
    return (
        "## The engine store at a cold start\n\nOne machine builds for each GPU type and checkpoint; the others "
        "ask every "
        "two seconds, then less often, down to every sixteen. Most requests in one second, and how long the store "
        "is busy "
        "sending plans:\n\n"
        + _table(("GPUs", "builds", "requests a second, most", "busy with plans"), rows)
        + f"\n\nOne plan takes {fetch_seconds(facts, assumed):.1f} s to one machine. Machines that boot within "
        f"seconds of "
        f"each other all ask at once: over {assumed.gets:.0f} requests a second S3 answers 503, which its client "
        f"repeats. "
        "A store near the machines (a cache in each zone, engines in the machines' image) is worth more than any other "
        "change from a thousand machines on. Without a store, each machine would build: ten thousand builds in "
        "place of "
        f"one are {10_000 * facts.build_seconds / 3600 * assumed.gpu_hour:,.0f} dollars of GPU time."
    )


def _simulated() -> str:
    return (
        "## How far to believe it\n\nThe simulation takes the same figures and plays every machine: boots and services "
        "vary by a tenth, blocks are whole, whoever comes too late fetches nothing. A test holds both within 15 % "
        "of each "
        "other over all of the rows above. What neither knows: failures (a killed worker costs its task's pictures "
        "once "
        "more), slow disks, throttled stores, machines that are not to be had, and how an engine does beside a "
        "busy CPU."
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)
