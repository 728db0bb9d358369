"""The capacity page: its figures are those of the result files, and the simulation agrees with its arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.capacity import Assumed, Case, breaking_points, cores_per_gpu, estimate, measured

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results"
ASSUMED = Assumed()


@pytest.fixture(scope="module")
def facts():
    return measured("500m-256", RESULTS)


def test_figures_are_those_of_the_files(facts):
    engine = json.loads((RESULTS / "engines/500m-256_linear_h200.json").read_text())["engines"][0]
    assert (facts.gpu_ms, facts.plan_bytes) == (engine["ms"]["median"], engine["bytes"])


def test_one_gpu_is_its_service_times(facts):
    told = estimate(Case(1, cold=False, prefixes=99), facts, ASSUMED)
    drawing = 1e6 * facts.gpu_ms / 1000
    assert drawing < told.seconds < drawing + 100
    assert told.dollars == pytest.approx(told.seconds / 3600 * ASSUMED.gpu_hour)


def test_photos_wait_for_cores(facts):
    assert estimate(Case(1, photos=True, prefixes=99), facts, ASSUMED).limit == "codecs"
    assert cores_per_gpu(facts, True) > facts.cores
    enough = replace(facts, cores=cores_per_gpu(facts, True))
    assert estimate(Case(1, photos=True, prefixes=99), enough, ASSUMED).limit == "GPUs"


def test_beyond_its_breaking_point_more_gpus_draw_nothing_more(facts):
    name, gpus = next(iter(breaking_points(Case(1), facts, ASSUMED).items()))
    much = Case(gpus * 20, pictures=10**9, cold=False)
    told = estimate(much, facts, ASSUMED)
    assert told.limit == name
    assert estimate(replace(much, gpus=gpus * 40), facts, ASSUMED).seconds > 0.95 * told.seconds


@pytest.mark.parametrize("checkpoint", ["500m-256", "500m-1024"])
@pytest.mark.parametrize("gpus", [1, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("prefixes", [1, 1000])
def test_the_simulation_agrees(checkpoint, gpus, cold, prefixes):
    pytest.importorskip("simpy", reason="the package 'simpy' is not installed: make test-fleet")
    from fleet.simulation import simulate

    facts = measured(checkpoint, RESULTS)
    case = Case(gpus, cold=cold, prefixes=prefixes, photos=gpus == 100)
    told, simulated = estimate(case, facts, ASSUMED), simulate(case, facts, ASSUMED)
    assert simulated.pictures == case.pictures
    assert simulated.builds == int(cold)
    assert simulated.seconds == pytest.approx(told.seconds, rel=0.15)


def test_the_page_is_what_its_command_writes():
    pytest.importorskip("simpy", reason="the package 'simpy' is not installed: make test-fleet")
    from fleet.capacity_page import PAGE, page

    assert PAGE.read_text() == page(RESULTS), "python -m fleet.capacity_page writes it again"
