"""What a drawing process does. Apart from `pool`, so that such a process never imports torch."""

from __future__ import annotations

import signal
from multiprocessing import shared_memory
from typing import Any

import cv2
import numpy as np

from training.draw import pair

CHUNK = 16  # pairs handed over at once


def draw_chunks(name: str, shape: tuple[int, ...], free: Any, full: Any, next_seed: Any) -> None:
    """Take a free slot, draw the next `CHUNK` seeds into it, report it full; for ever.

    The slots are uint8 `shape` = `[slots, CHUNK, 2, size, size, 3]` in the shared memory `name`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then ends its workers
    cv2.setNumThreads(1)
    memory = shared_memory.SharedMemory(name=name)
    slots = np.ndarray(shape, dtype=np.uint8, buffer=memory.buf)
    while True:
        slot = free.get()
        with next_seed.get_lock():
            seed = next_seed.value
            next_seed.value += CHUNK
        for index in range(CHUNK):
            slots[slot, index] = pair(seed + index, shape[3])
        full.put(slot)
