"""The schema of results: what it takes and refuses, as another validator does too."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from bench.machine import machine
from bench.schema import SCHEMA, _schema, check_result, read_result, write_result
from runtime.errors import InputError

MS = {
    "median": 1.0,
    "p95": 1.2,
    "least": 0.9,
    "most": 2.0,
    "low": 0.95,
    "high": 1.05,
    "spread": 0.1,
    "count": 10,
    "rounds": 5,
}
PEER = {
    "name": "onnxruntime-cpu",
    "about": "ONNX Runtime",
    "device": "cpu",
    "precision": "fp32",
    "status": "measured",
    "latency": [{"batch": 1, "level": "network", "ms": MS, "images_per_second": 1000.0, "tflops": 0.5}],
    "psnr_db": {"mean": None, "worst": None, "each": [None]},
    "startup": {"alone": True, "runs": 1, "seconds": {"python": 0.1, "import": 0.2}, "total": 0.3},
}


def result(**changes):
    made = {
        "schema": SCHEMA,
        "kind": "peers",
        "complete": True,
        "machine": machine(("numpy",), "cat2dog bench"),
        "method": "by hand",
        "peers": [copy.deepcopy(PEER)],
    }
    return {**made, **changes}


def test_the_schema_is_sound():
    jsonschema.Draft202012Validator.check_schema(_schema())


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "r.json"
    write_result(path, result())
    assert read_result(path) == json.loads(path.read_text()) == result(machine=read_result(path)["machine"])


def wrong(place, value):
    made = result()
    *way, last = place
    target = made
    for name in way:
        target = target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return made


CASES = [
    (("schema",), "cat2dog-bench/2", "result.schema is 'cat2dog-bench/2', expected 'cat2dog-bench/1'"),
    (
        ("kind",),
        "guess",
        "result.kind is 'guess', expected one of peers, ladder, growth, codecs, stream, training, network, serving, "
        "languages",
    ),
    (("machine", "date"), ..., "result.machine lacks 'date'"),
    (("machine", "cores"), 0, "result.machine.cores is 0, expected at least 1"),
    (("machine", "versions", "numpy"), 2, "result.machine.versions.numpy is int, expected string"),
    (("peers", 0, "latency", 0, "ms", "median"), "1", "result.peers[0].latency[0].ms.median is str, expected number"),
    (("peers", 0, "latency", 0, "ms", "count"), True, "result.peers[0].latency[0].ms.count is bool, expected integer"),
    (("peers", 0, "guess"), 1, "result.peers[0] has an unknown field 'guess'"),
    (("complete",), 1, "result.complete is int, expected boolean"),
]


@pytest.mark.parametrize(("place", "value", "said"), CASES, ids=[case[2] for case in CASES])
def test_what_is_refused(place, value, said, tmp_path):
    content = wrong(place, value)
    with pytest.raises(ValueError) as refused:
        check_result(content)
    assert str(refused.value) == said
    assert not jsonschema.Draft202012Validator(_schema()).is_valid(content)
    with pytest.raises(ValueError):
        write_result(tmp_path / "r.json", content)
    assert not (tmp_path / "r.json").exists()


def test_both_validators_take_a_good_one():
    check_result(result())
    jsonschema.Draft202012Validator(_schema()).validate(result())


def test_a_file_that_is_no_result(tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_result(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is no result of the bench"):
        read_result(path)
    path.write_text('{"schema": NaN}')
    with pytest.raises(InputError, match="is no result of the bench"):
        read_result(path)
