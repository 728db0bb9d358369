"""The search finds the fewest islands, on landscapes made by hand and on a real network with a planted fault."""

from __future__ import annotations

import math

import onnx_ir as ir
import pytest

from accuracy.search import search
from accuracy.time_share import FP32_FACTOR, relative_time, time_shares
from accuracy.trials import Trials
from engines.lowering import load
from engines.validation import Validation
from export.families import Family
from export.policy import Island, policy_for
from tests.accuracy import plants

pytestmark = pytest.mark.xdist_group("accuracy")

BLOCKS = tuple(f"net.{n}.norm" for n in range(8))
FAMILIES = [
    Family("in", ("in",), 1),
    Family("net.#.norm", BLOCKS, 8),
    Family("net.#.up", tuple(f"net.{n}.up" for n in range(8)), 16),
    Family("out", ("out",), 1),
]


class Landscape:
    """Errors of modules that add up in squares; a score in dB. Counts how often it is asked."""

    def __init__(self, errors: dict[str, float]):
        self.errors, self.asked = errors, []

    def __call__(self, islands):
        self.asked.append(frozenset(island.module for island in islands))
        left = sum(
            error for module, error in self.errors.items()
            if not any(island.holds(module, "Mul", "", False) for island in islands)
        )  # fmt: skip
        return -10 * math.log10(left + 1e-9)


def modules(found):
    return [island.module for island in found.islands]


def spread(**errors):
    return {member: errors.get(f.pattern.rsplit(".")[-1], 1e-9) for f in FAMILIES for member in f.members}


def run(landscape, wished):
    return search(FAMILIES, landscape, wished, lambda what, fraction: None)


def test_the_worst_are_kept_and_no_more():
    landscape = Landscape(spread(norm=1e-4, up=1e-5, out=3e-4))
    found = run(landscape, 35.0)
    assert found.reached and modules(found) == ["net.#.norm", "out"] and found.score >= 35
    assert next(iter(found.alone)) == "net.#.norm" and found.alone["in"] > found.alone["out"]
    assert [step.what for step in found.steps][:4] == [
        "no islands", "every module an island", "with net.#.norm", "with out",
    ]  # fmt: skip
    assert len(landscape.asked) == len(set(landscape.asked)), "a set of islands was measured twice"
    reasons = {island.module: float(island.why.split()[1]) for island in found.islands}
    assert all(reason < 35 for reason in reasons.values())


def test_what_a_later_one_makes_needless_is_taken_away():
    """`in` is the worst alone; with `out` an island it does no harm."""

    def score(islands):
        held = {island.module for island in islands}
        if "out" in held:
            return 50.0
        return 20.0 + 5 * ("in" in held) + 0.1 * len(held)

    def alone(islands):
        held = {island.module for island in islands}
        return 10.0 if len(held) == 3 and "in" not in held else 20.0 if len(held) == 3 and "out" not in held else None

    found = search(FAMILIES, lambda i: score(i) if (a := alone(i)) is None else a, 45.0, lambda what, fraction: None)
    assert modules(found) == ["out"]
    assert "without in" in [step.what for step in found.steps]


def test_only_the_blocks_that_need_it():
    errors = spread()
    errors["net.5.norm"] = 1e-2
    found = run(Landscape(errors), 60.0)
    assert found.reached and modules(found) == ["net.5.norm"]
    spread_out = {**spread(), "net.1.norm": 1e-2, "net.6.norm": 1e-2}
    assert modules(run(Landscape(spread_out), 60.0)) == ["net.#.norm"]


def test_nothing_needed_and_nothing_enough():
    landscape = Landscape(spread(norm=1e-4))
    assert run(landscape, 20.0).islands == () and len(landscape.asked) == 1
    found = run(Landscape({**spread(norm=1e-4), "elsewhere": 1e-2}), 30.0)
    assert not found.reached and len(found.islands) == 4 and found.score == pytest.approx(20, abs=0.01)


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    feed = plants.recipe().validation(1)
    judged = Validation(feed, plants.recipe().reference(feed), "psnr", 30.0, "PyTorch")
    folder = tmp_path_factory.mktemp("trials")
    with Trials(plants.recipe(), "fp16", "decomposed", "auto", judged, folder, 17) as trials:
        yield trials
    assert list(folder.iterdir()) == []


