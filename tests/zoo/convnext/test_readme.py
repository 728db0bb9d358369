"""What zoo/convnext/README.md says, done; its tables are those that the results make."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.flavors import TENSORRT_RTX, find_flavor
from zoo.convnext import tables

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "zoo/convnext/README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]


def test_its_tables_are_of_the_results():
    assert tables.filled(README) == README, "run `python -m zoo.convnext.tables`"


def test_what_it_names_is_there():
    for path in re.findall(r"`(bench/results/[\w./-]+)`", README):
        assert (ROOT / path).exists(), path
    for words in COMMANDS:
        if words[1] == "-m":
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), words


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_commands_run_one_after_the_other(tmp_path):
    shutil.copytree(ROOT / "images", tmp_path / "images")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for words in COMMANDS:
        if "build" in words and not find_flavor(TENSORRT_RTX).can_build:
            continue  # said by the tests of building
        program = words[1:] if words[0].endswith("python") else ["-m", "cli", *words[1:]]
        done = subprocess.run(
            [sys.executable, *program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{words}\n{done.stderr}"
    for made in ("build/convnext.json", "build/flame.html", "build/operators.svg", "runs/convnext/training.json"):
        assert (tmp_path / made).exists(), made
