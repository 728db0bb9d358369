"""No figure in RELIABILITY.md that is not in a result file, and the results say what was promised."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from soak.page import TEMPLATE, main, page
from soak.result import FOLDER

ROOT = Path(__file__).resolve().parents[2]
# Names and promises of the template that have digits.
SAID = r"TensorRT 10|from 9 on|exit code 4|Ed25519|one flipped|`[^`]*`|\{\{.*?\}\}"


def result(name):
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def test_the_page_is_made_of_the_results():
    assert (ROOT / "RELIABILITY.md").read_text("utf-8") == page(TEMPLATE.read_text("utf-8")), "python -m soak.page"


def test_the_page_has_no_figure_of_its_own():
    text = re.sub(SAID, "", TEMPLATE.read_text("utf-8"), flags=re.DOTALL)
    assert re.findall(r".{0,20}\d.{0,20}", text) == []


def test_a_figure_that_is_in_no_file(tmp_path):
    with pytest.raises(KeyError):
        page("{{cache.json killed_builds/nothing}}")
    assert main(["--output", str(tmp_path / "R.md")]) == 0
    assert (tmp_path / "R.md").read_text("utf-8") == (ROOT / "RELIABILITY.md").read_text("utf-8")


def test_what_was_promised_of_the_cache():
    cache = result("cache")
    builds = cache["killed_builds"]
    assert builds["builds"] >= 300 and builds["killed"] + builds["killed_builders"] >= 0.9 * builds["builds"]
    assert cache["crowded_builds"]["processes"] >= 80
    assert cache["crowded_builds"]["built"] == cache["crowded_builds"]["engines"]
    assert cache["full_disk"]["refused"] == cache["full_disk"]["built_after_room_was_made"] > 0
    assert min(cache["flipped_bits_seen"].values()) >= 1000


def test_what_was_promised_of_hostile_files():
    hostile = result("hostile")
    assert hostile["refused"] == len(hostile["rows"]) >= 50
    assert hostile["most_seconds"] <= 1 and hostile["most_peak_bytes"] <= 500 << 20


def test_what_was_promised_of_long_runs():
    long_runs = result("long_runs")
    assert long_runs["inferences"]["equal"] >= 100_000 and long_runs["loads"]["loaded"] >= 200
    assert max(long_runs[each]["memory_growth_bytes"] for each in ("inferences", "loads")) < 8 << 20


# Each is asked for only where it is there: by version in engines/configure.py, by `hasattr` in engines/child.py.
GUARDED = {
    "ComputeCapability",
    "IProgressMonitor",
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS",
    "PreviewFeature.PROFILE_SHARING_0806",
}


def test_every_version_was_put_to_work_or_says_why_not():
    rows = result("matrix")["rows"]
    assert {row["status"] for row in rows} <= {"passed", "not run"}
    assert all(row.get("reason") for row in rows if row["status"] == "not run")
    passed = " ".join(row["row"] for row in rows if row["status"] == "passed")
    assert all(f"py{version}" in passed for version in ("3.10", "3.11", "3.12", "3.13"))
    assert all(f"torch{version}" in passed for version in ("2.10", "2.11", "2.12", "2.13"))
    assert "numpy1" in passed and "numpy2" in passed
    assert all(set(row["not_there"]) <= GUARDED for row in rows if "not_there" in row)
    assert [len(row["not_there"]) < row["names"] / 2 for row in rows if "names" in row] == [True] * 3
