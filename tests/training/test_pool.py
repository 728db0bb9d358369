"""Drawing processes fill the pool with the seeds they were given; a dead one is noticed."""

import pytest
import torch

from runtime.errors import InputError, ToolchainError
from training.draw import pair
from training.draw_worker import CHUNK
from training.pool import Pool, Workers
from training.shards import write_shard

CPU = torch.device("cpu")


def test_workers_draw_the_next_seeds_until_the_pool_is_full():
    pool = Pool(CHUNK + 3, 32, CPU)
    with Workers(1, 32, first_seed=40) as workers:
        while not pool.is_full:
            workers.collect(pool, wait=True)
        assert workers.next_seed >= 40 + 2 * CHUNK
    assert pool.count == CHUNK + 3
    for index in (0, CHUNK + 2):
        cat, dog = pair(40 + index, 32)
        assert (pool._pairs[index, 0].numpy() == cat).all() and (pool._pairs[index, 1].numpy() == dog).all()


def test_a_dead_worker_is_an_error_and_not_a_hang():
    with Workers(1, 32, first_seed=0) as workers:
        workers._processes[0].terminate()
        workers._processes[0].join()
        with pytest.raises(
            ToolchainError, match=r"^a drawing process ended with exit code -15: see its message above$"
        ):
            workers.collect(Pool(10_000, 32, CPU), wait=True)


def test_shards_fill_the_pool_in_order(tmp_path):
    write_shard(tmp_path / "shard-0.npz", range(3), 32)
    pool = Pool(2, 32, CPU)
    pool.add_shards([tmp_path / "shard-0.npz"])
    assert pool.is_full
    assert (pool._pairs[1, 1].numpy() == pair(1, 32)[1]).all()


def test_a_batch_is_repeatable_and_pairs_stay_together():
    pool = Pool(8, 32, CPU)
    pool.add(torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1, 1, 1).expand(8, 2, 32, 32, 3))
    first = pool.draw(16, torch.Generator().manual_seed(5))
    again = pool.draw(16, torch.Generator().manual_seed(5))
    assert torch.equal(first[0], again[0]) and torch.equal(first[0], first[1])
    assert len(first[0].unique()) > 4


def test_an_empty_pool_says_what_to_do():
    with pytest.raises(InputError, match=r"^there is nothing to train on: give --shards, or --workers of at least 1$"):
        Pool(4, 32, CPU).draw(2, torch.Generator())


def test_too_little_shared_memory_is_said_before_it_kills(monkeypatch):
    import os
    from types import SimpleNamespace

    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(ToolchainError, match=r"^/dev/shm has 0 MiB free, expected \d+: give fewer --workers$"):
        Workers(2, 64, first_seed=0)
