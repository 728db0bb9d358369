"""What is said of times taken in rounds."""

from __future__ import annotations

import pytest

from bench.timing import agree, summary, timing, wall_ms


def test_rounds():
    assert timing([[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], []]) == {
        "median": 2.0, "p95": 9.0, "least": 1.0, "most": 9.0, "low": 1.0, "high": 2.0, "spread": 1.0, "count": 6,
        "rounds": 2,
    }  # fmt: skip
    assert timing([[0.123456789]])["median"] == 0.12346


def test_no_times():
    with pytest.raises(ValueError, match="no times were taken"):
        timing([[], []])


@pytest.mark.parametrize(("median", "same"), [(1.0, True), (1.29, True), (1.31, False), (0.69, False)])
def test_agreement_is_within_both_spreads(median, same):
    assert agree({"median": 1.0, "spread": 0.2}, {"median": median, "spread": 0.1}) is same


def test_the_clock():
    seen = []
    times = wall_ms(seen.append, 3)
    assert seen == [0, 1, 2] and len(times) == 3 and all(0 <= ms < 100 for ms in times)


def test_what_is_said_of_times_taken_in_one_go():
    said = summary([float(number) for number in range(100, 0, -1)])
    assert said == {"median": 50.5, "least": 1.0, "p95": 96.0, "most": 100.0}
