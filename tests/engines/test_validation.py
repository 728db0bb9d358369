"""Validation files are read back as they were written, and anything else is refused without running it."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest

from engines import validation as room
from engines.validation import Validation, answers, gate
from runtime.errors import InputError
from runtime.runner import TensorSpec


def sound():
    feed = {"x": np.arange(10, dtype=np.float32).reshape(5, 2), "ids": np.arange(5)[:, None]}
    return Validation(feed, {"y": feed["x"] * 2}, "cosine", 0.999, "PyTorch FP32, 5 samples")


def test_saved_and_loaded(tmp_path):
    sound().save(tmp_path / "v.npz")
    loaded = Validation.load(tmp_path / "v.npz")
    assert (loaded.metric, loaded.threshold, loaded.against, loaded.samples) == ("cosine", 0.999, sound().against, 5)
    for mine, other in ((loaded.feed, sound().feed), (loaded.expected, sound().expected)):
        assert list(mine) == list(other)
        assert all(np.array_equal(mine[n], other[n]) and mine[n].dtype == other[n].dtype for n in other)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def _npz(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def _write(kind, path):
    about = np.array(["psnr", "30", "x"])
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "object array":
        _npz(path, about=about, **{"input.x": np.array([Bomb()], dtype=object), "output.y": np.ones(1)})
    elif kind == "single array":
        with open(path, "wb") as file:
            np.save(file, np.ones(3))
    elif kind == "no about":
        _npz(path, **{"input.x": np.ones(1), "output.y": np.ones(1)})
    elif kind == "short about":
        _npz(path, about=about[:2], **{"input.x": np.ones(1), "output.y": np.ones(1)})
    elif kind == "no samples":
        _npz(path, about=about)
    elif kind == "uneven":
        _npz(path, about=about, **{"input.x": np.ones(2), "output.y": np.ones(1)})
    elif kind == "cut":
        sound().save(path)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "damaged":
        sound().save(path)
        content = bytearray(path.read_bytes())
        content[60:90] = bytes(30)
        path.write_bytes(content)
    elif kind == "other archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.npy", "no array")
    elif kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.touch()


KINDS = ["pickle", "object array", "single array", "no about", "short about", "no samples", "uneven", "cut", "damaged"]
KINDS += ["other archive", "text", "empty", "missing"]


@pytest.mark.parametrize("kind", KINDS)
def test_anything_else_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "v.npz"
    _write(kind, path)
    with pytest.raises(InputError) as caught:
        Validation.load(path)
    assert "\n" not in str(caught.value) and ("v.npz" in str(caught.value) or "samples" in str(caught.value))
    assert not (tmp_path / "unpickled").exists()


def test_a_file_that_unfolds_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_MOST_BYTES", 1000)
    path = tmp_path / "v.npz"
    with open(path, "wb") as file:
        np.savez_compressed(file, about=np.array(["psnr", "30", "x"]), **{"input.x": np.zeros(10_000)})
    with pytest.raises(
        InputError, match=r"v\.npz is no validation file \(it holds 2 arrays of \d+ bytes, more than 1000"
    ):
        Validation.load(path)


class Doubler:
    """Takes batches of `sizes` only."""

    def __init__(self, sizes, batch=-1):
        self.sizes, self.seen = sizes, []
        self.inputs = [TensorSpec("x", "float32", (batch, 2)), TensorSpec("ids", "int64", (batch, 1))]

    def infer(self, feed):
        assert len(feed["x"]) == len(feed["ids"]) in self.sizes
        self.seen.append(len(feed["x"]))
        return {"y": feed["x"] * 2, "unasked": feed["ids"]}


@pytest.mark.parametrize(
    ("runner", "batch", "seen"),
    [
        (Doubler({1, 2}), 2, [2, 2, 1]),
        (Doubler({2}, 2), 2, [2, 2, 2]),
        (Doubler({5}), 8, [5]),
        (Doubler({8}, 8), 8, [8]),
    ],
)
def test_batches_are_as_the_runner_takes_them(runner, batch, seen):
    got = answers(runner, sound(), batch)
    assert runner.seen == seen and list(got) == ["y"]
    assert np.array_equal(got["y"], sound().expected["y"])
    verdict = gate(runner, sound(), batch)
    assert verdict.state == "passed" and len(verdict.scores) == 5 and verdict.against == sound().against


def test_one_bad_sample_fails_the_gate():
    expected = {"y": sound().expected["y"] * np.array([[1], [1], [-1], [1], [1]], np.float32)}
    verdict = gate(Doubler({1}), Validation(sound().feed, expected, "cosine", 0.999, "x"), 1)
    assert verdict.state == "failed" and verdict.scores[2] == pytest.approx(-1)
