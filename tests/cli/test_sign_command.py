"""`cat2dog sign` and `verify`: a key, a signature, and what is refused without one."""

from __future__ import annotations

import os

import pytest

from cli.main import main
from runtime.signing import VARIABLE
from tests.runtime.test_engine_file import file_engine


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "x")  # whatever an option sets is taken back
    monkeypatch.delenv(VARIABLE)
    return str(file_engine(tmp_path / "tiny.engine"))


def test_sign_and_verify(engine, tmp_path, capsys):
    key = str(tmp_path / "key.pem")
    assert main(["sign", "--new-key", key]) == 0
    assert "keep it to yourself" in capsys.readouterr().out
    assert main(["verify", engine]) == 0
    assert capsys.readouterr().out == f"{engine}: as it was built\n"
    assert main(["verify", engine, "--signed-by", f"{key}.pub"]) == 4
    assert "is not signed" in capsys.readouterr().err
    assert main(["sign", engine, "--key", key]) == 0
    assert main(["verify", engine, "--signed-by", f"{key}.pub"]) == 0
    assert "as it was built, signed by " in capsys.readouterr().out
    assert os.environ[VARIABLE] == f"{key}.pub"
    with open(engine, "r+b") as file:
        file.write(b"A")
    assert main(["verify", engine]) == 4
    assert main(["sign", engine, "--key", key]) == 4
    assert "was altered" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--key", "k"], ["--new-key", "k", "--key", "k"], ["e", "--new-key", "k"]])
def test_wrong_usage(words, engine, capsys):
    assert main(["sign", *words]) == 2
    assert "give engines and --key FILE.pem, or --new-key FILE.pem alone" in capsys.readouterr().err


def test_only_signed_engines_are_put_into_a_repository(engine, tmp_path, capsys):
    key = str(tmp_path / "key.pem")
    assert main(["sign", "--new-key", key]) == 0
    repository = str(tmp_path / "repository")
    assert main(["triton-repo", repository, "--engine", engine, "--signed-by", f"{key}.pub"]) == 4
    assert "is not signed, and only engines signed by" in capsys.readouterr().err
    assert main(["sign", engine, "--key", key]) == 0
    assert main(["triton-repo", repository, "--engine", engine, "--signed-by", f"{key}.pub"]) == 0
