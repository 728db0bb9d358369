"""Pairs drawn beforehand: dogs come back exact, damage is noticed, what is there is not drawn again."""

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.metrics import psnr
from training.draw import pair
from training.shards import main, read_shard, shard_paths, write_shard


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "shard-a.npz"
    write_shard(path, range(4, 7), 32)
    return path


def test_dogs_are_exact_and_cats_nearly(shard):
    seeds, cats, dogs = read_shard(shard, 32)
    assert seeds.tolist() == [4, 5, 6]
    for index, seed in enumerate(seeds):
        cat, dog = pair(int(seed), 32)
        assert (dogs[index] == dog).all()
        assert psnr(cats[index], cat) > 26


def test_another_size_is_refused(shard):
    with pytest.raises(
        InputError, match=r"holds version and size \[1, 32\], expected \[1, 64\]: write the shards again"
    ):
        read_shard(shard, 64)


def test_a_truncated_shard_is_refused(shard, tmp_path):
    short = tmp_path / "shard-short.npz"
    short.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"shard-short\.npz is damaged \(.*\): write the shard again$"):
        read_shard(short, 32)


def test_changed_pictures_are_refused(shard, tmp_path):
    fields = dict(np.load(shard))
    fields["dogs"] = np.zeros_like(fields["dogs"])
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(InputError, match=r"holds a picture that is damaged or not 32x32: write the shard again$"):
        read_shard(tmp_path / "bad.npz", 32)
    fields["cat_ends"] = fields["cat_ends"][::-1].copy()
    np.savez(tmp_path / "bad.npz", **fields)
    with pytest.raises(InputError, match=r"is damaged \(its pictures do not fill it\): write the shard again$"):
        read_shard(tmp_path / "bad.npz", 32)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "shard-evil.npz"
    np.savez(path, about=np.array([object()], dtype=object))
    with pytest.raises(InputError, match=r"expected a shard of training\.shards"):
        read_shard(path, 32)


def test_a_missing_shard_and_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match=r"^cannot read .*none\.npz: No such file or directory; expected a shard$"):
        read_shard(tmp_path / "none.npz", 32)
    with pytest.raises(InputError, match=r"^no shards in .*: make some with python -m training\.shards --out"):
        shard_paths(tmp_path)


def test_the_command_draws_only_what_is_missing(tmp_path, capsys):
    arguments = ["--seeds", "0:4", "--size", "32", "--per-shard", "2", "--workers", "1", "--out", str(tmp_path)]
    assert main(arguments) == 0
    first, second = shard_paths(tmp_path)
    assert read_shard(second, 32)[0].tolist() == [2, 3]
    assert capsys.readouterr().out.endswith("2 of 2 shards\n")
    stamp = first.stat().st_mtime_ns
    second.unlink()
    assert main(arguments) == 0
    assert first.stat().st_mtime_ns == stamp and second.is_file()


def test_bad_options_are_refused(tmp_path, capsys):
    assert main(["--size", "31", "--out", str(tmp_path)]) == 2
    assert main(["--workers", "0", "--out", str(tmp_path)]) == 2
    assert "--workers at least 1" in capsys.readouterr().err
