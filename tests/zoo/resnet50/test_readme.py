"""What the READMEs say: commands that run, figures that are those of the result files, files that are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.schema import read_result
from zoo.resnet50.languages import table

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "zoo/resnet50/README.md").read_text("utf-8")
CPP = (ROOT / "runtime/cpp/README.md").read_text("utf-8")


def blocks(text, language):
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [line for block in found for line in block.replace("\\\n", " ").splitlines()]


def test_figures_are_those_of_the_results():
    results = sorted((ROOT / "bench/results/zoo").glob("resnet50_languages_*.json"))
    assert results
    for path in results:
        found = read_result(path)["languages"]
        assert table(found) in README, path
        assert found["pictures"] >= 13 and all(each["violations"] == 0 for each in found["agreement"].values())


def test_files_that_are_named_are_there():
    for name in re.findall(r"`(\w+\.(?:cpp|h))`", CPP):
        assert (ROOT / "runtime/cpp/src" / name).is_file(), name
    for line in (*blocks(README, "sh"), *blocks(CPP, "sh")):
        words = shlex.split(line, comments=True)
        if "-m" in words:
            module = ROOT / words[words.index("-m") + 1].replace(".", "/")
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), line
        if words and words[0] == "make":
            done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_commands_run_one_after_the_other(tmp_path):
    (tmp_path / "images").symlink_to(ROOT / "images")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    for line in blocks(README, "bash"):
        words = shlex.split(line)
        program = words[1:] if words[0].endswith("python") else ["-m", "cli", *words[1:]]
        done = subprocess.run(
            [sys.executable, *program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    # The block after the commands is what they print first; other processors round otherwise in the last digits.
    shown = re.search(r"^```\n(mean: .*?)\n```", README, re.DOTALL | re.MULTILINE)
    assert shown and [re.sub(r"[\d.]+", "0", line) for line in shown[1].splitlines()] == [
        re.sub(r"[\d.]+", "0", line) for line in done.stdout.splitlines()[:2]
    ]
