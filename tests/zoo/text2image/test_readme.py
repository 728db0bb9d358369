"""What the README says: its commands run on tiny pipelines, what it names is there."""

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
from serving.text2image_function import TextToImage
from tests.zoo.text2image import tiny

ROOT = Path(__file__).resolve().parent.parent.parent.parent
README = (ROOT / "zoo/text2image/README.md").read_text("utf-8")
DOCKERFILE = (ROOT / "zoo/text2image/Dockerfile").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.mark.slow
def test_its_commands_run_one_after_the_other(tmp_path):
    tiny.main(tmp_path / "build/tiny")
    shutil.copytree(ROOT / "images", tmp_path / "images")
    (tmp_path / "build/onnx").mkdir()
    for line in COMMANDS:
        words = shlex.split(line)
        settings = dict(words.pop(0).split("=", 1) for _ in range(sum("=" in word for word in words[:2])))
        if "build" in words and not find_flavor(TENSORRT_RTX).can_build:
            continue  # said by the tests of building
        program = (
            [sys.executable, *words[1:]] if words[0].endswith("python") else [sys.executable, "-m", "cli", *words[1:]]
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings}
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    for made in ("out.png", "out/step_002.png", "build/onnx/unet_int8.onnx", "sheet.png"):
        assert (tmp_path / made).exists(), made


def test_its_other_commands_are_well_formed():
    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(line)
        if words[0] == "make":
            done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        elif "-m" in words:
            module = words[words.index("-m") + 1]
            assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
        for word in words:
            if word.startswith("@"):
                assert (ROOT / word[1:]).exists(), word


def test_it_names_every_module_and_every_field():
    there = {path.name for path in (ROOT / "zoo/text2image").glob("*.py")} | {"text2image_function.py", "client.py"}
    assert set(re.findall(r"\b\w+\.py\b", README)) <= there
    about = (ROOT / "zoo/text2image/__init__.py").read_text()
    assert set(re.findall(r"\b\w+\.py\b", about)) <= there

    class Nothing:
        own_size = (8, 8)

    function = TextToImage(Nothing(), Nothing(), upscales=True)
    for field in (*function.inputs, *function.outputs):
        assert f"`{field.name}`" in README, field.name


def test_the_dockerfile_says_that_it_was_not_run_and_copies_what_is_there():
    assert "Not run yet" in DOCKERFILE and "USER serving" in DOCKERFILE
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    pins = {line.partition("==")[0] for line in (ROOT / "serving/constraints.txt").read_text().splitlines()}
    install = re.search(r"RUN pip install (.*?)\nCOPY", DOCKERFILE.replace("\\\n", " "), re.DOTALL).group(1).split()
    packages = [word for word in install[2:] if word != "cuda-bindings"]
    assert set(packages) <= pins, set(packages) - pins
