"""TensorRT engines as a peer. No torch: it runs under the Python of the flavor that built them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.engine_replay import EngineReplay
from bench.machine import versions
from bench.peers.peer import Clock
from runtime.errors import InputError

_WARM_UP = 20


class TensorRTPeer:
    """`spec`: `engines`, paths of engines of one checkpoint; the first that takes a batch size runs it.

    `cuda_graph` False runs without graphs (a rung of the ladder). Start-up is that of the engine for one image, its
    stages taken by the parts that `TensorRTRunner` is made of.
    """

    def __init__(self, spec: Mapping[str, Any]):
        self._paths: Sequence[str] = spec["engines"]
        self._cuda_graph = bool(spec.get("cuda_graph", True))
        self._engines: dict[str, Any] = {}
        self._manifest: Any = None
        self._replay: EngineReplay | None = None
        self._runner: Any = None
        self._runner_path = ""
        self._out: np.ndarray | None = None
        self._bytes = 0
        self._opened = ""
        self._resources = contextlib.ExitStack()

    def open(self, image: np.ndarray, clock: Clock) -> None:
        """Plan → engine → lane → one run → one replay of its graph."""
        from runtime import cuda
        from runtime.engine_file import engine_manifest
        from runtime.flavors import load_flavor
        from runtime.lane import Lane

        path = self._path_for(1)
        load_flavor(engine_manifest(path).key.flavor)
        cuda.bindings()
        clock.lap("import")
        cuda.set_device(0)
        before = cuda.memory_taken()
        clock.lap("CUDA")
        self._manifest, engine = self._load(path)
        clock.lap("load")
        with contextlib.closing(Lane(engine, threading.Lock(), self._cuda_graph, blocking=False)) as lane:
            replay = lane.prepare((image.shape,))
            clock.lap("context")
            replay.start([image])
            lane.wait()
            clock.lap("first run")
            if self._cuda_graph:
                replay.start([image])
                lane.wait()
                clock.lap("graph")
            self._bytes = max(0, cuda.memory_taken() - before)
            self._opened = path

    def prepare(self, batch: int) -> None:
        """The engine of this batch size, its graphs, and a runner."""
        from runtime.tensorrt_runner import TensorRTRunner

        path = self._path_for(batch)
        self._manifest, engine = self._load(path)
        if self._replay is not None:
            self._replay.close()
        self._replay = EngineReplay(engine, batch, self._cuda_graph)
        self._replay.warm_up()
        if self._runner_path != path:
            if self._runner is not None:
                self._runner.close()
            self._runner = TensorRTRunner(path, lanes=1, cuda_graph=self._cuda_graph)
            self._runner_path = path
        shape = (batch, *engine.outputs[0].shape[1:])
        self._out = np.empty(shape, engine.outputs[0].numpy_dtype)
        for _ in range(_WARM_UP):
            self.run(np.zeros((batch, *engine.inputs[0].shape[1:]), np.uint8))

    def network(self, repeats: int) -> list[float]:
        """GPU milliseconds, by events."""
        assert self._replay is not None
        return self._replay.times(repeats)

    def run(self, images: np.ndarray) -> np.ndarray:
        """By `infer_into`: the array returned is the same each time."""
        assert self._out is not None
        runner = self._runner
        runner.infer_into({runner.inputs[0].name: images}, {runner.outputs[0].name: self._out})
        return self._out

    def facts(self) -> dict[str, Any]:
        """Versions, memory of the start-up's runner, and what the manifest says of the engine used last.

        Another engine's memory is not known: it is loaded while other peers prepare.
        """
        packages = ("tensorrt", "tensorrt-rtx-cu13-bindings", "numpy", "cuda-bindings")
        taken = self._bytes if self._runner_path == self._opened else None
        return {"versions": versions(packages), "device_bytes": taken, "engine": engine_facts(self._manifest)}

    def layers(self) -> list[dict[str, Any]]:
        """By TensorRT's profiler."""
        from runtime.flavors import load_flavor

        assert self._replay is not None
        return self._replay.layers(load_flavor(self._manifest.key.flavor))

    def ceilings(self) -> dict[str, Any]:
        """Nothing: an engine is no matrix product."""
        return {}

    def close(self) -> None:
        """Graphs, then runner, then engines."""
        if self._replay is not None:
            self._replay.close()
        if self._runner is not None:
            self._runner.close()
        self._resources.close()

    def _path_for(self, batch: int) -> str:
        """The engine that is made for this size alone, else the first whose profile has it."""
        from runtime.engine_file import engine_manifest

        profiles = {path: engine_manifest(path).key.batch for path in self._paths}
        fitting = [path for path, (least, _, most) in profiles.items() if least <= batch <= most]
        if not fitting:
            taken = ", ".join(f"{least} to {most}" for least, _, most in profiles.values())
            raise InputError(f"no engine of it takes batch {batch}, only {taken}")
        return min(fitting, key=lambda path: profiles[path][2] - profiles[path][0])

    def _load(self, path: str) -> Any:
        from runtime.tensorrt_runner import load_engine

        if path not in self._engines:
            manifest, engine = load_engine(path)
            self._resources.callback(engine.close)
            self._engines[path] = (manifest, engine)
        return self._engines[path]


def engine_facts(manifest: Any) -> dict[str, Any]:
    """What a result says of an engine (schema: engine)."""
    key, gate, build = manifest.key, manifest.gate, manifest.build
    choices = manifest.attention[:1]
    return {
        "file": manifest.engine,
        "bytes": manifest.size,
        "build_seconds": build.seconds,
        "build_peak_memory_bytes": build.peak_memory_bytes,
        "flavor": f"{key.flavor} {key.flavor_version}",
        "attention": key.attention,
        "batch": list(key.batch),
        "gate": {
            "state": gate.state,
            "metric": gate.metric,
            "threshold": gate.threshold,
            "scores": [str(round(score, 2)) for score in gate.scores],
            "proxy_scores": [str(round(score, 2)) for score in gate.proxy_scores],
        },
        "options": dict(key.options),
        **({"why": choices[0].why} if choices else {}),
        "notes": list(build.notes),
    }
