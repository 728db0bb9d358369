"""What zoo/README.md says, done: its example is a recipe of under 60 lines, its commands run, the notebook too."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.flavors import TENSORRT_RTX, find_flavor

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "zoo/README.md").read_text("utf-8")
NOTEBOOK = ROOT / "zoo/recipe_walkthrough.ipynb"
DOCKERFILE = (ROOT / "zoo/Dockerfile").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]


SHORT, ALL = ("export", "run"), ("export", "build", "run", "accuracy")


@pytest.mark.parametrize("steps", [SHORT, pytest.param(ALL, marks=pytest.mark.slow)], ids=["short", "all"])
def test_the_example_is_a_recipe_of_under_60_lines_that_the_commands_take(tmp_path, steps):
    (example,) = blocks("python")
    assert len(example.splitlines()) < 60
    (tmp_path / "my_recipe.py").write_text(example)
    shutil.copytree(ROOT / "images", tmp_path / "images")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # In one process, in order: each of them imports torch.
    lines = [words[1:] for words in COMMANDS if words[1] in steps]
    if not find_flavor(TENSORRT_RTX).can_build:  # said by the tests of building
        lines = [words for words in lines if words[0] != "build"]
    program = (
        f"import sys; from cli.main import main\nfor words in {lines!r}:\n    print(words); assert main(words) == 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"images/img1.jpg\W+(red|green|blue)", done.stdout)
    assert ("verdict: passed" in done.stdout) == ("accuracy" in steps)
    assert tuple(words[1] for words in COMMANDS) == ALL


def test_what_it_names_is_there():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / "zoo" / link).exists(), link
    for module in re.findall(r"`(zoo\.[a-z0-9_]+\.recipe)", README):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    assert NOTEBOOK.exists()


def test_the_notebook_is_stripped_and_small():
    content = json.loads(NOTEBOOK.read_text("utf-8"))
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in content["cells"])
    assert NOTEBOOK.stat().st_size < 20_000 and content["nbformat"] == 4
    code = "\n".join("".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code")
    for step in ("export", "build", "run", "accuracy"):
        assert f'cat2dog(["{step}"' in code
    compile(code, str(NOTEBOOK), "exec")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: `make test-all` installs it")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: `make test-all` installs it")
    monkeypatch.setenv("CAT2DOG_BUILD", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    client.create_kernel_manager().transport = "ipc"  # no port that others on the machine could reach
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    # Tables are displayed, the rest is printed.
    printed = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "Conv, depthwise" in printed and "images/img1.jpg" in printed and "verdict: passed" in printed
    assert list(tmp_path.glob("onnx/convnext-gelu-32_fp16.onnx"))


def test_the_dockerfile_copies_what_is_there_and_is_marked():
    assert "Not run yet" in DOCKERFILE
    for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
    for room in (
        "runtime",
        "cat2dog",
        "export",
        "engines",
        "accuracy",
        "bench",
        "cli",
        "zoo",
    ):  # what its commands import
        assert f"COPY {room} {room}\n" in DOCKERFILE, room
    pinned = (ROOT / "constraints.txt").read_text().lower()
    (installed,) = re.findall(r"--constraint constraints.txt \\\n(.*?)\nCOPY", DOCKERFILE, re.DOTALL)
    for package in installed.replace("\\", " ").split():
        assert f"\n{package.lower()}==" in pinned, package