def test_a_trial_scores_as_the_exported_graph_does(trials):
    from accuracy.candidates import lowered
    from engines.proxy import rounded
    from engines.validation import answers
    from runtime.judge import scores
    from runtime.onnxruntime_runner import OnnxRuntimeRunner

    (score,) = trials.scores(policy_for("fp16").islands)
    with rounded(lowered(plants.neutral("fp16"), "decomposed")) as path, OnnxRuntimeRunner(path) as runner:
        (exported,) = scores("psnr", answers(runner, trials.validation, 1), trials.validation.expected)
    assert score == pytest.approx(exported, abs=0.5)
    (everything,) = trials.scores([family.island("") for family in trials.families])
    assert everything > score + 10
    assert trials.overflow(()) is None


def test_families_are_the_modules_that_compute(trials):
    found = {family.pattern: family for family in trials.families}
    assert found["network.blocks.#.norm1"].members == tuple(f"network.blocks.{n}.norm1" for n in range(4))
    assert {"pixels_in", "pixels_out", "network.rope", "network.blocks.#", "network.blocks.#.attention"} <= set(found)
    assert all(family.nodes > 0 for family in found.values())


def test_what_islands_hold_and_what_that_costs(trials):
    held = trials.held([Island("", module="network.blocks.#.mlp.up")])
    assert held == {f"network.blocks.{n}.mlp.up/{op}" for n in range(4) for op in ("MatMul", "Add")}
    shares = time_shares(trials.fp32(), trials.validation.feed)
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0
    names = {str(node.name) for node in load(trials.fp32()).graph}
    assert set(shares) <= names and held <= set(shares)
    assert relative_time((), shares) == 1.0
    assert relative_time(held, shares) == pytest.approx(1 + (FP32_FACTOR - 1) * sum(shares[name] for name in held))
    attention = trials.held([Island("", module="network.blocks.1.attention")])
    inside = [share for name, share in shares.items() if name.startswith("network.blocks.1.attention/Attention.")]
    assert len(inside) >= 4 and relative_time(attention, shares) == pytest.approx(1 + sum(inside))
    everything = relative_time(trials.held([family.island("") for family in trials.families]), shares)
    assert max(relative_time(held, shares), relative_time(attention, shares)) < everything <= 2


def larger_values(model: ir.Model) -> None:
    """The values of block 2's attention 3e4 times as large, and what reads them as much smaller: the same network."""
    for name, factor in (("qkv.weight.t", 3e4), ("qkv.bias", 3e4), ("out.weight.t", 1 / 3e4)):
        value = model.graph.initializers[f"network.blocks.2.attention.{name}"]
        array = value.const_value.numpy().copy()
        array[..., -64:] *= factor  # V is the last third of 192 columns; `out` has 64
        value.const_value = ir.Tensor(array, name=value.name)


def test_a_planted_overflow_becomes_an_island(trials, monkeypatch):
    """Values in one block no longer fit FP16: the search keeps what makes, weighs and reads them, and nothing else."""

    def changed(path):
        model = load(path)
        larger_values(model)
        return model

    monkeypatch.setattr("accuracy.trials.load", changed)
    overflow = trials.overflow(())
    assert overflow.node.startswith("network.blocks.2.attention.qkv/") and 65504 < overflow.magnitude < 1e7
    (without,) = trials.scores(())
    assert without < 20
    found = search(trials.families, lambda islands: min(trials.scores(islands)), 40.0, lambda what, fraction: None)
    assert found.reached and trials.overflow(found.islands) is None
    assert {island.module.split(".", 3)[-1] for island in found.islands} == {
        "attention.qkv",
        "attention",
        "attention.out",
    }
