"""The operator chart counts what the network has, and the flame is as wide on every row as the network."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from export.export import export
from tests.zoo.convnext.made import SMALL, tiny
from zoo.convnext.config import TINY, macs
from zoo.convnext.model import seeded
from zoo.convnext.operators import main as operators_main
from zoo.convnext.operators import operators
from zoo.convnext.profile import levels, profiled, shares
from zoo.convnext.profile import main as profile_main


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    return export(tiny(), tmp_path_factory.mktemp("charts") / "tiny.onnx", "fp32").path


@pytest.mark.slow
def test_operators_are_counted_with_their_arithmetic(onnx, tmp_path, capsys):
    found = {each.kind: each for each in operators(onnx)}
    blocks = sum(TINY.blocks)
    assert found["Conv, 1 x 1"].count == 2 * blocks and found["Conv, depthwise"].count == blocks
    assert found["Conv"].count == 2 and found["LayerNormalization"].count == blocks + 3
    products = ("Conv, 1 x 1", "Conv, depthwise", "Conv", "Gemm")
    assert sum(found[kind].flops for kind in products) == 2 * macs(TINY)
    assert operators_main([str(onnx), "--output", str(tmp_path / "chart.svg")]) == 0
    assert "Conv, depthwise" in capsys.readouterr().out
    ElementTree.parse(tmp_path / "chart.svg")


def test_files_that_are_not_are_refused_in_a_line(tmp_path, capsys):
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    for words in (
        [str(tmp_path / "a.onnx")],
        [str(tmp_path / "b.onnx")],
        [str(tmp_path / "a.onnx"), "--output", "c.png"],
    ):
        assert operators_main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_flame_goes_from_the_network_to_its_operators():
    root = profiled(seeded(SMALL).eval(), 2, "cpu", runs=2)
    rows = levels(root)
    widths = [sum(us for _, us, _ in row) for row in rows]
    assert all(width == pytest.approx(root.us, rel=1e-6) for width in widths) and root.us > 0
    names = [{name for name, _, _ in row} for row in rows]
    assert {"patches", "norm", "head"} <= set().union(*names) and {"depthwise", "mix", "project"} <= set().union(*names)
    assert any("conv" in name for name in names[-1] | names[-2])
    assert sum(us for _, us in shares(root)) == pytest.approx(root.us, rel=1e-6)
    assert {"depthwise", "mix", "project", "norm", "activation"} <= {name for name, _ in shares(root)}


def test_the_flame_is_drawn(tmp_path, capsys):
    assert profile_main(["--size", "tiny", "--device", "cpu", "--output", str(tmp_path / "flame.html")]) == 0
    page = (tmp_path / "flame.html").read_text()
    assert "<svg" in page and "depthwise" in page and "src=" not in page and "href=" not in page
    assert profile_main(["--size", "tiny", "--device", "cpu", "--half"]) == 2
    assert "--half is for a GPU" in capsys.readouterr().err
