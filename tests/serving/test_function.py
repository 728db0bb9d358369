"""Fields: what a function may be given, and what is said of the rest."""

from __future__ import annotations

import math

import pytest

from serving.function import BAD_INPUT, TOO_LARGE, Field, Function, Refusal, StreamFunction, checked
from tests.serving.toys import Count, Shout

FIELDS = (
    Field("image", "bytes", "a picture", most=4),
    Field("prompt", "text", "what to draw", optional=True, most=8),
    Field("format", "text", "of the file", optional=True, choices=("png", "jpeg")),
    Field("steps", "int32", "how many", optional=True, least=1, most=50),
    Field("guidance", "float32", "how strong", optional=True, least=0),
    Field("base", "bool", "or not", optional=True),
)


def test_good_values_pass_as_they_are():
    given = {"image": b"\xff\0", "prompt": "hä".encode(), "format": "png", "steps": 3, "guidance": 2.5, "base": 1}
    assert checked(FIELDS, given) == {**given, "prompt": "hä", "base": True}
    assert checked(FIELDS, {"image": b"1234", "guidance": 7}) == {"image": b"1234", "guidance": 7}


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        ({}, BAD_INPUT, "image is missing: a picture"),
        ({"image": b"12345"}, TOO_LARGE, "image has 5 bytes; at most 4 are taken"),
        ({"image": 3}, BAD_INPUT, "image is a whole number; expected bytes"),
        ({"image": b"", "seed": 1}, BAD_INPUT, "there is no field 'seed'; expected image, prompt, format, steps"),
        ({"image": b"", "prompt": b"\xe4"}, BAD_INPUT, "prompt is not UTF-8 (byte 0); send text as UTF-8"),
        ({"image": b"", "prompt": "ääääx"}, TOO_LARGE, "prompt has 9 bytes; at most 8 are taken"),
        ({"image": b"", "format": "gif"}, BAD_INPUT, "format is 'gif'; expected one of png, jpeg"),
        ({"image": b"", "steps": 0}, BAD_INPUT, "steps is 0; expected 1 to 50"),
        ({"image": b"", "steps": 51}, BAD_INPUT, "steps is 51; expected 1 to 50"),
        ({"image": b"", "steps": 2.0}, BAD_INPUT, "steps is a number; expected int32"),
        ({"image": b"", "steps": "2"}, BAD_INPUT, "steps is a text; expected int32"),
        ({"image": b"", "guidance": -1.0}, BAD_INPUT, "guidance is -1; expected at least 0"),
        ({"image": b"", "guidance": math.nan}, BAD_INPUT, "guidance is nan; expected a finite number"),
    ],
)
def test_bad_values_are_refused_with_a_reason(given, status, reason):
    with pytest.raises(Refusal) as refused:
        checked(FIELDS, given)
    assert refused.value.status == status
    assert reason in refused.value.reason
    assert "\n" not in refused.value.reason


def test_a_field_of_an_unknown_kind_is_a_mistake_in_the_program():
    with pytest.raises(ValueError, match="expected one of bytes, text"):
        Field("x", "float64", "a number")


def test_the_two_kinds_of_functions_are_told_apart():
    assert isinstance(Shout(), Function) and not isinstance(Shout(), StreamFunction)
    assert isinstance(Count(), StreamFunction) and not isinstance(Count(), Function)
