"""Launch plans read back from their text."""

from __future__ import annotations

import pytest

from engines.kernels.read_plan import read_plan
from tests.engines.kernels.test_launch import GOLDEN, PLAN


def test_a_plan_comes_back_as_it_was():
    back = read_plan(PLAN.text(), PLAN.data)
    assert back.text() == PLAN.text()
    assert back.images == PLAN.images
    assert back.launches[0].cluster == 2
    assert back.launches[0].programmatic
    assert not back.launches[1].programmatic


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("cat2dog-launch 1", "cat2dog-launch 2", "no launch plan"),
        ("\nend\n", "\n", "no launch plan"),
        ("target 90 exact", "aim 90 exact", "line 2 of a launch plan: 'aim 90 exact', expected 'target'"),
        ("dd8a4d54e0e4628d", "dd8a4d54e0e4628e", "has the hash dd8a4d54e0e4628d, expected dd8a4d54e0e4628e"),
        ("image 10 ", "image 11 ", "bytes of images, expected 16"),
        ("block 384 1 1", "block many 1 1", "line 10 of a launch plan: invalid literal"),
        ("arg workspace B*4096", "arg nowhere 0 0", "operand nowhere is not one of"),
        ("box 64 128 1", "bax 64 128 1", "'bax 64 128 1', expected 'box'"),
        ("target 90 exact", "target 90", "line 2 of a launch plan: 'target 90', expected 'target'"),
        ("arg workspace B*4096", "arg", "a line of a launch plan is too short, about '"),
        ("kernel 0 combine", "word 0 combine", "line 25 of a launch plan: 'word' is not expected there"),
    ],
)
def test_what_is_no_plan_is_refused(was, becomes, message):
    assert was in GOLDEN
    with pytest.raises(ValueError) as refused:
        read_plan(GOLDEN.replace(was, becomes), PLAN.data)
    assert message in str(refused.value)
