"""Two results beside each other."""

from __future__ import annotations

import copy

import pytest

from bench.compare import main
from bench.schema import write_result
from tests.bench import made


@pytest.fixture
def files(tmp_path):
    def write(one, other):
        paths = [tmp_path / "one.json", tmp_path / "other.json"]
        for path, content in zip(paths, (one, other), strict=True):
            write_result(path, content)
        return [str(path) for path in paths]

    return write


def moved(result, by):
    """`result` with the network of its engine at batch 1 slower by so many ms."""
    result = copy.deepcopy(result)
    result["peers"][1]["latency"][0]["ms"]["median"] += by
    return result


@pytest.mark.parametrize(("by", "code", "last"), [(0.19, 0, "6 of 6 agree"), (0.21, 1, "5 of 6 agree")])
def test_agreement(files, capsys, by, code, last):
    assert main(files(made.peers(), moved(made.peers(), by))) == code
    said = capsys.readouterr().out
    assert last in said.splitlines()[-1]
    assert said.startswith("one: ") and f"; {made.peers()['machine']['date']}; `" in said.splitlines()[1]
    change = f"{100 * by / 1.625:+.1f} %"
    assert f"| tensorrt-plugin, network, batch 1 | 1.62 ± 0.1 | {1.625 + by:.3g} ± 0.1 | {change} |" in said


def test_codecs_are_compared_too(files, capsys):
    assert main(files(made.codecs(), made.codecs())) == 0
    assert "encode png, 256 px, runtime | 0.25 ± 0.1 | 0.25 ± 0.1 | +0.0 % | yes" in capsys.readouterr().out


def test_nothing_in_common(files, capsys):
    assert main(files(made.peers(), made.codecs())) == 2
    assert capsys.readouterr().err.startswith("error: these two results have no latency in common")
