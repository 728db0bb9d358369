"""What fuzzing found of requests, tried again."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="the server's packages are in the serving environment: make test-serving")

from soak.fuzz.targets import targets, try_one
from tests.serving.conftest import ROOT

TARGETS = targets("requests")


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_of_the_corpus(name):
    inputs = sorted((ROOT / "tests/reliability/corpus" / name).iterdir())
    assert inputs, "make fuzz"
    for data in [*TARGETS[name].seeds(), *(path.read_bytes() for path in inputs)]:
        try_one(TARGETS[name], data)
