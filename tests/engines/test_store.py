"""Names: of batch profiles, of folders and of engine files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines.batch import BatchProfile
from engines.store import engine_folder, engine_path, list_engines, short_version
from runtime.errors import InputError
from runtime.manifest import EngineKey


@pytest.mark.parametrize(
    ("text", "sizes", "printed", "label"),
    [
        ("4", (4, 4, 4), "4", "b4-4"),
        ("1-8", (1, 8, 8), "1-8", "b1-8"),
        ("1-2-8", (1, 2, 8), "1-2-8", "b1-8"),
        ("1-1-8", (1, 1, 8), "1-1-8", "b1-8"),
        ("3-3", (3, 3, 3), "3", "b3-3"),
    ],
)
def test_batches(text, sizes, printed, label):
    batch = BatchProfile.parse(text)
    assert (batch.least, batch.tuned, batch.most) == sizes
    assert (str(batch), batch.label, batch.fixed) == (printed, label, sizes[0] == sizes[2])
    assert BatchProfile.parse(str(batch)) == batch


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "1-2-3-4", "1,2", " 1", "1\n", "1.5", "9" * 30])
def test_texts_that_are_no_batch(text):
    with pytest.raises(InputError) as caught:
        BatchProfile.parse(text)
    assert str(caught.value) == f"batch {text!r} is not of the form 4, 1-8 or 1-2-8 (least, tuned for, most)"


@pytest.mark.parametrize(
    ("text", "shown"), [("0", "0-0-0"), ("8-1", "8-1-1"), ("1-9-8", "1-9-8"), ("65537", "65537-65537-65537")]
)
def test_batches_that_do_not_rise(text, shown):
    with pytest.raises(InputError, match=rf"^batch {shown} does not rise from at least 1 to at most 65536$"):
        BatchProfile.parse(text)


KEY = EngineKey("500m-256", "a" * 64, "b" * 64, "fp16", "native", "tensorrt", "10.14.1.48", (1, 2, 8))


def test_an_engine_for_one_gpu():
    key = replace(KEY, gpu="NVIDIA H100 80GB HBM3", compute_capability="9.0")
    assert engine_path(Path("build/engines"), key) == Path(
        f"build/engines/NVIDIA-H100-80GB-HBM3_sm90_tensorrt10.14.1/500m-256_fp16_native_b1-8_{key.key8}.engine"
    )


def test_an_engine_built_ahead_of_time():
    key = replace(KEY, flavor="tensorrt_rtx", flavor_version="1.7.1.116", targets=("8.0", "8.6", "8.9", "12.0"))
    assert engine_folder(Path("e"), key) == Path("e/aot-sm80-86-89-120_tensorrt_rtx1.7.1")


def test_a_gpu_cannot_name_a_folder_elsewhere():
    assert engine_folder(Path("e"), replace(KEY, gpu="../../x y", compute_capability="8.6")).parent == Path("e")
    assert (short_version("8.6.0"), short_version("1.7.1.116")) == ("8.6.0", "1.7.1")


def test_temporary_files_are_no_engines(tmp_path):
    for name in ("b.engine", "a.engine", ".tmp-1-x.engine", "a.json"):
        (tmp_path / "gpu").mkdir(exist_ok=True)
        (tmp_path / "gpu" / name).touch()
    assert list_engines(tmp_path) == [tmp_path / "gpu" / "a.engine", tmp_path / "gpu" / "b.engine"]
    assert list_engines(tmp_path / "absent") == []
