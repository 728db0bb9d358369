"""Files that nothing runs here: Dockerfile, compose file, CI's workflow, README. What they name is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
    assert "@" not in DOCKERFILE and "USER 10001" in DOCKERFILE


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
    (service,) = yaml.safe_load((ROOT / "serving/compose.yaml").read_text())["services"].values()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.mark.parametrize(
    ("schema", "path"),
    [("vendor.compose-spec", "serving/compose.yaml"), ("vendor.github-workflows", ".github/workflows/ci.yml")],
)
def test_yaml_files_follow_their_schemas(schema, path, tmp_path):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is in the core test environment, Python 3.11 on")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*words, str(ROOT / path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    spoilt = tmp_path / "spoilt.yaml"
    spoilt.write_text((ROOT / path).read_text().replace("build:", "builds:").replace("runs-on:", "runs:"))
    assert subprocess.run([*words, str(spoilt)], capture_output=True).returncode == 1


def test_the_workflow_runs_what_ci_runs_without_a_gpu():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")  # a hosted machine, which has no GPU
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_diagram_names_what_is_there():
    diagram = README.split("```mermaid\n")[1].split("```")[0]
    names = re.findall(r"\b(\w+\.py)\b", diagram)
    assert len(names) > 8
    for name in names:
        assert (ROOT / "serving" / name).exists(), name
    declared = set(re.findall(r"^\s*(\w+)[\[({]", diagram, re.MULTILINE))
    for left, right in re.findall(r"^\s*(\w+) (?:--|-\.|<--).*[>-] ?(?:\|[^|]*\| ?)?(\w+)$", diagram, re.MULTILINE):
        assert {left, right} <= declared, (left, right)
