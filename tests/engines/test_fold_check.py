"""A fold that computes something else is found while the graph is lowered, and told with numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines import fold, fused_attention
from engines.batch import BatchProfile
from engines.fold_check import FoldChecks
from engines.fold_layout import Layout
from engines.kernels.problem import AttentionProblem
from engines.lowering import lower
from runtime.errors import ToolchainError
from tests.engines.stand_ins import StandInPlanner
from tests.export.micro import micro_export

NODE = r"network\.blocks\.0\.attention/Attention"
WRONG = r" of the fused attention node are \S+ at \(0, \d, \d+, \d+\) where the graph has \S+, expected within \S+: "


def _wrong(room, name, change):
    """`room.name`, with what it finds changed."""
    real = getattr(room, name)

    def found(*arguments):
        return change(real(*arguments))

    return room, name, found


FAULTS = {
    "sines the other way": (*_wrong(fold, "match_rope", lambda rope: rope and replace(rope, sin=-rope.sin)), "queries"),
    "another epsilon": (*_wrong(fold, "match_norm", lambda norm: norm and replace(norm, epsilon=1e-5)), "queries"),
    "other gains": (*_wrong(fold, "match_norm", lambda norm: norm and replace(norm, gain=norm.gain[::-1])), "queries"),
    "keys and values swapped": (
        *_wrong(
            fused_attention,
            "find_layout",
            lambda layout: Layout("tokens", tuple(_thirds(layout)[index] for index in (0, 2, 1))),
        ),
        "keys",
    ),
}


def _thirds(layout):
    split = next(iter(layout.operands[0].value.uses())).node
    return [replace(layout.operands[0], value=output) for output in split.outputs]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_fold_is_found(fault, precision, monkeypatch):
    room, name, found, part = FAULTS[fault]
    monkeypatch.setattr(room, name, found)
    with pytest.raises(ToolchainError, match=rf"^{NODE}: the {part}{WRONG}build with --attention decomposed, and"):
        lower(micro_export(precision).path, "plugin", BatchProfile(1, 1, 1), StandInPlanner())


def test_a_wrong_output_is_found(monkeypatch):
    real = fused_attention.find_output
    monkeypatch.setattr(fused_attention, "find_output", lambda node: (real(node)[0], False))
    with pytest.raises(ToolchainError, match=rf"^{NODE}: the output of the fused attention node "):
        lower(micro_export("fp16").path, "plugin", BatchProfile(1, 1, 1), StandInPlanner())


def test_one_of_each_problem_is_checked_and_others_within_the_budget():
    problem = AttentionProblem("fp16", 2, 32, 10, 10, 0.1)  # 3 * 10 * 64 numbers
    checks = FoldChecks(2 * 1920)
    assert [checks.wanted(problem) for _ in range(4)] == [True, True, False, False]
    assert checks.wanted(replace(problem, scale=0.2)) and not checks.wanted(problem)
    large = FoldChecks()
    layers = replace(problem, heads=20, head_size=64, queries=4096, keys=4096)
    assert sum(large.wanted(layers) for _ in range(25)) == 2
    small = FoldChecks()
    layers = replace(problem, heads=18, head_size=128, queries=256, keys=256)
    assert all(small.wanted(layers) for _ in range(18))
