"""The README shows what the result files hold; each of them says what made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accuracy.tables import MAKERS, RESULTS, determinism_figures, filled

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / RESULTS).rglob("*.json"))


def test_the_readme_is_made_of_the_results():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert all(f"<!-- {name} -->" in readme for name in MAKERS)
    assert filled(readme, ROOT / RESULTS) == readme, "python -m accuracy.tables --write"


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "policy.json"], ids=lambda path: path.name)
def test_results_say_where_they_are_from(path):
    machine = json.loads(path.read_text())["machine"]
    assert machine["date"] and machine["cpu"] and machine["versions"]["onnxruntime"]
    assert machine["command"].split()[0] in ("cat2dog", "python") and "/tmp" not in path.read_text()


def test_what_differs_is_said(tmp_path):
    same = {"comparisons": 4, "equal": 4, "largest": 0.0}
    apart = {"comparisons": 15, "equal": 9, "largest": 2.0}
    facts = {"name": "m", "precision": "fp16", "what": "tensorrt", "again": same, "builds": apart}
    (tmp_path / "determinism_m").mkdir()
    path = tmp_path / "determinism_m/determinism.json"
    path.write_text(json.dumps({**facts, "positions": None, "alone": None}))
    assert determinism_figures(tmp_path) == (
        "- m fp16, tensorrt: again the same bits; from another build up to 2 apart, 9 of 15 equal.\n"
    )
