"""No figure in the report, the write-up or the README that is not in a result file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.report.__main__ import TITLE, report
from bench.report.render import html, markdown_files
from bench.report.writeup import TEMPLATE, main, with_table, writeup
from runtime.errors import InputError
from tests.bench import made

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench/results"

# Digits that are part of a name, not a figure: precisions, shapes, versions, resolutions, what is exported.
NAMES = re.compile(
    r"\b(FP16|FP32|BF16|uint8|cat2dog|H200|TensorRT 8\.6|tiny-128|2b-1024|500m-\d+|256 pixels|1024 tokens|batch 1)\b"
)
# What the README's prose says with a unit, and where it is from. Its other figures are in blocks that results make.
SAID = {
    "3 M": "parameters of tiny-128: tests/cat2dog/test_config.py",
    "30 dB": "the gate, a setting",
    "45 dB": "the aim, a setting",
    "4 TFLOP": "what the gate may cost, a setting",
    "250 kB": "the plugin library, by `ls`",
    "10 microseconds": "an order of magnitude that CUDA's blocking wait is known for",
    "10 %": "test_tables.py: test_the_sentence_about_speed",
    "19 %": "test_tables.py: test_the_sentence_about_speed",
    "3 %": "test_tables.py: test_the_sentence_about_speed",
}


def test_the_report_is_made_of_the_results():
    blocks = report(RESULTS)
    assert (ROOT / "bench/report/index.html").read_text("utf-8") == html(TITLE, blocks), "make report"
    files = markdown_files(blocks)
    assert {path.name for path in (ROOT / "bench/report/figures").iterdir()} == {
        Path(name).name for name in files if name.startswith("figures/")
    }
    for name, data in files.items():
        assert (ROOT / "bench/report" / name).read_bytes() == data, f"{name}: make report"


def test_the_write_up_is_made_of_the_results():
    assert (ROOT / "WRITEUP.md").read_text("utf-8") == writeup(TEMPLATE.read_text("utf-8")), "make report"


def test_the_write_up_has_no_figure_of_its_own():
    text = re.sub(r"\{\{.*?\}\}|`[^`]*`", "", TEMPLATE.read_text("utf-8"), flags=re.DOTALL)
    assert re.findall(r".{0,20}\d.{0,20}", NAMES.sub("", text)) == []


def test_the_table_in_the_readme_is_made_of_the_results():
    text = (ROOT / "README.md").read_text("utf-8")
    assert text == with_table(text), "make report"
    with pytest.raises(InputError, match="expected '<!-- checkpoint table -->'"):
        with_table("# no marks")


def test_other_figures_in_the_readme_are_known():
    text = (ROOT / "README.md").read_text("utf-8")
    for blocks in (r"<!-- [\w ]+ -->.*?<!-- end of \w+ -->", r"```.*?```", r"`[^`]*`", r"<p .*?</p>"):
        text = re.sub(blocks, "", text, flags=re.DOTALL)
    units = r"ms|µs|s|dB|%|MB|GB|kB|KB|TFLOP(?:/s)?|microseconds|times|M|images/s"
    found = {" ".join(each.split()) for each in re.findall(rf"\b\d[\d.,]*\s(?:{units})(?=[\s.,;:)])", text)}
    assert found <= SAID.keys(), f"in no result file: {found - SAID.keys()}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{a.json | peers/name=tensorrt-plugin/latency/level=network&batch=4/ms/median | .2f}} ms", "4.88 ms\n"),
        ("{{a.json | peers/0/latency/0/ms/median ÷ peers/1/latency/0/ms/median | .2f}} times", "2.92 times\n"),
    ],
)
def test_figures_are_found(tmp_path, template, text):
    assert writeup(template, made.write_all(tmp_path)) == text


@pytest.mark.parametrize(
    "expression",
    [
        "b.json | nothing | .1f",
        "none.json | a | .1f",
        "a.json | peers/name=x/latency | .1f",
        "a.json | schema | .1f",
        "a",
    ],
)
def test_a_figure_that_is_in_no_file(tmp_path, expression):
    with pytest.raises(InputError, match="is not in the results"):
        writeup("{{" + expression + "}}", made.write_all(tmp_path))


def test_the_command(tmp_path):
    page = tmp_path / "R.md"
    page.write_text("before\n<!-- checkpoint table -->\nold\n<!-- end of table -->\nafter\n")
    assert main(["--output", str(tmp_path / "W.md"), "--readme", str(page)]) == 0
    assert (tmp_path / "W.md").read_text("utf-8") == (ROOT / "WRITEUP.md").read_text("utf-8")
    first, *rows, last = page.read_text("utf-8").splitlines()
    assert (first, last) == ("before", "after") and rows[1].startswith("| checkpoint |") and "old" not in rows
