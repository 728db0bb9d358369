"""Pairs drawn while a network trains: worker processes draw into shared memory, and a growing pool keeps them all.

The pool is a uint8 tensor where the network is, so that a training batch costs one gather. Which pairs it holds at a
given step depends on how fast the workers are; for a repeatable run fill it from shards and start no workers.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from runtime.errors import InputError, ToolchainError
from training.draw_worker import CHUNK, draw_chunks
from training.shards import read_shard

_SLOTS_PER_WORKER = 2


class Workers:
    """Processes that draw pairs of seeds `first_seed`, `first_seed + 1`, … until closed. A context manager."""

    def __init__(self, count: int, size: int, first_seed: int):
        context = multiprocessing.get_context("spawn")
        self._shape = (count * _SLOTS_PER_WORKER, CHUNK, 2, size, size, 3)
        _check_room(int(np.prod(self._shape)))
        self._memory = shared_memory.SharedMemory(create=True, size=int(np.prod(self._shape)))
        self._slots = np.ndarray(self._shape, dtype=np.uint8, buffer=self._memory.buf)
        self._free, self._full = context.Queue(), context.Queue()
        self._next_seed = context.Value("q", first_seed)
        for slot in range(self._shape[0]):
            self._free.put(slot)
        arguments = (self._memory.name, self._shape, self._free, self._full, self._next_seed)
        self._processes = [context.Process(target=draw_chunks, args=arguments, daemon=True) for _ in range(count)]
        for process in self._processes:
            process.start()

    @property
    def next_seed(self) -> int:
        """The first seed that no worker has taken."""
        return self._next_seed.value

    def collect(self, pool: Pool, wait: bool = False) -> None:
        """Move what is drawn into `pool`; with `wait`, at least one chunk. Raises ToolchainError if a worker died."""
        while not pool.is_full:
            try:
                slot = self._full.get(timeout=0.5) if wait else self._full.get_nowait()
            except queue.Empty:
                dead = [process.exitcode for process in self._processes if process.exitcode is not None]
                if dead:
                    raise ToolchainError(
                        f"a drawing process ended with exit code {dead[0]}: see its message above"
                    ) from None
                if wait:
                    continue
                return
            pool.add(torch.from_numpy(self._slots[slot]))
            self._free.put(slot)
            wait = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for line in (self._free, self._full):
            line.cancel_join_thread()
            line.close()
        del self._slots
        self._memory.close()
        self._memory.unlink()


def _check_room(size: int) -> None:
    # Where shared memory is a small mount, writing past its end kills the process without a message.
    mount = Path("/dev/shm")
    if mount.is_dir():
        status = os.statvfs(mount)
        free = status.f_bavail * status.f_frsize
        if free < size:
            raise ToolchainError(
                f"{mount} has {free >> 20} MiB free, expected {(size >> 20) + 1}: give fewer --workers"
            )


class Pool:
    """Room for `capacity` pairs of `size` pixels on `device`."""

    def __init__(self, capacity: int, size: int, device: torch.device):
        self._pairs = torch.empty((capacity, 2, size, size, 3), dtype=torch.uint8, device=device)
        self.count = 0

    @property
    def is_full(self) -> bool:
        return self.count == len(self._pairs)

    def add(self, pairs: UInt8[Tensor, "n 2 s s 3"]) -> None:
        """Keep copies of as many of `pairs` (cat, dog) as there is room for."""
        pairs = pairs[: len(self._pairs) - self.count]
        self._pairs[self.count : self.count + len(pairs)] = pairs
        self.count += len(pairs)

    def add_shards(self, paths: list[Path]) -> None:
        """Add whole shards, in order. Raises InputError for a bad one."""
        for path in paths:
            if self.is_full:
                return
            _, cats, dogs = read_shard(path, self._pairs.shape[2])
            self.add(torch.from_numpy(np.stack([cats, dogs], axis=1)))

    def draw(self, batch: int, generator: torch.Generator) -> tuple[UInt8[Tensor, "b s s 3"], UInt8[Tensor, "b s s 3"]]:
        """`batch` random cats and their dogs. `generator` is on the CPU, so that devices choose alike."""
        if self.count == 0:
            raise InputError("there is nothing to train on: give --shards, or --workers of at least 1")
        index = torch.randint(self.count, (batch,), generator=generator).to(self._pairs.device)
        chosen = self._pairs[index]
        return chosen[:, 0], chosen[:, 1]
