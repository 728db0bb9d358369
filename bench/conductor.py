"""Measures peers beside one another: each in a worker of its own, started, prepared, and then timed in turns.

A peer that fails is recorded with its reason, and the others go on. Peers whose start-up is of interest start alone,
each several times in fresh processes; the slow ones (compilers) start together. Timing goes in rounds, one turn a peer:
A B C A B C, so that what changes on the machine meanwhile meets all of them; and in two sweeps over the batch sizes, so
that the rounds of one figure lie minutes apart and their spread holds what changes that slowly.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.pipes import Worker, WorkerFailed
from bench.timing import timing
from runtime.judge import scores as judged
from runtime.metrics import psnr_each

METHOD = (
    "each peer in a process of its own, timed in rounds, one turn a peer (A B C A B C), half of the rounds in a second "
    "sweep over all batch sizes; spread is the highest less the lowest median of a round; network: input and output "
    "stay on the device, CUDA events around one run (a graph replay where the peer has one) over three sets of random "
    "inputs, or the wall's clock on a CPU; host: uint8 arrays in host memory in and out; picture: bytes of a JPEG at "
    "the network's resolution to encoded bytes, one after the other; stream: the same with decoding, network and "
    "encoding of many pictures at once, ms a picture"
)
_SWEEPS = 2
Update = Callable[[str, "float | None"], None]


@dataclass
class Entry:
    """A peer of a line-up. `spec` is what its worker is told; None, with a `reason`, for one that cannot run here.

    `alone`: whether its start-up is measured alone; `startups` bounds how often, `most_batch` its batch sizes; `levels`
    are its own where the plan's are not meant; `extra` is known of it before.
    """

    name: str
    about: str
    device: str
    precision: str
    python: str
    spec: dict[str, Any] | None
    reason: str = ""
    alone: bool = True
    most_batch: int | None = None
    startups: int | None = None
    levels: Sequence[str] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How long and how often. `seconds` is what the whole run may take, preparing and measuring.

    Each peer gets `rounds` turns for each figure, or half of them where the time is over before the second sweep.
    """

    batches: Sequence[int] = (1, 4, 8)
    rounds: int = 6
    turn_ms: float = 150.0
    startups: int = 3
    seconds: float = 280.0
    levels: Sequence[str] = ("network", "host", "picture", "stream")
    verbose: bool = False


@dataclass(frozen=True)
class Task:
    """What is run: validation images and the reference's answers, uint8 `[N,R,R,3]`, and JPEGs of those images.

    `judge` is a recipe's; answers that are no pictures are judged by it alone, in a row's `scores`.
    """

    images: np.ndarray
    expected: np.ndarray
    flops: int
    jpegs: Sequence[bytes]
    judge: tuple[str, float] = ("psnr", 30.0)


