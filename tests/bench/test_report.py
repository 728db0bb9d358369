"""The report shows what is in the result files, in both forms, and says what is wrong with a file."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from bench.report.__main__ import main, report
from bench.report.document import Figure, Heading, Table
from bench.report.found import find_results
from bench.report.growth_section import growth_section
from bench.schema import write_result
from bench.sheet import sheet
from tests.bench import made


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    results = made.write_all(folder / "results")
    assert main(["--results", str(results), "--output", str(folder / "out")]) == 0
    return report(results), folder / "out"


def test_its_sections(written):
    blocks, _ = written
    assert [block.text for block in blocks if isinstance(block, Heading)] == [
        "cat2dog, measured",
        "500m-256 fp16 on NVIDIA H1",
        "500m-512 fp16 on NVIDIA H1",
        "1b-256 fp16 on NVIDIA H1",
        "The ladder: 500m-256 on NVIDIA H1",
        "Codecs on NVIDIA H1",
        "How the cost grows",
        "Where the time goes",
    ]


def tables(written):
    return [block for block in written[0] if isinstance(block, Table)]


def test_the_peers_table(written):
    first = tables(written)[0]
    assert first.head == [
        "peer", "precision", "network, batch 1", "network, batch 4", "picture, batch 1", "images/s", "TFLOP/s",
        "MFU %", "PSNR dB mean (worst)", "start-up s", "memory MB",
    ]  # fmt: skip
    rows = [" | ".join(row) for row in first.rows]
    assert rows == [
        "torch-sdpa | fp16 | 4.75 ± 0.1 | 14.2 ± 0.1 | 5.75 ± 0.1 | 281 | 105 | 10.5 | 60.5 (59.2) | ≤ 3.9 | 1234",
        "tensorrt-plugin | fp16 | 1.62 ± 0.1 | 4.88 ± 0.1 | 2.62 ± 0.1 | 820 | 308 | 30.8 | 60.5 (59.2) | 3.9 | 1234",
    ]


def test_those_that_were_not_measured_say_why(written):
    assert ["onnxruntime-cuda", "absent", "no CUDA provider"] in [
        row for table in tables(written) for row in table.rows
    ]


def test_the_ladder(written):
    (table,) = [table for table in tables(written) if table.head[0] == "rung"]
    assert [row[:6] for row in table.rows] == [
        ["research form", "about research form", "9 ± 0.1", "10 ± 0.1", "-", "1.00"],
        ["SDPA", "about SDPA", "5 ± 0.1", "6 ± 0.1", "1.67", "1.67"],
        ["fp16", "about fp16", "-", "-", "-", "-"],
        ["overlap", "about overlap", "1 ± 0.1", "2 ± 0.1", "3.00", "5.00"],
    ]


def test_codecs(written):
    (table,) = [table for table in tables(written) if table.head[0] == "encode png"]
    assert table.rows == [
        ["runtime", "0.25 ± 0.1", "132", "equal", "measured"],
        ["slow", "17.5 ± 0.1", "111", "equal", "measured"],
        ["lossy", "-", "-", "38.5", "wrong: 38.5 dB, expected at least inf"],
        ["other", "-", "-", "-", "absent: No module named 'other'"],
    ]


def figures(written):
    return {block.name: block for block in written[0] if isinstance(block, Figure)}


def test_figures_are_sound_and_hold_what_they_show(written):
    drawn = figures(written)
    for figure in drawn.values():
        ElementTree.fromstring(figure.svg)
    assert {"a_batch1", "a_startup", "ladder_rungs", "codecs_encode_png", "a_by_batch", "a_memory"} <= drawn.keys()
    assert {"by_resolution_500m_fp16_0", "by_size_256px_fp16_0", "layers_a_tensorrt-plugin"} <= drawn.keys()
    bars = drawn["a_batch1"].svg
    # 250 GFLOP at 800 TFLOP/s, and 948 MB of weights at 4 TB/s.
    assert "floor: 0.312 ms" in bars and bars.index("tensorrt-plugin") < bars.index("torch-sdpa")
    assert "attention: 30 µs, 37.5 %" in drawn["layers_a_tensorrt-plugin"].svg


def test_bars_are_as_long_as_their_figures_say(written):
    widths = dict(
        re.findall(r'width="([\d.]+)" height="14" fill="#\w+"><title>([\w-]+):', figures(written)["a_batch1"].svg)[i][
            ::-1
        ]
        for i in range(2)
    )
    assert float(widths["torch-sdpa"]) / float(widths["tensorrt-plugin"]) == pytest.approx(4.75 / 1.625, rel=1e-2)


class Reader(HTMLParser):
    """Which tags are open, and every address."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "rect", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag in ("rect", "path", "circle"):
            return
        assert self.open.pop() == tag


