"""Triton's arrays ↔ values."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from serving import rows
from serving.function import BAD_INPUT, TOO_LARGE, Answer, Field, Refusal

FIELDS = (Field("image", "bytes", "a picture", most=6), Field("steps", "int32", "how many", optional=True))
OUTPUTS = (Field("dog", "bytes", "a dog"), Field("score", "float32", "how good"))


def objects(*values, shape=None):
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape or (len(values), 1))


def test_each_row_is_a_request():
    found = rows.rows_of({"image": objects(b"a\0", b"b"), "steps": np.array([[1], [2]], np.int32)}, True)
    assert found == [{"image": b"a\0", "steps": 1}, {"image": b"b", "steps": 2}]
    assert all(type(row["steps"]) is int for row in found)
    assert rows.rows_of({}, True) == []


def test_without_batches_there_is_one_row():
    assert rows.rows_of({"image": objects(b"a", shape=(1,))}, False) == [{"image": b"a"}]


def test_answers_and_refusals_share_a_response():
    made = rows.response(OUTPUTS, [Answer({"dog": b"woof\0\0", "score": 0.5}), Refusal(413, "too large")], {}, True)
    assert {name: array.shape for name, array in made.items()} == dict.fromkeys(made, (2, 1))
    assert made["dog"].tolist() == [[b"woof\0\0"], [b""]]
    assert made["score"].dtype == np.float32 and made["score"].tolist() == [[0.5], [0.0]]
    assert made["status"].dtype == np.int32 and made["status"].tolist() == [[200], [413]]
    assert made["reason"].tolist() == [[b""], [b"too large"]]


def test_base64_goes_both_ways():
    text = base64.b64encode(b"\xff\0dog")
    assert rows.values_of(FIELDS, {"image": text, "steps": 2}, {"base64": True}) == {"image": b"\xff\0dog", "steps": 2}
    made = rows.response(OUTPUTS, [Answer({"dog": b"\xff\0dog", "score": 1.0})], {"base64": True}, False)
    assert made["dog"].tolist() == [text]
    assert rows.values_of(FIELDS, {"image": b"aaaa"}, {}) == {"image": b"aaaa"}


@pytest.mark.parametrize(
    ("image", "status", "reason"),
    [
        (b"a", BAD_INPUT, "image is not base64"),
        (b"aGF\nbG8=", BAD_INPUT, "leave the parameter base64 out"),
        ("ä", BAD_INPUT, "image is not base64"),
        (base64.b64encode(b"1234567"), TOO_LARGE, "image has some 9 bytes; at most 6"),
        (b"A" * 400, TOO_LARGE, "image has some 300 bytes; at most 6"),
    ],
)
def test_bad_base64_is_refused(image, status, reason):
    with pytest.raises(Refusal, match=reason) as refused:
        rows.values_of(FIELDS, {"image": image}, {"base64": True})
    assert refused.value.status == status


@pytest.mark.parametrize("given", [None, "", 5, "a b", "x" * 65, 'a"b', "a\nb", "ä"])
def test_an_id_that_is_unfit_for_a_log_is_replaced(given):
    made = rows.request_id({"id": given})
    assert made != given and len(made) == 16
    assert made != rows.request_id({"id": given})


def test_a_fit_id_is_kept():
    assert rows.request_id({"id": "Abc-1.2:3_4"}) == "Abc-1.2:3_4"
