"""Runs an engine: TensorRT 8.6, 10, 11 or TensorRT-RTX, by names it asks the engine for."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime import cuda, gpu
from runtime.engine_file import engine_manifest, open_engine
from runtime.errors import GpuLost, InputError, ToolchainError
from runtime.flavors import Flavor, load_flavor
from runtime.lane import Lane
from runtime.loaded_engine import LoadedEngine, ShapeSet, make_log
from runtime.manifest import Manifest
from runtime.plugins import find_plugin, is_plugin, load_plugin, needs_plugin
from runtime.pool import Pool
from runtime.refit import Refitted
from runtime.runner import check_feed
from runtime.signing import check_policy, signed_only

WAITS = ("spin", "block")
_MOST_LANES = 64
_MOST_KNOWN_SHAPES = 1024


class TensorRTRunner:
    """Engine file → runner, on GPU number `device`.

    The engine must have its manifest beside it and belong to this flavor, version and GPU, which is checked before
    the GPU is touched. `flavor` None takes the manifest's; another than the manifest's is an EngineMismatch. `plugins`
    are libraries loaded before the engine; ours is found where the engine needs it and none is given. With
    `cuda_graph`, a shape set is run plainly once and from then on replayed from a graph that holds the copies too. A
    gate still pending is left to the caller, in `manifest`.

    Any number of threads may call `infer`; `lanes` of them run at once, each in memory of its own, and at most
    `most_waiting` wait for a lane. `wait` says how a thread waits for the GPU: "spin" notices the end soonest and keeps
    a core busy meanwhile, "block" sleeps and is woken some 10 microseconds or more later.

    Raises InputError, EngineMismatch and AccuracyError as `check_engine` does, ToolchainError without a GPU.
    """

    def __init__(
        self,
        engine_path: str | os.PathLike[str],
        flavor: str | None = None,
        device: int = 0,
        cuda_graph: bool = True,
        plugins: Sequence[str | os.PathLike[str]] = (),
        lanes: int = 2,
        most_waiting: int = 256,
        wait: str = "spin",
    ):
        if not 1 <= lanes <= _MOST_LANES:
            raise InputError(f"{lanes} lanes were asked for; expected 1 to {_MOST_LANES}")
        if wait not in WAITS:
            raise InputError(f"wait is '{wait}'; expected one of {', '.join(WAITS)}")
        self.lanes = lanes
        self._device = device
        with contextlib.ExitStack() as stack:
            self.manifest, engine = load_engine(engine_path, flavor, device, plugins)
            stack.callback(engine.close)
            self._engine, self._refitting = engine, threading.Lock()
            self.inputs, self.outputs = engine.inputs, engine.outputs
            self._wanted = [(spec.name, spec.numpy_dtype) for spec in self.inputs]
            self._known: set[ShapeSet] = set()
            preparing = threading.Lock()
            made = []
            for _ in range(lanes):
                lane = Lane(engine, preparing, cuda_graph, blocking=wait == "block")
                stack.callback(lane.close)
                made.append(lane)
            self._pool = Pool(made, most_waiting, "lanes of this runner")
            self._resources = stack.pop_all()

    def infer(self, feed: Mapping[str, np.ndarray], timeout: float | None = None) -> dict[str, np.ndarray]:
        """Run once; a free lane is waited for at most `timeout` seconds, or without end.

        Raises InputError as `check_feed` does, Busy where no lane came free or too many wait already, GpuLost when this
        process cannot use the GPU any more, ToolchainError where the run fails or this is closed.
        """
        return self._run(feed, None, timeout)

    def infer_into(
        self, feed: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], timeout: float | None = None
    ) -> None:
        """As `infer`, into the arrays `outputs`, which nothing is allocated for: the way of lowest latency.

        Raises InputError also where `outputs` are not the outputs, of their types and shapes.
        """
        self._run(feed, outputs, timeout)

    def refit(self, weights: Mapping[str, np.ndarray], timeout: float | None = None) -> Refitted:
        """Replace the engine's weights by those of the same names (`engines.refit` has them of an ONNX file).

        Running calls end first, for at most `timeout` seconds each, and others wait until it is done. Contexts and CUDA
        graphs are made anew, since TensorRT does not say that those from before see new weights. Raises InputError for
        weights that are not the engine's, which then stays as it was, and Busy as `infer` does. After another failure
        nobody knows what the engine holds, so that this runner refuses every later call.
        """
        held: list[Lane] = []
        with self._refitting:  # two that have some of the lanes each would wait for one another
            try:
                for _ in range(self.lanes):
                    one: list[Lane] = []
                    try:
                        self._pool.take(timeout, one)
                    finally:
                        held += one
                return self._refit(held, weights)
            finally:
                self._pool.give_all(held)

    def _refit(self, lanes: Sequence[Lane], weights: Mapping[str, np.ndarray]) -> Refitted:
        try:
            cuda.use_device(self._device)
            for lane in lanes:
                lane.forget()
            return self._engine.refit(weights)
        except InputError:
            raise
        except BaseException as error:
            text = f"new weights were put half in place ({' '.join(str(error).split())[:200]}); make a new runner"
            self._pool.fail(error if isinstance(error, GpuLost) else ToolchainError(text))
            raise

    def close(self) -> None:
        """Refuse new calls and those that wait, let the running ones end, free all; a second call does nothing."""
        if not self._pool.close(ToolchainError("this TensorRT runner is closed; make a new one")):
            return
        # With the GPU lost nothing can be freed by hand; the driver does it when the process ends.
        with contextlib.suppress(GpuLost):
            try:
                cuda.use_device(self._device)
            finally:
                self._resources.close()

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def _checked(self, feed: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], ShapeSet]:
        """The arrays in the engine's order, and their shapes. Shapes that passed before are not looked at again."""
        given = []
        for name, dtype in self._wanted:
            array = feed.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype:
                check_feed(self.inputs, feed)  # says what is wrong, or lets a subclass or another byte order through
                array = feed[name]
            given.append(array)
        shapes = tuple([array.shape for array in given])
        if shapes not in self._known or len(feed) != len(given):
            check_feed(self.inputs, feed)
            if len(self._known) < _MOST_KNOWN_SHAPES:
                self._known.add(shapes)
        return given, shapes

    def _run(
        self, feed: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray] | None, timeout: float | None
    ) -> dict[str, np.ndarray]:
        """What `infer` and `infer_into` do. The arrays returned are new; there are none where `outputs` are given."""
        given, shapes = self._checked(feed)
        held: list[Lane] = []
        try:
            try:
                lane = self._pool.take(timeout, held)
                cuda.use_device(self._device)
                replay = lane.prepare(shapes)
                if outputs is not None:
                    replay.check_outputs(outputs)
                replay.start(given)
                lane.wait()
                if outputs is None:
                    return {name: array.copy() for name, array in replay.outputs}
                for name, array in replay.outputs:
                    np.copyto(outputs[name], array)
                return {}
            except BaseException as error:
                self._settle(held, error)
                raise
            finally:
                self._pool.give_all(held)
        finally:
            self._pool.give_all(held)  # Ctrl-C may have come into the first, or between the two

    def _settle(self, held: Sequence[Lane], error: BaseException) -> None:
        """After a run that failed or was interrupted: what it has started must end before the lane is used again.

        A lost GPU shows here at the latest, since TensorRT itself only says that it could not run.
        """
        if isinstance(error, GpuLost):
            self._pool.fail(error)
            return
        for lane in held:
            try:
                lane.wait()
            except GpuLost as lost:
                self._pool.fail(lost)
                raise lost from error
            except ToolchainError:
                pass  # the first error says more


