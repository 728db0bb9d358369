"""`python -m zoo.resnet50.languages`: both languages measured, and a result file of the bench's schema."""

from __future__ import annotations

import pytest

from bench.schema import read_result
from export.export import export
from tests.runtime.cpp import stand_in
from zoo.resnet50 import languages

pytestmark = pytest.mark.xdist_group("cpp_runner")


@pytest.mark.slow
def test_both_languages_are_compared(runner, tmp_path, capsys):
    network = export(stand_in.small(), tmp_path / "small_fp32.onnx", "fp32").path
    output = tmp_path / "result.json"
    given = ["--network", network, "--reference", network, "--drawn", 13, "--seconds", 1, "--threads", 1]
    given += ["--program", runner.folder / "cat2dog-resnet50", "--library", runner.library(), "--output", output]
    assert languages.main([*map(str, given)]) == 0, capsys.readouterr().err
    found = read_result(output)["languages"]
    for each in found["agreement"].values():
        assert each["pictures"] == each["same_crops"] == each["same_top2"] == 13
        assert each["violations"] == 0 and each["decided"] > 0
    assert [row["language"] for row in found["rows"]] == ["Python", "C++"]
    for row in found["rows"]:
        assert row["ms"]["network"]["count"] == 2 * 13 and row["ms"]["network"]["rounds"] == 2
        assert row["ms"]["whole"]["median"] >= row["ms"]["decode"]["median"] > 0
    assert "of those otherwise 0" in capsys.readouterr().out


def test_what_is_missing_is_said(tmp_path, capsys):
    network = ["--network", str(tmp_path / "x.onnx")]
    assert languages.main([*network, "--drawn", "1", "--program", str(tmp_path / "absent")]) == 2
    assert "is no program; build it: `make cpp-runner`" in capsys.readouterr().err
    assert languages.main(network) == 2
    assert "no picture to compare on" in capsys.readouterr().err
    assert languages.main([*network, "--seconds", "601"]) == 2
