"""The bench of codecs: one whose library fails, in whatever way, is entered with its reason, and the others go on."""

from __future__ import annotations

import pytest

from bench import codecs
from bench.codec_candidates import Candidate, NotRun
from bench.schema import read_result


def raising(error):
    def make(side):
        raise error

    return make


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (NotRun("there is no GPU"), "not run", "there is no GPU"),
        (ImportError("no package"), "absent", "no package"),
        (AttributeError("no EncodeParams"), "not run", "AttributeError: no EncodeParams"),
        (TypeError("two\narguments"), "not run", "TypeError: two arguments"),
    ],
)
def test_one_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch, error, status, said):
    step = "encode jpeg"
    sound = next(each for each in codecs.candidates() if (each.step, each.library) == (step, "Pillow"))
    tried = [Candidate(step, "new", "", raising(error), 30.0), sound]
    monkeypatch.setattr(codecs, "candidates", lambda: tried)
    path = tmp_path / "codecs.json"
    assert codecs.main(["--pixels", "32", "--rounds", "1", "--turn-ms", "1", "--output", str(path)]) == 0
    failed, right = read_result(path)["codecs"]
    assert (failed["status"], failed["reason"]) == (status, said)
    assert right["status"] == "measured" and right["ms"]["median"] > 0
