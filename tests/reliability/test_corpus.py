"""What fuzzing found, tried again: each input is taken or refused in one line, as `make fuzz` left it."""

from __future__ import annotations

import pytest

from soak.fuzz.collect import CORPUS
from soak.fuzz.targets import targets, try_one

TARGETS = targets("formats", "graphs")


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_of_the_corpus(name):
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs, "make fuzz"
    for path in inputs:
        try_one(TARGETS[name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_are_taken(name):
    for seed in TARGETS[name].seeds():
        if name not in ("kernel_facts", "onnx_manifest"):  # of files that lie beside it, which are not here
            assert try_one(TARGETS[name], seed)


def test_every_target_has_a_corpus():
    assert {path.name for path in CORPUS.iterdir()} >= set(TARGETS)