def test_figures_of_results_that_are_gone_go_too(tmp_path):
    results = made.write_all(tmp_path / "results")
    assert main(["--results", str(results), "--output", str(tmp_path / "out")]) == 0
    (results / "ladder.json").unlink()
    assert (tmp_path / "out/figures/ladder_rungs.svg").exists()
    assert main(["--results", str(results), "--output", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out/figures/ladder_rungs.svg").exists()
    assert (tmp_path / "out/figures/a_batch1.svg").exists()


def test_the_page_needs_nothing_else(written):
    page = (written[1] / "index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == [] and all(address.startswith("data:") for address in reader.addresses)
    assert "<script" not in page and "url(" not in page


def test_markdown_shows_the_same(written):
    text = (written[1] / "report.md").read_text()
    assert "| torch-sdpa | fp16 | 4.75 ± 0.1 |" in text and "# cat2dog, measured" in text
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (written[1] / path).is_file()
    assert len(re.findall(r"!\[", text)) == len(figures(written))


def test_a_picture_sheet_is_shown(tmp_path):
    import numpy as np

    write_result(tmp_path / "a.json", made.peers())
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    (tmp_path / "a_pictures.jpg").write_bytes(sheet(images, 255 - images, 254 - images.clip(0, 254)))
    (picture,) = [block for block in report(tmp_path) if type(block).__name__ == "Picture"]
    assert "that of tensorrt-plugin" in picture.caption


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no result file is in"),
        ("{", "is not JSON"),
        ('{"schema": "cat2dog-bench/1", "kind": "peers"}', "is no result of the bench: result lacks 'complete'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, capsys, content, said):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_two_files_of_one_name(tmp_path, capsys):
    for folder in ("x", "y"):
        write_result(tmp_path / folder / "a.json", made.peers())
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "two result files are called a.json" in capsys.readouterr().err


def growth_figures(tmp_path, **contents):
    for name, content in contents.items():
        write_result(tmp_path / f"{name}.json", content)
    found = find_results(tmp_path)
    blocks = growth_section(found)
    return {block.name: block for block in blocks if isinstance(block, Figure)}


def test_growth_of_time_and_memory(tmp_path):
    figures = growth_figures(
        tmp_path, a=made.peers(), b=made.growth(), c=made.growth("1b-1024", 1024, 1_020_000_000, 40)
    )
    captions = [figure.caption for figure in figures.values()]
    for kind in ("Latency", "Memory"):
        assert f"{kind} by resolution, batch 1: 500m fp16 on NVIDIA H1." in captions
        assert f"{kind} by size, batch 1: 1024 px fp16 on NVIDIA H1." in captions
        assert any(caption.startswith(f"{kind} by batch") and "1b-1024" in caption for caption in captions)
    by_resolution = next(figure for figure in figures.values() if "Latency by resolution" in figure.caption).svg
    assert "tensorrt-plugin: 1.62<" in by_resolution and "tensorrt-plugin: 32.5<" in by_resolution
    # The roofline of the peers' result serves the others of its machine: 16 times the arithmetic at 4 times the side.
    assert "floor: 0.312<" in by_resolution and "floor: 5<" in by_resolution
    by_size = next(figure for figure in figures.values() if "Memory by size" in figure.caption).svg
    assert "weights: 948<" in by_size and "weights: 2040<" in by_size


def test_growth_takes_each_figure_once(tmp_path):
    figures = growth_figures(tmp_path, a=made.peers(), again=made.growth("500m-256", 256, factor=3), b=made.growth())
    by_resolution = next(figure for figure in figures.values() if "Latency by resolution" in figure.caption).svg
    assert by_resolution.count("<circle") == 4  # two engines' and two floors'
    assert "tensorrt-plugin: 1.62<" in by_resolution
