"""Any runner of ours in Polygraphy's comparator, and the files it loads again."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from polygraphy.comparator import RunResults
from polygraphy.json import load_json

from accuracy.comparison import GOLDEN, GOLDEN_FILE, INPUTS_FILE, OUTPUTS_FILE, compare
from accuracy.polygraphy_runner import HouseRunner
from runtime.errors import InputError, ToolchainError
from runtime.runner import TensorSpec


class Doubler:
    """Twice its input, in BF16; `fails` raises instead, `wrong` adds NaN."""

    inputs = (TensorSpec("x", "float32", (-1, 4)),)
    outputs = (TensorSpec("y", "bfloat16", (-1, 4)),)

    def __init__(self, fails: bool = False, wrong: bool = False):
        self.fails, self.wrong, self.closed = fails, wrong, 0

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.fails:
            raise ToolchainError("the GPU caught fire")
        y = (2 * feed["x"]).astype(ml_dtypes.bfloat16)
        if self.wrong:
            y[0, 1] = np.nan
        return {"y": y}

    def close(self) -> None:
        self.closed += 1


FEED = {"x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}
EXPECTED = {"y": 2 * FEED["x"]}


def judged(runner: Doubler, folder, judge=("cosine", 0.999)):
    return compare([HouseRunner(lambda: runner, "house")], FEED, EXPECTED, judge, folder)[0]


def test_a_runner_of_ours(tmp_path):
    runner = Doubler()
    done = judged(runner, tmp_path)
    assert done.passed and done.name == "house" and len(done.scores) == 3 and runner.closed == 1
    assert 0 < done.outputs["y"].relative_error < 2**-8
    inputs = load_json(str(tmp_path / INPUTS_FILE))
    assert [list(each) for each in inputs] == [["x"]] * 3
    np.testing.assert_array_equal(np.concatenate([each["x"] for each in inputs]), FEED["x"])
    golden = RunResults.load(str(tmp_path / GOLDEN_FILE))
    np.testing.assert_array_equal(golden[GOLDEN][2]["y"], EXPECTED["y"][2:3])
    assert RunResults.load(str(tmp_path / OUTPUTS_FILE))["house"][0]["y"].dtype == np.float32


def test_not_a_number_fails_and_names_the_worst_sample(tmp_path):
    done = judged(Doubler(wrong=True), tmp_path)
    assert not done.passed and done.outputs["y"].not_finite == 3 and done.scores == (float("-inf"),) * 3
    done = judged(Doubler(), tmp_path, ("cosine", 1.0))
    assert done.worst == int(np.argmin(done.scores))


def test_a_runner_that_fails(tmp_path):
    runner = Doubler(fails=True)
    with pytest.raises(ToolchainError, match="the GPU caught fire"):
        judged(runner, tmp_path)
    assert runner.closed == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, OSError)):
        judged(Doubler(), tmp_path / "file" / "folder")
