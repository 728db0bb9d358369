"""Stations on Ray Data actors: Ray decides where they run and starts those anew that die."""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleet.opening import Shipped, files_of
from fleet.station import Result, Station, told
from runtime.errors import GpuLost, MissingExtra, ToolchainError
from runtime.place import Place

# Pictures of one task: what is given out again when its worker dies. A driver gives out some fifty tasks a second
# (`python -m bench.fleet_rate`), so that GPUs, which draw a thousand pictures a second, get larger ones.
_LEAST_BLOCK, _MOST_BLOCK = 64, 1024
_BLOCKS_A_WORKER = 4  # so that none waits long for the last
_BLOCKS = 2000  # in all, where that makes none too large: more would keep the driver busy for minutes
_RESTARTS = 20


class RayPool:
    """A connection to a Ray cluster ("local": one of its own on this machine), until `close`.

    `workers` actors, each with one GPU where `gpu`, else with one core. Raises MissingExtra without Ray,
    ToolchainError where there is no cluster at `address`.
    """

    def __init__(self, address: str, workers: int | None, gpu: bool):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise MissingExtra("ray", "--ray", "'cat2dog[ray]'") from error
        self._ray = ray
        _reachable(address)
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)  # its progress is ours to tell
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if address == "local":
                ray.init(address="local", include_dashboard=False, num_cpus=workers, **quiet)
            else:
                ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise ToolchainError(f"there is no Ray cluster at '{address}': {_line(error)}") from error
        kind = "GPU" if gpu else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if there < 1:
            ray.shutdown()
            raise ToolchainError(f"the Ray cluster at '{address}' has no {kind}")
        self.workers = min(workers or there, there)
        self._gpu = gpu

    def ship(self, path: Path, provider: str, threads: int | None) -> Shipped:
        """A network's files in Ray's object store: each node fetches them once, whatever file systems it has."""
        parts = {each.name: _Content(self._ray.put(np.fromfile(each, np.uint8))) for each in files_of(path)}
        return Shipped(parts, path.name, provider, threads)

    def executor(
        self, opening: Callable[[], Any], source: Place, output: Place
    ) -> Callable[[Sequence[tuple[str, str]], int | None], Iterator[Result]]:
        """What `fleet.drive` drives."""

        def execute(pairs: Sequence[tuple[str, str]], company: int | None) -> Iterator[Result]:
            yield from self._execute(pairs, company, opening, source, output)

        return execute

    def _execute(
        self, pairs: Sequence[tuple[str, str]], company: int | None, opening: Any, source: Place, output: Place
    ) -> Iterator[Result]:
        ray = self._ray
        context = ray.data.DataContext.get_current()
        # A block whose worker died too often is left out, and given out again by the driver, in smaller ones.
        context.max_errored_blocks = -1
        context.enable_progress_bars = False
        block = company or block_size(len(pairs), self.workers, self._gpu)
        workers = min(self.workers, -(-len(pairs) // block))
        pictures = ray.data.from_items(
            [{"name": name, "target": target} for name, target in pairs], override_num_blocks=-(-len(pairs) // block)
        )
        with warnings.catch_warnings():
            # 2.60 says of this argument that 2.64 drops it, and has no other way yet; hence the pin.
            warnings.simplefilter("ignore")
            results = pictures.map_batches(
                _Actor,
                fn_constructor_args=(opening, source, output),
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
                # Without them Ray retries for ever, also a picture that kills.
                ray_remote_args_fn=lambda: {"max_restarts": _RESTARTS, "max_task_retries": 2},
                **({"num_gpus": 1} if self._gpu else {"num_cpus": 1}),
            )
        try:
            for row in results.iter_rows():
                yield Result(str(row["name"]), str(row["fault"]), str(row["fatal"]))
        except ray.exceptions.RayError as error:
            raise ToolchainError(f"Ray: {_line(error)}") from error

    def close(self) -> None:
        """Leave the cluster, and end it where it is this machine's own."""
        self._ray.shutdown()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


def _reachable(address: str) -> None:
    """Raise ToolchainError where nothing listens at host:port: Ray itself would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # local, auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ToolchainError(f"there is no Ray cluster at '{address}': {error}") from error


def block_size(pictures: int, workers: int, gpu: bool) -> int:
    """How many pictures one task gets."""
    fair = -(-pictures // min(workers * _BLOCKS_A_WORKER, _BLOCKS))
    return max(_LEAST_BLOCK, min(fair, _MOST_BLOCK)) if gpu else _LEAST_BLOCK


class _Content:
    """Bytes in Ray's object store."""

    def __init__(self, reference: Any):
        # In a list, so that the reference travels as one instead of being replaced by what it refers to.
        self._reference = [reference]

    def __call__(self) -> np.ndarray:
        import ray

        return np.asarray(ray.get(self._reference[0]))


class _Actor:
    """A station as Ray Data wants one: columns in, columns out."""

    def __init__(self, opening: Any, source: Place, output: Place):
        self._station = Station(opening, source, output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pairs = [(str(name), str(target)) for name, target in zip(batch["name"], batch["target"], strict=True)]
        try:
            results = list(told(self._station.work(pairs)))
        except GpuLost:
            os._exit(1)  # this process can use the GPU no more; Ray starts another
        return {
            "name": [each.name for each in results],
            "fault": [each.fault for each in results],
            "fatal": [each.fatal for each in results],
        }


def _line(error: BaseException) -> str:
    """The last line, without the exception's class; Ray puts the worker's traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception|Mismatch): ", "", lines[-1])[:300] if lines else type(error).__name__