class Conductor:
    """`run` measures; `peers` and `ceilings` hold what is known so far, as the schema has it.

    `answers` are what each peer made of the images, uint8 `[N,R,R,3]`.
    """

    def __init__(self, entries: Sequence[Entry], task: Task, plan: Plan, update: Update, save: Callable[[], None]):
        self.ceilings: list[dict[str, Any]] = []
        self.answers: dict[str, np.ndarray] = {}
        self._task, self._plan, self._update, self._save = task, plan, update, save
        self._deadline = time.monotonic() + plan.seconds
        self._seats = [_Seat(entry, plan) for entry in entries]

    @property
    def peers(self) -> list[dict[str, Any]]:
        """In the order of the line-up."""
        return [seat.row for seat in self._seats]

    def run(self) -> None:
        """All of it. What was started is ended, whatever happens."""
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            np.save(self._folder / "images.npy", self._task.images)
            for index, jpeg in enumerate(self._task.jpegs):
                (self._folder / f"{index}.jpg").write_bytes(jpeg)
            try:
                self._start()
                for sweep in range(_SWEEPS):
                    for batch in self._plan.batches:
                        if sweep == 0 or self._left() > 0:
                            self._batch(batch, sweep)
                self._tell_layers()
            finally:
                for seat in self._seats:
                    seat.end()

    def _start(self) -> None:
        alone = [seat for seat in self._able() if seat.entry.alone]
        for seat in alone:
            runs = []
            count = min(seat.entry.startups or self._plan.startups, self._plan.startups)
            for number in range(count):
                self._say(f"starting {seat.entry.name}, {number + 1} of {count}")
                with seat.recorded(fatal=True):
                    seat.end()
                    runs.append(self._open(seat))
                if not seat.able:
                    break
            seat.start_up(runs, alone=True)
            self._save()
        together = [seat for seat in self._able() if not seat.entry.alone]
        self._say(f"starting {', '.join(seat.entry.name for seat in together) or 'no more'}")
        for seat in together:
            with seat.recorded(fatal=True):
                seat.begin()
                seat.worker.send(self._opening(seat))
        limit = time.monotonic() + self._share(0.5)
        for seat in together:
            if seat.able:
                runs = []
                with seat.recorded("start-up", fatal=True):
                    runs.append(seat.worker.receive(limit - time.monotonic()))
                seat.start_up(runs, alone=False)
        self._save()

    def _open(self, seat: _Seat) -> dict[str, float]:
        seat.begin()
        seconds: dict[str, float] = seat.worker.ask(self._opening(seat), self._share(0.5))
        return seconds

    def _opening(self, seat: _Seat) -> dict[str, Any]:
        return {
            "do": "open",
            "spec": seat.entry.spec,
            "images": str(self._folder / "images.npy"),
            "started": seat.worker.started,
            "parent": os.getpid(),
        }

    def _batch(self, batch: int, sweep: int) -> None:
        able = [seat for seat in self._able() if batch <= (seat.entry.most_batch or batch)]
        for seat in self._seats:
            seat.prepared = False
        self._say(f"batch {batch}: preparing {len(able)} peers")
        for seat in able:
            with seat.recorded(f"batch {batch}"):
                seat.worker.send({"do": "prepare", "batch": batch})
        limit = time.monotonic() + self._share(0.35)
        for seat in able:
            if seat.able:
                with seat.recorded(f"batch {batch}"):
                    seat.worker.receive(limit - time.monotonic())
                    seat.prepared = True
        for level in self._plan.levels:
            if level != "picture" or batch == 1:
                self._rounds(batch, level, sweep)
        if sweep:
            self._save()
            return
        for seat in [seat for seat in self._able() if seat.prepared]:
            with seat.recorded(f"batch {batch}"):
                facts = seat.worker.ask({"do": "facts"}, 30)
                seat.learn(facts, batch)
        if batch == self._plan.batches[0]:
            self._judge()
            self._measure_ceilings()
        self._save()

    def _rounds(self, batch: int, level: str, sweep: int) -> None:
        """This sweep's share of the rounds. What failed in the first sweep is not tried in the second."""
        key = (batch, level)
        seats = [seat for seat in self._able() if seat.prepared and level in (seat.entry.levels or self._plan.levels)]
        seats = [seat for seat in seats if sweep == 0 or key in seat.times]
        command: dict[str, Any] = {"do": level, "ms": self._plan.turn_ms}
        if level in ("picture", "stream"):
            command["jpegs"] = sorted(str(path) for path in self._folder.glob("*.jpg"))
        count = self._plan.rounds // _SWEEPS + (self._plan.rounds % _SWEEPS if sweep == 0 else 0)
        for number in range(count):
            if number and self._left() < 0:
                break  # what was measured is whole: fewer rounds, and the result says how many
            self._say(f"batch {batch}: {level}, round {number + 1} of {count}, sweep {sweep + 1}", number / count)
            for seat in [seat for seat in seats if seat.able]:
                with seat.recorded(f"{level} at batch {batch}"):
                    times = seat.worker.ask(command, max(30.0, self._left()))
                    seat.times.setdefault(key, []).append(times)
                    continue
                seats.remove(seat)  # one that failed is not asked again
        for seat in self._seats:
            seat.row["latency"] = [self._latency(*each, times) for each, times in seat.times.items()]

    def _latency(self, batch: int, level: str, times: Sequence[Sequence[float]]) -> dict[str, Any]:
        ms = timing(times)
        seconds = ms["median"] / 1000
        row: dict[str, Any] = {"batch": batch, "level": level, "ms": ms}
        images = 1 if level == "stream" else batch
        row["images_per_second"] = float(f"{images / max(seconds, 1e-9):.5g}")
        if level == "network":
            row["tflops"] = float(f"{self._task.flops * batch / max(seconds, 1e-9) / 1e12:.4g}")
        return row

    def _judge(self) -> None:
        """PSNR of every peer against the reference, or what else the task is judged by."""
        metric, threshold = self._task.judge
        for seat in self._able():
            self._say(f"{metric} of {seat.entry.name}")
            path = self._folder / "answers.npy"
            with seat.recorded("PSNR" if metric == "psnr" else metric):
                seat.worker.ask({"do": "run", "into": str(path)}, max(60.0, self._left()))
                self.answers[seat.entry.name] = np.load(path)
                got = self.answers[seat.entry.name]
                if metric == "psnr":
                    seat.row["psnr_db"] = _scores(psnr_each(got, self._task.expected))
                    continue
                each = judged(metric, {"answer": got}, {"answer": self._task.expected})
                worst = round(min(each), 6) if math.isfinite(min(each)) else None
                seat.row["scores"] = {"metric": metric, "threshold": threshold, "worst": worst, "samples": len(each)}

    def _measure_ceilings(self) -> None:
        """Once a device and precision, by the first peer that can."""
        known = set()
        for seat in self._able():
            key = (seat.entry.device, seat.entry.precision if seat.entry.device == "gpu" else "fp32")
            if key in known:
                continue
            self._say(f"what the {key[0]} reaches")
            with seat.recorded("ceilings"):
                if told := seat.worker.ask({"do": "ceilings"}, 60):
                    self.ceilings.append(told)
                    known.add(key)

    def _tell_layers(self) -> None:
        """Where the time goes, at the first batch size; last of all, since profiling leaves a context slower."""
        batch = self._plan.batches[0]
        for seat in self._able():
            if seat.entry.spec and seat.entry.spec["kind"] == "tensorrt":
                self._say(f"layers of {seat.entry.name}")
                with seat.recorded("layers"):
                    seat.worker.ask({"do": "prepare", "batch": batch}, 60)
                    seat.row["layers"] = seat.worker.ask({"do": "layers"}, 60)
                    seat.row["layers_batch"] = batch

    def _able(self) -> list[_Seat]:
        return [seat for seat in self._seats if seat.able]

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _share(self, part: float) -> float:
        """So much of the time that is left, but never so little that nothing can start."""
        return max(20.0, part * self._left())

    def _say(self, what: str, fraction: float | None = None) -> None:
        self._update(what, fraction)


