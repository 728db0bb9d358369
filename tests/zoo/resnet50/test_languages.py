"""Agreement of two runs, by hand-made rows. The command itself is run beside the C++ runner's tests."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import pytest

from zoo.resnet50 import languages
from zoo.resnet50.agreement import agreement


def row(image, classes, margins, percent=(50.0, 20.0), crop="a"):
    return {"image": image, "classes": classes, "margins": margins, "percent": list(percent), "crop_sha256": crop}


def test_a_margin_within_the_tolerance_may_turn():
    first = [row(1, [3, 5], [2.0, 1.0]), row(2, [3, 5], [0.1, 1.0]), row(3, [4, 5], [1.0, 1.0])]
    second = [row(1, [3, 5], [2.1, 0.95]), row(2, [5, 3], [0.05, 1.0]), row(3, [4, 5], [1.0, 1.0], (49.0, 20.5), "b")]
    found = agreement(first, second)
    assert (found.same_crops, found.same_top1, found.same_top2, found.pictures) == (2, 2, 2, 3)
    assert found.tolerance == pytest.approx(0.2)
    # The second picture's first two classes are nearer than that.
    assert (found.decided, found.violations) == (2, 0)
    assert found.most_percent == pytest.approx(1.0)


def test_a_margin_beyond_it_may_not():
    first = [row(1, [3, 5], [2.0, 1.0]), row(2, [3, 5], [0.5, 1.0])]
    second = [row(1, [3, 5], [2.01, 1.0]), row(2, [3, 6], [0.5, 1.0])]
    assert (agreement(first, second).decided, agreement(first, second).violations) == (2, 1)
    assert agreement(first, first).violations == 0 and agreement(first, first).tolerance == 0


def test_rows_of_other_pictures():
    with pytest.raises(ValueError, match="not of the same pictures"):
        agreement([row(1, [1, 2], [1, 1])], [row(2, [1, 2], [1, 1])])


@pytest.mark.parametrize("fused", [False, True])
def test_the_program_is_given_the_library_of_fused_kernels(tmp_path, monkeypatch, fused):
    engine, program, library = (tmp_path / name for name in ("x.engine", "runner", "libcat2dog_plugin_trt8.so"))
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    library.touch()
    manifest = SimpleNamespace(key=SimpleNamespace(flavor_version="8.6.0"))
    monkeypatch.setattr("runtime.engine_file.engine_manifest", lambda path: manifest if path == engine else None)
    monkeypatch.setattr("runtime.plugins.needs_plugin", lambda given: fused and given is manifest)
    monkeypatch.setattr("runtime.plugins.find_plugin", lambda version: library if version == "8.6.0" else None)
    args = argparse.Namespace(network=engine, program=program, library=None, python="python3.10", threads=None)
    cpp = languages._commands(args, [tmp_path / "a.jpg"])["C++"]
    assert ("--plugins" in cpp) == fused and (cpp[-1] == str(library)) == fused
