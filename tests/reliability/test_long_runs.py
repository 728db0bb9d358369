"""Many inferences and loads, in short: memory flat, answers equal to the bit."""

from __future__ import annotations

from soak.long_runs import run


def test_many_inferences_and_loads(tmp_path):
    counts = run(tmp_path, 240, 8)
    inferences = counts["inferences"]
    assert inferences["equal"] >= 240 and inferences["refused"] and inferences["interrupted"]
    assert counts["loads"]["loaded"] == 8