def load_engine(
    engine_path: str | os.PathLike[str],
    flavor: str | None = None,
    device: int = 0,
    plugins: Sequence[str | os.PathLike[str]] = (),
) -> tuple[Manifest, LoadedEngine]:
    """The first steps of `TensorRTRunner`, with the same arguments and errors, for who runs the engine otherwise.

    Where only signed engines are to be loaded (`runtime.signing`), another is an EngineMismatch.
    """
    path = Path(engine_path)
    built_by = engine_manifest(path).key.flavor
    name = flavor or built_by
    chosen = _choose_gpu(device)
    trt = load_flavor(name)
    usable = Flavor(name, str(trt.__version__), sys.executable, can_build=True, can_run=True)
    with open_engine(path, usable, chosen, private=signed_only()) as (manifest, plan):
        check_policy(path, manifest)
        cuda.use_device(device)
        log = make_log(trt)
        _load_plugins(trt, log, _needed_plugins(manifest, plugins))
        return manifest, LoadedEngine(trt, log, plan, path, manifest)


def _choose_gpu(device: int) -> gpu.Gpu:
    gpus = gpu.find_gpus()
    if not gpus:
        raise ToolchainError(
            f"running an engine needs an NVIDIA GPU: {gpu.no_gpu_reason()}; run the ONNX file in ONNX Runtime instead"
        )
    if not 0 <= device < len(gpus):
        listed = ", ".join(f"{each.index} ({each.name})" for each in gpus)
        raise InputError(f"there is no GPU {device}; expected one of {listed}")
    return gpus[device]


def _needed_plugins(manifest: Manifest, given: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    if not needs_plugin(manifest) or any(map(is_plugin, given)):
        return list(given)
    return [*given, find_plugin(manifest.key.flavor_version)]


def _load_plugins(trt: Any, log: Any, plugins: Sequence[str | os.PathLike[str]]) -> None:
    # TensorRT-RTX carries the function but has no plugins of its own; where it is absent there is nothing to register.
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    for plugin in plugins:
        load_plugin(plugin)
