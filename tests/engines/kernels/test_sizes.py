"""Size expressions against Python's own arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.kernels.sizes import check_size, evaluate

NAMES = {"B": 3, "N": 257, "Z9_a": 1 << 40, "O": 0}
MOST = 2**63 - 1


class Refused(Exception):
    """Python's arithmetic leaves what a size may be."""


def bounded(value: int) -> int:
    if not 0 <= value <= MOST:
        raise Refused
    return value


def divided(first: int, second: int, up: bool) -> int:
    if second == 0:
        raise Refused
    return -(-first // second) if up else first // second


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: divided(a, b, up=False),
    "cdiv": lambda a, b: divided(a, b, up=True),
    "min": min,
    "max": max,
}


def value_of(tree) -> int:
    """A tree of the strategy below: a number, a name, or (operator, left, right)."""
    if isinstance(tree, int):
        return bounded(tree)
    if isinstance(tree, str):
        return bounded(NAMES[tree])
    operator, left, right = tree
    return bounded(OPERATORS[operator](value_of(left), value_of(right)))


def written(tree) -> str:
    if not isinstance(tree, tuple):
        return str(tree)
    operator, left, right = tree
    if operator in "+-*/":
        # A chain needs no parentheses on its left: it is read from there.
        return f"{written(left)}{operator}({written(right)})"
    return f"{operator}({written(left)},{written(right)})"


LEAVES = st.one_of(st.integers(0, 10**4), st.sampled_from([2**31, 2**62, MOST, MOST + 1]), st.sampled_from(list(NAMES)))
TREES = st.recursive(LEAVES, lambda inner: st.tuples(st.sampled_from(list(OPERATORS)), inner, inner), max_leaves=10)


@given(TREES)
def test_a_size_has_pythons_value(tree):
    text = written(tree)
    try:
        expected = value_of(tree)
    except Refused:
        with pytest.raises(ValueError, match="size '"):
            evaluate(text, NAMES)
    else:
        assert evaluate(text, NAMES) == expected


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(0, 99)), max_size=8), st.integers(0, 99))
def test_a_chain_is_read_from_left_to_right(steps, first):
    text, value = str(first), first
    for operator, number in steps:
        text += f"{operator}{number}"
        if value is not None:
            try:
                value = bounded(OPERATORS[operator](value, number))
            except Refused:
                value = None
    if value is None:
        with pytest.raises(ValueError, match="size '"):
            evaluate(text, {})
    else:
        assert evaluate(text, {}) == value


@given(st.text("0189BNZaz_+-*/(),cdivmnax \n", max_size=40))
def test_what_has_a_value_follows_the_grammar(text):
    try:
        evaluate(text, NAMES)
    except ValueError as error:
        assert str(error).isprintable() or "\n" in text
    else:
        assert check_size(text) == text


@given(TREES)
def test_the_grammar_does_not_depend_on_what_names_stand_for(tree):
    text = written(tree)
    # Without a name there is one value, and it is checked at once.
    expected = text if any(isinstance(leaf, str) for leaf in leaves(tree)) else None
    fits = all(isinstance(leaf, str) or leaf <= MOST for leaf in leaves(tree))
    try:
        value_of(tree)
        expected = text
    except Refused:
        pass
    if expected is not None and fits:
        assert check_size(text) == text
    else:
        with pytest.raises(ValueError, match="size '"):
            check_size(text)


def leaves(tree):
    return [leaf for side in tree[1:] for leaf in leaves(side)] if isinstance(tree, tuple) else [tree]


@pytest.mark.parametrize(
    ("size", "value"),
    [
        (0, 0),
        (MOST, MOST),
        ("2+3*4", 20),
        ("B*20", 60),
        ("cdiv(N,128)", 3),
        ("cdiv(0,5)", 0),
        ("min(7,B*2)-1", 5),
        ("max(min(B,2),(N-255))", 2),
        ("(((B)))", 3),
        ("N/2*2", 256),
    ],
)
def test_values(size, value):
    assert evaluate(size, NAMES) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a number, a name or a parenthesis at character 0"),
        ("2-3", "-1 is not between 0 and 2**63-1 at character 3"),
        ("9223372036854775807+1", "9223372036854775808 is not between 0"),
        ("5/0", "division by zero"),
        ("cdiv(5,O)", "division by zero"),
        ("M", "M is bound by no input at character 1"),
        ("b", "expected a number"),
        ("(B", "expected ')' at character 2"),
        ("min(1)", "expected ','"),
        ("min(1,2", "expected ')'"),
        ("cdiv(1,2,3)", "expected ')'"),
        ("B N", "expected an operator at character 1"),
        ("B\n", "expected an operator"),
        ("-1", "unexpected '-'"),
        ("1.5", "expected an operator"),
        ("1" * 20, "expected an operator at character 19"),
        ("٣", "expected a number"),
        ("(" * 17 + "B" + ")" * 17, "nested too deeply"),
        ("B" * 33, "is bound by no input"),
        ("1+" * 128 + "1", "size expression of 257 characters, at most 256"),
    ],
)
def test_refusals_say_what_and_where(text, message):
    with pytest.raises(ValueError) as refused:
        evaluate(text, NAMES)
    assert message in str(refused.value)


def test_the_grammar_alone_takes_what_some_shapes_make_wrong():
    for text in ("B-100", "100/(B-3)", "cdiv(N,B-3)", "M*2", "2*(1-B)", f"B*{MOST}*2"):
        assert check_size(text) == text
    for text in ("B-", "2**3", "B)", "", "1-2", "1/0", f"B*{MOST + 1}"):
        with pytest.raises(ValueError):
            check_size(text)
