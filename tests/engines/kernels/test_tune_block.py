"""A block's layers are chosen together: the chain is wired as the network is, and the search takes what it measures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.kernels import tune_block as module
from engines.kernels.driver import bind
from engines.kernels.launch import Image, Launch, LaunchPlan, Pointer, Tensor
from engines.kernels.linear_problem import LinearProblem, Turning
from engines.kernels.linear_variants import block_candidates
from engines.kernels.sizes import evaluate
from engines.kernels.tables import InBlock, Timing
from engines.kernels.tune_block import Block, tune_block
from runtime.errors import ToolchainError
from tests.engines.linear_stand_ins import LinearStandIn
from tests.engines.stand_ins import CUBIN

TOKENS, WIDTH = 64, 128
ATTENTION = LaunchPlan(
    "9.0",
    (Tensor("fp16", (1, TOKENS, 3 * WIDTH)),),
    (Tensor("fp16", (1, TOKENS, WIDTH)),),
    (Launch(0, "attention", (1, 1, 1), 128, 0, (Pointer("input"), Pointer("output"))),),
    (Image(CUBIN),),
)


def block(norm="layer", activation="gelu"):
    normed = {"norm": norm, "epsilon": 1e-6} if norm else {}
    stream = {"residual": "sample", "statistics": bool(norm)}
    hidden = 4 * WIDTH
    return Block(
        LinearProblem("fp16", TOKENS, WIDTH, 3 * WIDTH, turning=Turning(2, 64, 1e-6, True), **normed),
        LinearProblem("fp16", TOKENS, WIDTH, WIDTH, **stream),
        LinearProblem(
            "fp16", TOKENS, WIDTH, hidden * (2 if activation == "swiglu" else 1), activation=activation, **normed
        ),
        LinearProblem("fp16", TOKENS, hidden, WIDTH, **stream),
        ATTENTION,
    )


@pytest.mark.parametrize(("norm", "activation"), [("layer", "gelu"), ("rms", "swiglu"), (None, "gelu_tanh")])
def test_the_chain_is_wired_as_a_network(norm, activation):
    given = block(norm, activation)
    stand_in = LinearStandIn()
    plans = {name: stand_in(problem).plan for name, problem in given.linear.items()}
    chain = module.BlocksInRow(given, 1).chain(plans)
    assert chain.launches == 5 * module.BLOCKS
    shapes = {name: array.shape for name, array in chain.constants.items()}
    for node in chain.nodes:
        names = bind(node.plan, [shapes[name] for name in node.inputs])  # raises where a shape does not fit
        for name, tensor in zip(node.outputs, node.plan.outputs, strict=True):
            assert name not in shapes
            shapes[name] = tuple(evaluate(size, names) for size in tensor.shape)
    second = {node.name: node for node in chain.nodes if node.name.startswith("1.")}
    assert second["1.qkv"].inputs[0] == "0.down.y"
    assert second["1.attention"].inputs == ("1.qkv.y",)
    assert second["1.projection"].inputs[-1] == "0.down.y"
    assert second["1.down"].inputs[0] == "1.up.y"
    assert second["1.down"].inputs[-1] == "1.projection.y"
    if norm:
        assert second["1.qkv"].inputs[2] == "0.down.statistics.y"
        assert second["1.up"].inputs[2] == "1.projection.statistics.y"
    weights = [name for name in chain.constants if name.endswith("down.weights")]
    assert len(weights) == module.BLOCKS
    assert (chain.constants[weights[0]] != chain.constants[weights[1]]).any()


@pytest.fixture
def made_up(monkeypatch):
    """Times by the sum of what each layer's variant costs among the others; no GPU, no compiler."""
    costs = {}

    def plan(problem, variant, target):
        # The variant is told by the number of threads that its launch claims.
        plan = LinearStandIn()(problem).plan
        key = len(costs)
        costs[key] = (problem, variant)
        return replace(plan, launches=(replace(plan.launches[0], block=key),))

    class Chain:
        def __init__(self, chain, batch, constants=None):
            self.chain = chain

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            return None

        def prepared(self):
            return None

        def milliseconds(self, work, repeats, warm_up=20):
            nodes = [node for node in self.chain.nodes if "attention" not in node.name]
            picked = [costs[node.plan.launches[0].block] for node in nodes]
            us = sum(self.cost(variant) for _, variant in picked)
            return [us / 1e3 * (1 + 0.001 * (number % 3)) for number in range(repeats)]

        @staticmethod
        def cost(variant):
            return 10 + variant.block_n / 64 + variant.stages

    monkeypatch.setattr(module, "linear_plan", plan)
    monkeypatch.setattr(module, "ChainOnGpu", Chain)
    monkeypatch.setattr(module, "_alone", lambda problem, variant, plan: Timing(variant, 1.0, 1.0, 1.0, ("00",), 1e-4))
    return Chain.cost


def test_the_fastest_in_the_block_is_taken(made_up):
    cost = made_up
    given = block()
    before = {name: max(block_candidates(problem, "9.0", 132), key=cost) for name, problem in given.linear.items()}
    seen = []
    chosen = tune_block(given, before, "9.0", 132, lambda what, fraction: seen.append(what))
    assert list(chosen) == ["qkv", "projection", "up", "down"]
    for name, problem in given.linear.items():
        least = min(map(cost, block_candidates(problem, "9.0", 132)))
        assert cost(chosen[name].timing.variant) == least
        assert isinstance(chosen[name], InBlock)
    total = sum(cost(one.timing.variant) for one in chosen.values())
    assert chosen["qkv"].block == pytest.approx((total * 1.001, total, total * 1.002), rel=1e-3)
    assert any("64 tokens, down" in what for what in seen)


def test_noise_changes_nothing(made_up, monkeypatch):
    given = block()
    before = {name: block_candidates(problem, "9.0", 132)[-1] for name, problem in given.linear.items()}
    monkeypatch.setattr(module.ChainOnGpu, "cost", staticmethod(lambda variant: 10 - 1e-3 * variant.stages))
    chosen = tune_block(given, before, "9.0", 132)
    assert {name: one.timing.variant for name, one in chosen.items()} == before


def test_a_wrong_kernel_is_not_filed(monkeypatch):
    class Measured:
        def __init__(self, problem, plan, batch):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            return None

        def answers(self, plan):
            return []

        def error(self, answers):
            return 0.5

    monkeypatch.setattr(module, "MeasuredLinear", Measured)
    given = block()
    variant = block_candidates(given.up, "9.0", 132)[0]
    with pytest.raises(ToolchainError, match=r"wrong in a block: relative error 0\.5"):
        module._alone(given.up, variant, LinearStandIn()(given.up).plan)
