import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from runtime import hashes
from runtime.errors import InputError
from runtime.hashes import cached_sha256


def test_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    path, memo = tmp_path / "weights", tmp_path / "memo.json"
    path.write_bytes(b"one")
    wanted = hashlib.sha256(b"one").hexdigest()
    assert cached_sha256(path, memo) == wanted
    link = tmp_path / "link"
    link.symlink_to(path)
    with monkeypatch.context() as patch:
        patch.setattr(hashes, "sha256_file", None)  # reading again would raise
        assert cached_sha256(path, memo) == wanted
        assert cached_sha256(link, memo) == wanted


def test_a_changed_file_is_read_again_and_its_old_entry_goes(tmp_path):
    path, memo = tmp_path / "weights", tmp_path / "memo.json"
    path.write_bytes(b"one")
    cached_sha256(path, memo)
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert cached_sha256(path, memo) == hashlib.sha256(b"two").hexdigest()
    assert len(json.loads(memo.read_text())) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}'])
def test_a_damaged_memo_is_started_afresh(tmp_path, damage):
    path, memo = tmp_path / "weights", tmp_path / "memo.json"
    path.write_bytes(b"one")
    memo.write_bytes(damage)
    assert cached_sha256(path, memo) == hashlib.sha256(b"one").hexdigest()
    assert list(json.loads(memo.read_text()).values()) == [hashlib.sha256(b"one").hexdigest()]


def test_a_damaged_entry_is_not_believed(tmp_path):
    path, memo = tmp_path / "weights", tmp_path / "memo.json"
    path.write_bytes(b"one")
    cached_sha256(path, memo)
    memo.write_text(json.dumps({key: value[:-1] for key, value in json.loads(memo.read_text()).items()}))
    assert cached_sha256(path, memo) == hashlib.sha256(b"one").hexdigest()


def test_several_processes_share_a_memo(tmp_path):
    memo, paths = tmp_path / "memo.json", [tmp_path / f"weights{i}" for i in range(8)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        digests = list(pool.map(cached_sha256, paths, [memo] * len(paths)))
    assert digests == [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    assert sorted(json.loads(memo.read_text()).values()) == sorted(digests)


def test_a_missing_file_is_a_one_line_error(tmp_path):
    with pytest.raises(InputError) as caught:
        cached_sha256(tmp_path / "none", tmp_path / "memo.json")
    assert str(caught.value) == f"cannot read {tmp_path}/none: No such file or directory; expected a readable file"
