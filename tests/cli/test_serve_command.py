"""`cat2dog serve` up to the server: what it says before, and what it starts. The server itself: `tests/serving`."""

from __future__ import annotations

import sys

import pytest

from cli import serve_command
from cli.main import main

# In place of a serving environment's Python: says what it was started with, and which flavors it has.
STAND_IN = """#!{python}
import json, sys
if "runtime.flavors" in sys.argv:
    print(json.dumps({flavors}))
else:
    print(json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Makes a stand-in that has these flavors, and lets `cat2dog serve` use it."""

    def make(flavors="[]"):
        path = tmp_path / "python"
        path.write_text(STAND_IN.format(python=sys.executable, flavors=flavors))
        path.chmod(0o755)
        monkeypatch.setenv(serve_command.PYTHON_VARIABLE, str(path))
        return path

    return make


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give --model FOLDER"),
        (["--model", "models/tiny-128", "--queue", "0"], "a queue of 0"),
        (["--model", "models/tiny-128", "--http-port", "70000"], "http port 70000"),
        (["--model", "models/tiny-128", "--most-mib", "0"], "--most-mib takes"),
        (["--model", "models/none"], "models/none"),
        (["--model", "models/tiny-128", "--precision", "bf16"], "has no BF16: give --precision fp16"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(python, capsys, words, reason):
    python()
    assert main(["serve", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and reason in error and error.count("\n") == 1


def test_a_python_that_is_not_there_is_said(monkeypatch, capsys):
    monkeypatch.setenv(serve_command.PYTHON_VARIABLE, "/no/such/python")
    assert main(["serve", "--model", "models/tiny-128"]) == 2
    assert "CAT2DOG_PYTHON_SERVING=/no/such/python: no such program" in capsys.readouterr().err


def test_without_an_environment_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(serve_command.PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(serve_command, "__file__", str(tmp_path / "cli" / "serve_command.py"))
    monkeypatch.setattr(serve_command.importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--model", "models/tiny-128"]) == 2
    assert "make .venv-serving/.ready" in capsys.readouterr().err


def test_a_python_that_answers_nonsense_is_said(python, capsys):
    python(flavors="'nothing'")
    assert main(["serve", "--model", "models/tiny-128"]) == 2
    assert "cannot say what it runs" in capsys.readouterr().err


def test_it_becomes_the_server_with_its_options(python, monkeypatch):
    path = python()
    started = []
    monkeypatch.setattr(serve_command.os, "execv", lambda program, words: started.append((program, words)))
    main(["serve", "--engine", "a.engine", "--engine", "b.engine", "--queue", "7", "--host", "::1"])
    ((program, words),) = started
    assert program == str(path) and words[:5] == [str(path), "-m", "serving.server", "a.engine", "b.engine"]
    assert words[words.index("--queue") + 1] == "7" and words[words.index("--host") + 1] == "::1"