class _Seat:
    """A peer, its worker, and its row of the result."""

    def __init__(self, entry: Entry, plan: Plan):
        self.entry = entry
        self.worker: Any = None
        self.able = entry.spec is not None
        self.prepared = False
        self.times: dict[tuple[int, str], list[list[float]]] = {}
        self._verbose = plan.verbose
        self.row: dict[str, Any] = {
            "name": entry.name,
            "about": entry.about,
            "device": entry.device,
            "precision": entry.precision,
            "status": "measured" if self.able else "absent",
            "latency": [],
            **entry.extra,
        }
        if entry.reason:
            self.row["reason"] = entry.reason

    def begin(self) -> None:
        """A fresh process."""
        self.worker = Worker(self.entry.python, self._verbose)

    def end(self) -> None:
        """No process any more."""
        if self.worker is not None:
            self.worker.end()
            self.worker = None

    @contextlib.contextmanager
    def recorded(self, during: str = "", fatal: bool = False) -> Iterator[None]:
        """What fails in here is written down with its reason; what was measured stays.

        A worker that died or did not answer is out from now on, and so is one whose failure is `fatal`.
        """
        try:
            yield
        except WorkerFailed as reason:
            if fatal or not reason.alive:
                self.able = False
                self.end()
            self.row["status"] = "partly" if self.able or self.times else "failed"
            said = f"{during}: {reason}" if during else str(reason)
            known = self.row.get("reason", "")
            if f"; {said}; " not in f"; {known}; ":  # both sweeps may fail alike
                self.row["reason"] = "; ".join(filter(None, [known, said]))

    def start_up(self, runs: Sequence[dict[str, float]], alone: bool) -> None:
        """The medians of these runs, each stage's seconds in order."""
        if not runs:
            return
        totals = [sum(run.values()) for run in runs]
        self.row["startup"] = {
            "alone": alone,
            "runs": len(runs),
            "seconds": {stage: round(statistics.median(run[stage] for run in runs), 3) for stage in runs[0]},
            "total": round(statistics.median(totals), 3),
            "least": round(min(totals), 3),
            "most": round(max(totals), 3),
        }

    def learn(self, facts: dict[str, Any], batch: int) -> None:
        """What a worker says of itself once `batch` is measured."""
        self.row["python"], self.row["versions"] = facts["python"], facts["versions"]
        if facts["device_bytes"] is not None:
            self.row.setdefault("device_bytes", facts["device_bytes"])
            self.row.setdefault("device_bytes_at", {})[str(batch)] = facts["device_bytes"]
        if "engine" in facts:
            self.row.setdefault("engine", facts["engine"])


def _scores(scores: Sequence[float]) -> dict[str, Any]:
    finite = [None if score == float("inf") else round(score, 2) for score in scores]
    equal = all(score is None for score in finite)
    mean = None if equal else round(statistics.fmean(score for score in scores if score != float("inf")), 2)
    return {"mean": mean, "worst": None if equal else min(s for s in finite if s is not None), "each": finite}
