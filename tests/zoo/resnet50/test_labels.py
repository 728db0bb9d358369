"""Names of the classes, and the answer's lines."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import InputError, ToolchainError
from zoo.resnet50 import labels
from zoo.resnet50.answer import answer_of


def test_where_they_come_from(tmp_path, monkeypatch):
    models = tmp_path / "torchvision" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (models / "_meta.py").write_text("_IMAGENET_CATEGORIES = [f'name {i}' for i in range(1000)]")
    monkeypatch.syspath_prepend(tmp_path)
    assert labels.labels_of(None)[999] == "name 999"
    monkeypatch.setattr(labels.importlib.util, "find_spec", lambda name: None)
    assert labels.labels_of(None)[:2] == ["class 0", "class 1"]
    file = tmp_path / "labels.txt"
    file.write_text("".join(f"ä {i}\n" for i in range(1000)))
    assert labels.labels_of(file)[7] == "ä 7"
    for content, words in (
        (b"one\n", "has 1 lines; expected 1000"),
        (b"\xff", "not UTF-8"),
        (b"\r\n" * 1000, "control"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            labels.labels_of(file)
    with pytest.raises(InputError, match="cannot be read"):
        labels.labels_of(tmp_path / "absent")


def outputs(**logits):
    values = np.zeros((1, 1000), np.float32)
    for name, value in logits.items():
        values[0, int(name[1:])] = value
    return {"logits": values, "statistics": np.array([[0.2052327, 0.0391804]], np.float32)}


def test_the_documents_lines():
    answer = answer_of(outputs(c3=20.0, c8=19.0))
    names = [f"cat {i}" for i in range(1000)]
    first, second = answer.lines(4, names)
    assert first == "mean: 0.205233 variance: 0.039180 of image #4"
    assert second == "image #4 is 73.11% a cat 3 and 26.89% a cat 8"


def test_of_equal_ones_the_lower_comes_first_and_nan_is_refused():
    assert answer_of(outputs(c9=1.0, c5=1.0)).classes == (5, 9)
    assert answer_of(outputs()).classes == (0, 1)
    with pytest.raises(ToolchainError, match="not finite"):
        answer_of(outputs(c1=float("nan")))
