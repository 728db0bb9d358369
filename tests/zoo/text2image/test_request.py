"""Requests: what is out of bounds is refused before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import InputError
from zoo.text2image.adjustment import NONE, Adjustment
from zoo.text2image.request import MOST_SIDE, PROMPT_BYTES, Request, check_side, decoded


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"prompt": "ä" * PROMPT_BYTES}, f"prompt has {2 * PROMPT_BYTES} bytes; at most {PROMPT_BYTES}"),
        ({"negative_prompt": "a" * (PROMPT_BYTES + 1)}, "negative prompt has 4097 bytes"),
        ({"steps": 0}, "steps 0 was given; expected 1 to 200"),
        ({"steps": 201}, "steps 201 was given"),
        ({"guidance": float("nan")}, "guidance nan was given; expected 0 to 50"),
        ({"guidance": float("inf")}, "guidance inf was given"),
        ({"seed": -1}, "seed -1 was given"),
        ({"width": MOST_SIDE + 8}, "width 2056 was given; expected 16 to 2048"),
        ({"height": 8}, "height 8 was given"),
        ({"strength": 0.0}, "strength 0 was given; expected more than 0, to 1"),
        ({"image": np.zeros((8, 8), np.uint8)}, r"an image of uint8 \[8, 8\] was given"),
        ({"image": np.zeros((8, 8, 3), np.float32)}, "an image of float32"),
        ({"image": np.zeros((8, 3000, 3), np.uint8)}, "an image of 3000 x 8 was given; at most 2048"),
    ],
)
def test_what_is_out_of_bounds_is_refused(values, says):
    with pytest.raises(InputError, match=says):
        Request(**{"prompt": "a cat", **values})


@pytest.mark.parametrize("side", [1, 11, 12, 13, 500, MOST_SIDE - 1])
def test_the_nearest_good_side_is_named(side):
    with pytest.raises(InputError, match="multiples of 8") as refused:
        check_side("width", side, 8)
    nearest = int(str(refused.value).rpartition(" ")[2])
    assert nearest % 8 == 0 and 8 <= nearest <= MOST_SIDE and abs(nearest - side) <= max(4, 8 - side)
    check_side("width", nearest, 8)


def test_prompts_are_utf8():
    assert decoded("a cat, ein Käse".encode()) == "a cat, ein Käse"
    with pytest.raises(InputError, match=r"not UTF-8 \(byte 2\)"):
        decoded(b"a \xff")
    with pytest.raises(InputError, match="at most 4096"):
        decoded(b"a" * 4097)


def test_adjustments_have_bounds_and_know_whether_they_change_anything():
    assert not NONE and not Adjustment(centre=1, until=0) and Adjustment(centre=0.1) and Adjustment(contrast=0.9)
    for values in ({"centre": 1.1}, {"clamp": -1}, {"contrast": 0}, {"until": 2}, {"centre": float("nan")}):
        with pytest.raises(InputError, match=f"{next(iter(values))} .* was given; expected"):
            Adjustment(**values)
