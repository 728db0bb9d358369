"""The README's load table is the result file's."""

from __future__ import annotations

from pathlib import Path

from bench.schema import read_result

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_load_table_is_the_results():
    result = read_result(ROOT / "bench/results/serving/tiny-128_serving_cpu.json")
    (load,) = result["serving"]["loads"]
    readme = (ROOT / "serving/README.md").read_text()
    table = readme.split("<!-- load table -->")[1].split("<!-- end of table -->")[0].strip().splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len(rows) == len(load["rounds"]) > 0
    for row, each in zip(rows, load["rounds"], strict=True):
        offered = (
            f"{each['clients']} clients" if each["loop"] == "closed" else f"{each['offered_per_second']:g} a second"
        )
        refusal = each["refusal_ms"]["p95"] if each["refusal_ms"] else ""
        answers = each["answer_ms"]
        expected = [each["loop"], offered, f"{each['answered_per_second']:.1f}", f"{answers['p50']:.0f}"]
        assert row == [*expected, f"{answers['p95']:.0f}", str(each["refused"]), str(refusal)]
        assert each["wrong"] == 0
