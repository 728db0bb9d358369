"""An engine under another Python, on a stand-in for what runs it there."""

from __future__ import annotations

import os
import sys
import textwrap
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from engines import elsewhere
from engines.elsewhere import ChildRunner, engine_runner
from runtime.errors import EngineMismatch, InputError, ToolchainError
from runtime.flavors import python_variable
from tests.runtime.stand_ins import file_engine

STAND_IN = """
import os, sys, time, types
import numpy as np
from runtime.errors import EngineMismatch, InputError
from runtime.runner import TensorSpec

class Runner:
    def __init__(self, path, lanes):
        assert lanes == 1
        if os.environ.get("REFUSE"):
            raise EngineMismatch(f"{os.path.basename(path)} is not of this machine")
        self.inputs = (TensorSpec("x/1", "float32", (-1, 2), (1, 2), (4, 2)), TensorSpec("b", "bfloat16", (-1,)))
        self.outputs = (TensorSpec("y", "float32", (-1, 2)), TensorSpec("file", "bfloat16", (-1,)))
    def infer(self, feed):
        print("something of a library's")
        if feed["x/1"][0, 0] == -1:
            raise InputError("minus one is refused")
        if feed["x/1"][0, 0] == -2:
            print("the GPU is on fire", file=sys.stderr)
            os._exit(7)
        return {"y": 2 * feed["x/1"], "file": -feed["b"]}
    def __enter__(self): return self
    def __exit__(self, *given):
        if os.environ.get("HANG"):
            time.sleep(600)
        open(os.environ["ENDED"], "w").close()

module = types.ModuleType("runtime.tensorrt_runner")
module.TensorRTRunner = Runner
sys.modules["runtime.tensorrt_runner"] = module
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An engine file; a child of this Python finds the stand-in where TensorRT's runner is."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    return file_engine(tmp_path, b"plan")


def feed(first):
    return {"x/1": np.array([[first, 3]], np.float32), "b": np.array([1.5], ml_dtypes.bfloat16)}


def test_it_answers_and_ends(engine, tmp_path):
    with ChildRunner(engine, sys.executable) as runner:
        assert [spec.name for spec in runner.inputs] == ["x/1", "b"] and runner.inputs[0].sizes(0) == (1, 4)
        for first in (1, 4):
            got = runner.infer(feed(first))
            np.testing.assert_array_equal(got["y"], np.array([[2 * first, 6]], np.float32))
            assert got["file"].dtype == ml_dtypes.bfloat16 and got["file"][0] == -1.5
        with pytest.raises(InputError, match="axis 0 takes 1 to 4"):
            runner.infer({**feed(1), "x/1": np.zeros((5, 2), np.float32)})
        with pytest.raises(InputError, match="minus one is refused"):
            runner.infer(feed(-1))
        assert runner.infer(feed(2))["y"][0, 0] == 4
        folder = runner._folder
    assert runner._process.returncode == 0 and (tmp_path / "ended").exists() and not folder.exists()
    runner.close()
    with pytest.raises(ToolchainError, match="is closed"):
        runner.infer(feed(1))


def test_a_child_that_dies_says_why(engine):
    with ChildRunner(engine, sys.executable) as runner:
        for _ in range(2):
            with pytest.raises(
                ToolchainError, match=r"ended with exit code 7 and no answer; last it said: the GPU is on"
            ):
                runner.infer(feed(-2))


def test_one_that_does_not_end_is_killed(engine, monkeypatch):
    monkeypatch.setenv("HANG", "1")
    monkeypatch.setattr(elsewhere, "_ENDING_SECONDS", 0.2)
    runner = ChildRunner(engine, sys.executable)
    folder = runner._folder
    runner.close()
    assert runner._process.returncode == -9 and not folder.exists()


def test_what_it_refuses_comes_through(engine, monkeypatch):
    monkeypatch.setenv("REFUSE", "1")
    with pytest.raises(EngineMismatch, match="is not of this machine"):
        ChildRunner(engine, sys.executable)
    with pytest.raises(ToolchainError, match="cannot start /nowhere/python: No such file"):
        ChildRunner(engine, "/nowhere/python")


def test_which_python_runs_it(engine, tmp_path, monkeypatch):
    here = []
    monkeypatch.setattr("runtime.tensorrt_runner.TensorRTRunner", lambda path, lanes: here.append(lanes))
    monkeypatch.setattr(elsewhere, "ChildRunner", lambda path, python: here.append(python))
    variable = python_variable(elsewhere.engine_manifest(engine).key.flavor)
    for named, expected in ((None, 3), (sys.executable, 3), ("/t86/python", "/t86/python")):
        monkeypatch.setenv(variable, named) if named else monkeypatch.delenv(variable, raising=False)
        engine_runner(engine, 3)
        assert here.pop() == expected
    os.symlink(sys.executable, tmp_path / "python")  # as another environment of the same Python has it
    monkeypatch.setenv(variable, str(tmp_path / "python"))
    for here_is, expected in (("1.0", 1), ("2.0", str(tmp_path / "python"))):
        monkeypatch.setattr(elsewhere, "load_flavor", lambda name, v=here_is: SimpleNamespace(__version__=v))
        engine_runner(engine)
        assert here.pop() == expected
