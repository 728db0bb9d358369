"""Stamps of linear kernels: what is made of them, and that kernels with and without them are the same otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from bench import timeline
from engines.kernels import tune_block
from engines.kernels.images import why_not
from engines.kernels.linear_plan import linear_plan
from engines.kernels.linear_variants import LinearVariant
from tests.engines.kernels.test_tune_block import block

CLOCKS_A_NS = 2


def stamps(begun_ns, asked, waited, first, multiplied, ended):
    """Stamps of thread blocks that begin at these times; phases in nanoseconds from there."""
    begun = np.asarray(begun_ns, np.int64)
    marks = [CLOCKS_A_NS * (begun + ns) - 77 for ns in (0, asked, waited, first, multiplied, ended)]
    return np.stack([*marks, begun, begun + ended], -1)


def test_phases_and_gaps():
    # Two layers of two transformer blocks; thread blocks of the second layer begin when the first has ended, or before.
    first = [stamps([at, at], 500, 600, 1000, 3000, 4000) for at in (0, 10_000)]
    second = [stamps([at + 3500, at + 4200], 1000, 800, 2000, 5000, 5500) for at in (0, 10_000)]
    told = timeline.phases({"up": first, "down": second})
    assert told["down"]["us"] == {
        "ask for weights": 1.0,
        "begin to first tile": 2.0,
        "kernel before ended to first tile": 1.2,
        "multiply": 3.0,
        "finish": 0.5,
    }
    assert told["down"]["late"] == 0.5 and told["down"]["thread_blocks"] == 2
    # First tiles at 15.5 and 16.2 us, the layer before ended at 14.
    assert told["down"]["gap_us"] == 1.85
    # Before the first layer stands the last one of the block before: it ended at 9.7, this has its first tile at 11.
    assert told["up"]["gap_us"] == 1.3 and told["up"]["late"] == 1.0
    assert timeline.clock({"up": first, "down": second}) == CLOCKS_A_NS


def test_words_are_read_as_64_bits():
    words = np.arange(2 * 8, dtype=np.int64).reshape(2, 8) << 33
    assert (timeline._stamps(words.view(np.int32).reshape(2, 16)) == words).all()


@pytest.mark.skipif(bool(why_not("nvrtc")), reason=f"compiles kernels: {why_not('nvrtc')}")
def test_stamps_are_one_more_output(monkeypatch, tmp_path):
    monkeypatch.setenv("CAT2DOG_KERNELS", str(tmp_path))
    problem, variant = block().down, LinearVariant(1, 1, 64, 4)
    plain, stamped = (linear_plan(problem, variant, "9.0", each) for each in (False, True))
    assert stamped.outputs[:-1] == plain.outputs
    assert stamped.outputs[-1].shape == (plain.launches[0].grid[0], 16) and stamped.outputs[-1].dtype == "i32"
    assert stamped.launches[0].arguments[:-1] == plain.launches[0].arguments
    assert stamped.images != plain.images


def test_a_row_of_blocks_has_stamps_by_name():
    given = block()
    from tests.engines.linear_stand_ins import LinearStandIn

    plans = {name: LinearStandIn()(problem).plan for name, problem in given.linear.items()}
    wider = {
        name: plan.__class__(plan.target, plan.inputs, (*plan.outputs, plan.outputs[0]), plan.launches, plan.images)
        for name, plan in plans.items()
    }
    row = tune_block.BlocksInRow(given, 1)
    for plain, other in zip(row.chain(plans).nodes, row.chain(wider).nodes, strict=True):
        layer = plain.name.partition(".")[2]
        more = (f"{plain.name}.{tune_block.STAMPED}",) if layer in given.linear else ()
        assert other.outputs == plain.outputs + more and other.inputs == plain.inputs


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert timeline.main(["--model", "9q-1", "--output", str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert timeline.main(["--model", "500m-256", "--batch", "0", "--output", str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err == "error: batch 0 is not between 1 and 1024\n"
    assert not (tmp_path / "x.json").exists()
