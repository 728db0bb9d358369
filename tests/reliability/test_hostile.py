"""Some files made to hurt, read in processes of their own as `make soak` reads them all."""

from __future__ import annotations

import pytest

from soak.hostile import MOST_BYTES, MOST_SECONDS, run


@pytest.mark.parametrize(
    "name",
    ["onnx to run: data of another folder", "onnx: ten million nodes", "safetensors: lists of 90 MB",
     "picture: PNG of 9999 x 9999", "npz: an array of 8 EB"],
)  # fmt: skip
def test_refused_in_a_second_and_500_mb(name, tmp_path):
    counts = run(tmp_path, name)
    assert counts["refused"] == 1
    assert counts["most_seconds"] <= MOST_SECONDS and counts["most_peak_bytes"] <= MOST_BYTES
