"""`python -m soak.cache`: the store of engines under fire: builds that are killed, crowded, starved and locked out.

Whatever happens: no engine that loads is partial or wrong, no lock stays held, and the next build succeeds.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.build import BuildRequest, build, engine_key, find
from engines.store import engine_path, list_engines
from runtime.engine_file import open_engine
from runtime.errors import ToolchainError
from runtime.files import sha256_file
from runtime.flavors import Flavor, find_flavor
from soak.flipped import flipped_bits
from soak.full_disk import full_disk
from soak.killed import KILLED, check_unlocked, ended, forked, killed_at, moments
from soak.result import measured, promise
from soak.shut_out import read_only, symbolic_links
from soak.tiny import request_of, validation_of, write_tiny
from soak.written import killed_writes

CROWD = 8


@dataclass(frozen=True)
class Shop:
    """A folder with graphs to build, and what their engines must be: the builder gives the same bytes each time."""

    folder: Path
    flavor: Flavor
    requests: tuple[BuildRequest, ...]
    right: dict[str, str]  # checkpoint to the SHA-256 of its plan
    seconds: float  # one build, undisturbed

    def at(self, root: Path) -> list[BuildRequest]:
        """The same builds into another store."""
        return [replace(request, root=root) for request in self.requests]

    def check(self, root: Path) -> int:
        """Every engine in the store that would be loaded is whole and right; how many there are."""
        sound = 0
        for request in self.at(root):
            if find(request) is None:
                continue  # to be built again
            path = engine_path(root, engine_key(request, self.flavor))
            with open_engine(path, self.flavor, None) as (manifest, plan):
                promise(len(plan) == manifest.size, f"{path} is partial")
            promise(sha256_file(path) == self.right[request.checkpoint], f"{path} is another engine than it says")
            sound += 1
        return sound


def shop_in(folder: Path, graphs: int = 4) -> Shop:
    """Graphs, their right engines (built twice, to see that they are the same), and the time that takes.

    Raises InputError where TensorRT-RTX cannot build.
    """
    flavor = find_flavor("tensorrt_rtx")
    requests = []
    for seed in range(graphs):
        onnx_file = write_tiny(folder / "onnx" / f"tiny{seed}.onnx", seed)
        requests.append(request_of(onnx_file, validation_of(onnx_file), folder / "right", seed, flavor=flavor))
    right: dict[str, str] = {}
    for request in requests:
        right[request.checkpoint] = build(request).manifest.sha256
    began = time.monotonic()
    for request in requests[:2]:
        again = build(replace(request, force=True)).manifest.sha256
        promise(again == right[request.checkpoint], "the builder does not repeat itself; nothing can be compared")
    return Shop(folder, flavor, tuple(requests), right, (time.monotonic() - began) / 2)


def killed_builds(shop: Shop, count: int, seed: int = 0) -> dict[str, int]:
    """Kill a build at a random moment, or the builder it started; look at what is left; build again."""
    root = shop.folder / "killed"
    requests = shop.at(root)
    counts = {
        "builds": 0,
        "killed": 0,
        "killed_builders": 0,
        "outlived": 0,
        "loaded_after": 0,
        "rebuilt": 0,
        "locks": 0,
    }
    for number, seconds in enumerate(moments(count, shop.seconds, seed)):
        request, child = requests[number % len(requests)], number % 5 == 4
        if number % 3 == 0:  # else there is an engine already, which is built over
            shutil.rmtree(root, ignore_errors=True)
        forced = replace(request, force=True)
        how = killed_at(lambda forced=forced: build(forced), seconds, child)  # type: ignore[misc]
        counts["builds"] += 1
        counts[("killed_builders" if child else "killed") if how == KILLED else "outlived"] += 1
        counts["loaded_after"] += shop.check(root)
        counts["locks"] += check_unlocked(root)
        built = build(request)
        promise(built.manifest.sha256 == shop.right[request.checkpoint], f"{built.path}: the next build is wrong")
        counts["rebuilt"] += built.fresh
    for request in requests:  # whoever builds next clears away what killed processes left
        build(replace(request, force=True))
    promise(shop.check(root) == len(requests), "an engine is missing at the end")
    left = [path.name for path in shop.folder.rglob(".tmp-*")]
    promise(not left, f"left lying: {left[:3]}")
    return counts


def crowded_builds(shop: Shop, rounds: int, seed: int = 0) -> dict[str, int]:
    """Eight processes at once, for the same and for different engines; in every other round one of them is killed."""
    counts = {"rounds": rounds, "processes": 0, "killed": 0, "built": 0, "engines": 0}
    random_ = random.Random(seed)
    for number in range(rounds):
        root = shop.folder / f"crowd{number}"
        requests = shop.at(root)
        diary = shop.folder / f"crowd{number}.txt"
        pids = [forked(_noted(requests[index % len(requests)], diary)) for index in range(CROWD)]
        if number % 2:
            time.sleep(random_.uniform(0, shop.seconds * 3))
            victim = pids.pop(random_.randrange(CROWD))
            counts["killed"] += killed_at_once(victim)
        for pid in pids:
            promise(ended(pid) == 0, "a process that was left alone failed")
        fresh = diary.read_text().splitlines()
        # One that is killed may have filed its engine, or not, without a note of it.
        promise(len(fresh) == len(set(fresh)), f"an engine was built twice: {sorted(fresh)}")
        promise(number % 2 == 1 or len(fresh) == len(requests), f"built {sorted(fresh)}, expected each once")
        check_unlocked(root)
        counts["processes"] += CROWD
        counts["built"] += len(fresh)
        counts["engines"] += shop.check(root)
        promise(len(list_engines(root)) == len(requests), "engines are missing")
        shutil.rmtree(root)
    return counts


def killed_at_once(pid: int) -> int:
    """Kill the process; whether it had not ended."""
    import os
    import signal

    os.kill(pid, signal.SIGKILL)
    return int(ended(pid) != 0)


def _noted(request: BuildRequest, diary: Path) -> Callable[[], None]:
    def work() -> None:
        if build(request).fresh:
            with open(diary, "a") as file:
                file.write(f"{request.checkpoint}\n")

    diary.touch()
    return work


def run(folder: Path, kills: int, writes: int, rounds: int, sizes: int, flips: int) -> dict[str, Any]:
    """All of it in `folder`; the counts. Raises Broken where a promise is not kept."""
    shop = shop_in(folder)
    return {
        "killed_builds": killed_builds(shop, kills),
        "killed_writes": killed_writes(folder / "writes", writes),
        "crowded_builds": crowded_builds(shop, rounds),
        "full_disk": full_disk(shop, sizes),
        "read_only": read_only(shop),
        "symbolic_links": symbolic_links(shop),
        "flipped_bits_seen": flipped_bits(shop, flips),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, file the counts; exit code 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.cache", description="The store of engines under fire.")
    parser.add_argument("--kills", type=int, default=400, help="builds that are killed (default: 400)")
    parser.add_argument("--writes", type=int, default=600, help="writes that are killed (default: 600)")
    parser.add_argument("--rounds", type=int, default=12, help="rounds of eight processes at once (default: 12)")
    parser.add_argument("--sizes", type=int, default=24, help="sizes of a full disk (default: 24)")
    parser.add_argument("--flips", type=int, default=2000, help="bits flipped in each kind of file (default: 2000)")
    parser.add_argument("--output", type=Path, help="result file (default: bench/results/reliability/cache.json)")
    args = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="cat2dog-soak-") as folder:
            work = (Path(folder), args.kills, args.writes, args.rounds, args.sizes, args.flips)
            measured("cache", lambda: run(*work), args.output)
    except (AssertionError, ToolchainError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
