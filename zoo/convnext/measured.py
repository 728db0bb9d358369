"""The measuring behind `python -m zoo.convnext.bench`: forms made ready, timed in turns, judged on the pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.pipes import Worker
from bench.timing import timing
from runtime.errors import InputError, ToolchainError
from runtime.flavors import python_variable
from zoo.convnext.data import Data
from zoo.convnext.graphs import fixed_batch
from zoo.convnext.model import ConvNeXt
from zoo.convnext.recipe import sized
from zoo.convnext.rows import FORMS, TorchRow, obstacle

_JUDGED_BY_WORKER = 64
_BUILD_SECONDS = 300


class Bench:
    """`begin`, `measure` for each batch size, `end`; `peers` are the rows so far, as the schema has them."""

    def __init__(
        self,
        name: str,
        network: ConvNeXt,
        data: Data,
        device: str,
        rounds: int,
        turn_ms: float,
        deadline: float,
        say: Callable[[str], None],
    ):
        self._name, self._network, self._data, self._device, self._say = name, network, data, device, say
        self._rounds, self._turn_ms, self._deadline = rounds, turn_ms, deadline
        self._pictures = sized(data.val.images, network.config.resolution)
        self._expected: np.ndarray | None = None
        self._seats: list[dict[str, Any]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="cat2dog-convnext-")

    def begin(self, names: Sequence[str], onnx: Sequence[Path], engines: Sequence[Path]) -> None:
        """Take seats; nothing runs yet. Raises InputError for a file that is not there."""
        if missing := next((path for path in (*onnx, *engines) if not path.is_file()), None):
            raise InputError(f"{missing} does not exist or is no file; give ONNX files and engines of the network")
        kind = "gpu" if self._device == "cuda" else "cpu"
        for form in FORMS:
            if form.name in names:
                reason = obstacle(form, self._device)
                seat = self._seat(form.name, form.about, kind, form.precision, reason)
                seat["make"] = lambda form=form: TorchRow(form, self._network, self._device)
                seat["judge"] = not form.activation
        for path in onnx:
            spec = {"kind": "onnxruntime", "onnx": str(path), "provider": _provider(kind)}
            seat = self._seat(
                f"onnxruntime-{self._short(path)}", f"ONNX Runtime, {spec['provider']}", kind, _precision(path), ""
            )
            seat["make"] = lambda spec=spec: WorkerRow(spec, sys.executable, self._pictures, Path(self._folder.name))
        for path in engines:
            self._engine_seat(path, kind)

    def _engine_seat(self, path: Path, kind: str) -> None:
        from bench.peers.tensorrt_peer import engine_facts
        from runtime.engine_file import engine_manifest

        manifest = engine_manifest(path)
        key = manifest.key
        reason = "" if kind == "gpu" else "engines need a GPU"
        about = f"{key.flavor} {key.flavor_version}, one engine for {key.batch[0]} to {key.batch[2]}"
        seat = self._seat(f"tensorrt-{key.precision}", about, "gpu", key.precision, reason)
        seat["row"]["engine"] = engine_facts(manifest)
        python = os.environ.get(python_variable(key.flavor)) or sys.executable
        spec = {"kind": "tensorrt", "engines": [str(path)]}
        seat["make"] = lambda: WorkerRow(spec, python, self._pictures, Path(self._folder.name))

    def measure(self, batch: int) -> None:
        """Make every form ready for this batch size, then time them in rounds."""
        ready = []
        for seat in self._seats:
            if seat["row"]["status"] in ("absent", "failed"):
                continue
            name = seat["row"]["name"]
            if time.monotonic() > self._deadline:
                self._fault(seat, f"batch {batch}: no time was left")
                continue
            self._say(f"batch {batch}: {name}")
            try:
                seat["runs"] = seat.get("runs") or seat["make"]()
                seat["runs"].prepare(batch)
                if seat["judge"] and "accuracy" not in seat["row"]:
                    seat["row"]["accuracy"] = self._judged(seat["runs"])
                ready.append(seat)
            except Exception as error:  # noqa: BLE001 (whatever Triton or a compiler raises is this form's reason)
                self._fault(seat, f"batch {batch}: {' '.join(str(error).split())[:200] or type(error).__name__}")
        self._time(batch, ready)

    def _time(self, batch: int, ready: list[dict[str, Any]]) -> None:
        rounds: dict[int, list[list[float]]] = {}
        for number in range(self._rounds):
            if number >= 2 and time.monotonic() > self._deadline:
                break  # fewer rounds, and the result says how many
            for seat in list(ready):
                try:
                    rounds.setdefault(id(seat), []).append(_turn(seat["runs"], self._turn_ms))
                except Exception as error:  # noqa: BLE001 (as above)
                    self._fault(seat, f"timing at batch {batch}: {' '.join(str(error).split())[:200]}")
                    ready.remove(seat)
        flops = 2 * _macs(self._network)
        for seat in self._seats:
            if rounds.get(id(seat)):
                ms = timing(rounds[id(seat)])
                seat["row"]["latency"].append(_latency(batch, ms, flops))
                if seat["row"]["status"] == "failed":  # in a later round: what was measured is whole
                    seat["row"]["status"] = "partly"

    def peers(self) -> list[dict[str, Any]]:
        """The rows."""
        return [seat["row"] for seat in self._seats]

    def end(self) -> None:
        """End the workers."""
        for seat in self._seats:
            if isinstance(seat.get("runs"), WorkerRow):
                seat["runs"].end()
            seat.pop("runs", None)
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def int8_engines(self, files: Sequence[Path], batches: Sequence[int]) -> None:
        """TensorRT 8's INT8 beside its FP16 of the same files, each batch size an engine of its own."""
        python = os.environ.get(python_variable("tensorrt"))
        for path in files:
            seat = self._seat(
                f"tensorrt-{self._short(path)}", "TensorRT 8, an engine for each batch", "gpu", "int8", ""
            )
            if not python or self._device != "cuda":
                missing = "a GPU" if python else f"{python_variable('tensorrt')}, a Python with TensorRT 8"
                self._fault(seat, f"INT8 engines need {missing}")
                seat["row"]["status"] = "absent"
                continue
            for batch in batches:
                if time.monotonic() > self._deadline:
                    self._fault(seat, f"batch {batch}: no time was left")
                    continue
                self._say(f"batch {batch}: INT8 engine of {path.stem}")
                try:
                    self._int8_engine(seat, python, path, batch)
                except (RuntimeError, ToolchainError, OSError) as error:
                    self._fault(seat, f"batch {batch}: {' '.join(str(error).split())[:200]}")

    def _int8_engine(self, seat: dict[str, Any], python: str, path: Path, batch: int) -> None:
        folder = Path(self._folder.name)
        fixed = fixed_batch(path, batch, folder / f"{path.stem}_b{batch}.onnx")
        output = folder / "int8.json"
        command = [python, "-m", "bench.int8_engines", "--onnx", str(fixed), "--output", str(output)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            raise ToolchainError(f"the engine was not there after {_BUILD_SECONDS} s") from None
        if not output.is_file():
            raise ToolchainError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no result")
        row = json.loads(output.read_text("utf-8"))["graphs"][0]
        output.unlink()
        if "ms" not in row:
            raise ToolchainError(row["reason"])
        half = row["spread"] / 2
        ms = {name: row["ms"] for name in ("median", "p95", "least", "most")}
        low, high = max(row["ms"] - half, 0), row["ms"] + half
        ms.update(low=low, high=high, spread=row["spread"], count=500, rounds=5)
        seat["row"]["latency"].append(_latency(batch, ms, 2 * _macs(self._network)))

    def kernels(self, batches: Sequence[int]) -> list[dict[str, Any]]:
        """The fused operators beside what they stand for, stage by stage; nothing on a CPU."""
        if self._device != "cuda":
            self._say("the fused operators are for GPUs: on a CPU they are PyTorch's own code")
            return []
        from zoo.convnext.kernel_bench import compared

        rows = []
        for batch in batches:
            try:
                rows += compared(self._network, batch, self._deadline)
            except Exception as error:  # noqa: BLE001 (as above)
                self._say(f"the fused operators at batch {batch}: {type(error).__name__}: {error}")
        return rows

    def _judged(self, runs: Any) -> dict[str, Any]:
        if self._expected is None:
            # FP32 eager, whatever else is measured.
            self._expected = TorchRow(FORMS[0], self._network, self._device).answers(self._pictures, 64).argmax(1)
        got = runs.answers(self._pictures, 64).argmax(1)
        count = len(got)
        return {
            "pictures": count,
            "data": self._data.name,
            "right": round(float((got == self._data.val.labels[:count]).mean()), 5),
            "agree": round(float((got == self._expected[:count]).mean()), 5),
        }

    def _short(self, path: Path) -> str:
        """A file's name without that of the network, which all of them have."""
        return path.stem.removeprefix(self._name).strip("-_") or path.stem

    def _seat(self, name: str, about: str, device: str, precision: str, reason: str) -> dict[str, Any]:
        row: dict[str, Any] = {"name": name, "about": about, "device": device, "precision": precision}
        row.update(status="absent" if reason else "measured", latency=[], **({"reason": reason} if reason else {}))
        seat = {"row": row, "judge": True}
        self._seats.append(seat)
        return seat

    def _fault(self, seat: dict[str, Any], reason: str) -> None:
        row = seat["row"]
        row["status"] = "partly" if row["latency"] else "failed"
        row["reason"] = "; ".join(filter(None, [row.get("reason", ""), reason]))
        self._say(f"{row['name']}: {reason}")


class WorkerRow:
    """A peer of the bench in a process of its own; made ready and timed as a `TorchRow` is."""

    def __init__(self, spec: dict[str, Any], python: str, pictures: np.ndarray, folder: Path):
        self._count = min(len(pictures), _JUDGED_BY_WORKER)
        self._images, self._answers = folder / "images.npy", folder / "answers.npy"
        np.save(self._images, pictures[: self._count])
        self._worker = Worker(python, False)
        opening = {"do": "open", "spec": spec, "images": str(self._images), "parent": os.getpid()}
        self._worker.ask({**opening, "started": self._worker.started}, 120)

    def prepare(self, batch: int) -> None:
        """Its own graphs and buffers."""
        self._worker.ask({"do": "prepare", "batch": batch}, 120)

    def turn(self, milliseconds: float) -> list[float]:
        """Milliseconds of as many runs as fill so many."""
        times: list[float] = self._worker.ask({"do": "network", "ms": milliseconds}, 120)
        return times

    def answers(self, images: np.ndarray, batch: int) -> np.ndarray:
        """Of the first pictures that it was opened with, each alone."""
        self._worker.ask({"do": "run", "into": str(self._answers)}, 300)
        return np.load(self._answers)

    def end(self) -> None:
        """No process any more."""
        self._worker.end()


def _turn(runs: Any, milliseconds: float) -> list[float]:
    if isinstance(runs, WorkerRow):
        return runs.turn(milliseconds)
    first = runs.times(1)[0]
    times: list[float] = runs.times(min(max(2, int(milliseconds / max(first, 1e-3))), 2000))
    return times


def _latency(batch: int, ms: dict[str, Any], flops: int) -> dict[str, Any]:
    seconds = max(ms["median"] / 1000, 1e-9)
    return {
        "batch": batch,
        "level": "network",
        "ms": ms,
        "images_per_second": float(f"{batch / seconds:.5g}"),
        "tflops": float(f"{batch * flops / seconds / 1e12:.4g}"),
    }


def _macs(network: ConvNeXt) -> int:
    from zoo.convnext.config import macs

    return macs(network.config)


def _provider(kind: str) -> str:
    if kind == "cpu":
        return "cpu"
    import onnxruntime

    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def _precision(path: Path) -> str:
    return next((each for each in ("int8", "fp16", "bf16") if each in path.stem), "fp32")
