"""Every file that is written beside engines, with its writer killed at a random moment."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engines.linear_times import add_times, read_times
from engines.validation import Validation
from runtime.files import remove_leftovers, write_bytes
from runtime.hashes import cached_sha256
from soak.killed import KILLED, check_unlocked, killed_at, moments
from soak.result import promise

_BYTES = 2 << 20


def killed_writes(folder: Path, count: int, seed: int = 1) -> dict[str, int]:
    """Kill the writer of a large file, of the hash memo, of times and of a validation file; each stays whole."""
    folder.mkdir(parents=True)
    data = folder / "source.bin"
    data.write_bytes(bytes(1 << 20))
    writers: list[tuple[Callable[[], None], Callable[[], None]]] = [
        (lambda: _write_large(folder / "large.bin"), lambda: _check_large(folder / "large.bin")),
        (lambda: _write_memo(folder, data), lambda: _check_memo(folder, data)),
        (lambda: _write_times(folder / "linear.json"), lambda: _check_times(folder / "linear.json")),
        (lambda: _write_validation(folder / "v.npz"), lambda: _check_validation(folder / "v.npz")),
    ]
    for work, _ in writers:
        promise(killed_at(work, 60) != KILLED, "a writer fails though nobody kills it")
    counts = {"writes": 0, "killed": 0, "locks": 0}
    for number, seconds in enumerate(moments(count, 0.06, seed)):
        work, check = writers[number % len(writers)]
        counts["killed"] += killed_at(work, seconds) == KILLED
        counts["writes"] += 1
        check()
        counts["locks"] += check_unlocked(folder)
    remove_leftovers(folder)
    promise(not list(folder.glob(".tmp-*")), "a killed writer's temporary file cannot be removed")
    shutil.rmtree(folder)
    return counts


def _write_large(path: Path) -> None:
    for turn in range(8):
        body = bytes([turn]) * _BYTES
        write_bytes(path, hashlib.sha256(body).digest() + body)


def _check_large(path: Path) -> None:
    content = path.read_bytes()
    promise(hashlib.sha256(content[32:]).digest() == content[:32], f"{path} is partial")


def _write_memo(folder: Path, data: Path) -> None:
    for turn in range(20):
        copy = folder / f"source{turn % 4}.bin"
        write_bytes(copy, bytes([turn]) * 1000)
        cached_sha256(copy, folder / "hashes.json")


def _check_memo(folder: Path, data: Path) -> None:
    expected = hashlib.sha256(data.read_bytes()).hexdigest()
    promise(cached_sha256(data, folder / "hashes.json") == expected, "the memo gives a wrong hash")


def _write_times(path: Path) -> None:
    for turn in range(20):
        add_times(path, {f"unit{turn}": {("plugin", "tensorrt"): 0.5, ("plugin",): 0.25}})


def _check_times(path: Path) -> None:
    times = read_times(path)
    promise(len(times) == 20 and all(len(each) == 2 for each in times.values()), f"{path} lost times")


def _write_validation(path: Path) -> None:
    for turn in range(8):
        array = np.full((4, 64, 64, 3), turn, np.uint8)
        Validation({"image": array}, {"dog": array}, "psnr", 30.0, "itself").save(path)


def _check_validation(path: Path) -> None:
    loaded = Validation.load(path)
    promise(np.array_equal(loaded.feed["image"], loaded.expected["dog"]), f"{path} is mixed of two")
