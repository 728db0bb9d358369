"""`.npz` files that say one thing and hold another."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
import pytest

from runtime.npz import read_npz

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "c": np.array(["x", "yz"]),
    "d": np.array(3.5),
    "e": np.zeros((0, 4), np.uint8),
}


def header(shape, dtype="<f4", version=b"\1\0"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


def refused(tmp_path, content, kind=zipfile.ZIP_STORED):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError) as error:
        read_npz(path, 1 << 20)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote_is_read(save, tmp_path):
    save(tmp_path / "x.npz", **ARRAYS)
    read = read_npz(tmp_path / "x.npz", 1 << 20, compressed=save is np.savez_compressed)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(read[name], array) and read[name].dtype == array.dtype and read[name].flags.writeable


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header("(1 << 40,)"), "alformed"),
        (header((1 << 40,)), "is said to lie in"),
        (header((1 << 62, 1 << 62)), "is said to lie in"),
        (header((-4,)) + bytes(16), "a negative size"),
        (header((2,), "|O") + bytes(16), "which would be unpickled"),
        (header((4,)) + bytes(15), "is said to lie in"),
        (header((4,), version=b"\x03\0") + bytes(16), "there is no format (3, 0) of arrays"),
        (b"\x93NUMPY\1\0\x04\0a\0b\n", ""),
        (b"", ""),
    ],
)
def test_arrays_that_are_not_what_they_say(content, said, tmp_path):
    assert said in refused(tmp_path, content)


def test_an_archive_that_unfolds(tmp_path):
    assert "compressed in another way" in refused(tmp_path, header((1 << 17,)) + bytes(1 << 19), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="more than 1000"):
        read_npz(tmp_path / "x.npz", 1000, compressed=True)


def test_an_archive_that_lies_about_its_sizes(tmp_path):
    """A gigabyte that is said to be 144 bytes: no more than those are unfolded."""
    body = header((4,)) + bytes(1 << 24)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", body)
    lied = packed.getvalue().replace(len(body).to_bytes(4, "little"), (len(header((4,))) + 16).to_bytes(4, "little"))
    (tmp_path / "x.npz").write_bytes(lied)
    with pytest.raises(ValueError, match="CRC"):
        read_npz(tmp_path / "x.npz", 1 << 20, compressed=True)
    assert zlib.crc32(body)


def test_no_archive_at_all(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a zip file"):
        read_npz(tmp_path / "x.npz", 1 << 20)
    with pytest.raises(ValueError, match="No such file"):
        read_npz(tmp_path / "none.npz", 1 << 20)
