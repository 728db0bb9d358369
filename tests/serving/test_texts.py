"""Files that nothing runs here: Dockerfile, compose file, README. What they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli.main import SUBCOMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (ROOT / "serving/Dockerfile").read_text()
README = (ROOT / "serving/README.md").read_text()


def test_the_dockerfile_says_that_it_was_not_run_and_copies_what_is_there():
    assert "Not run yet" in DOCKERFILE and "Not run yet" in (ROOT / "serving/compose.yaml").read_text()
    joined = DOCKERFILE.replace("\\\n", " ")
    known = {
        "FROM",
        "ENV",
        "WORKDIR",
        "COPY",
        "ARG",
        "RUN",
        "USER",
        "EXPOSE",
        "HEALTHCHECK",
        "STOPSIGNAL",
        "ENTRYPOINT",
    }
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        assert line.split()[0] in known or line.startswith("    CMD"), line
        if line.startswith("COPY"):
            *sources, _ = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line
    assert "@" not in DOCKERFILE and "USER serving" in DOCKERFILE


def test_pytriton_is_the_same_everywhere():
    pin = "nvidia-pytriton==0.7.0"
    for path in ("serving/Dockerfile", "serving/constraints.txt", "pyproject.toml"):
        assert pin in (ROOT / path).read_text(), path


def test_the_readme_names_what_is_there():
    for path in re.findall(r"(?:serving|images|bench/results)/[\w./-]+\.\w+", README):
        assert (ROOT / path).exists(), path
    for command in re.findall(r"cat2dog ([a-z][a-z-]+)", README):
        assert command in SUBCOMMANDS, command


def test_the_compose_file_is_sound():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the test environment's transformers only")
    (service,) = yaml.safe_load((ROOT / "serving/compose.yaml").read_text())["services"].values()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
