"""Engines whose flavor lives in another Python than this one: a runner in front of a process there.

For judging engines, not for serving them: arrays pass through files, some hundred microseconds a call.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.process import drain, end, how_it_ended, last_words, raise_failed, start_module
from runtime.engine_file import engine_manifest
from runtime.errors import ToolchainError
from runtime.flavors import load_flavor, python_variable
from runtime.manifest import EngineKey
from runtime.runner import Runner, TensorSpec, check_feed

_KEPT_LINES = 200
_ENDING_SECONDS = 20


def engine_runner(engine: str | os.PathLike[str], lanes: int = 1) -> Runner:
    """The engine in this process, or, where CAT2DOG_PYTHON_… names another Python for its flavor, in one of that.

    Raises what `runtime.tensorrt_runner.TensorRTRunner` raises.
    """
    key = engine_manifest(engine).key
    python = os.environ.get(python_variable(key.flavor))
    if python and not _is_here(python, key):
        return ChildRunner(engine, python)
    from runtime.tensorrt_runner import TensorRTRunner

    return TensorRTRunner(engine, lanes=lanes)


def _is_here(python: str, key: EngineKey) -> bool:
    """Whether `python` is this one, or this one has that TensorRT too (started by a script that sets paths, say).

    Links are not followed: those of two environments may lead to one executable.
    """
    if os.path.abspath(python) == os.path.abspath(sys.executable):
        return True
    try:
        return str(load_flavor(key.flavor).__version__) == key.flavor_version
    except ToolchainError:  # it cannot be loaded here
        return False


class ChildRunner:
    """Engine file → runner, under `python`. One call runs at a time; others wait.

    Raises ToolchainError where the process cannot be started or dies, and what it reports: InputError, EngineMismatch.
    """

    lanes = 1

    def __init__(self, engine: str | os.PathLike[str], python: str):
        self._lock = threading.Lock()
        self._log: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cat2dog-runner-")))
            try:
                self._process = start_module(python, "engines.runner_child")
            except OSError as error:
                raise ToolchainError(f"cannot start {python}: {error.strerror or error}") from error
            stack.callback(self._end)
            assert self._process.stderr
            self._drainer = threading.Thread(target=drain, args=(self._process.stderr, self._log, False), daemon=True)
            self._drainer.start()
            told = self._ask({"engine": str(Path(engine).resolve()), "parent": os.getpid()})
            self.inputs, self.outputs = (tuple(map(_spec, told[name])) for name in ("inputs", "outputs"))
            self._resources = stack.pop_all()
        self._closed = False

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once. Raises InputError as `check_feed` does, ToolchainError where the run fails or this is closed."""
        check_feed(self.inputs, feed)
        with self._lock:
            if self._closed:
                raise ToolchainError("this runner is closed; make a new one")
            given, got = self._folder / "given.npz", self._folder / "got.npz"
            save_arrays(given, feed)
            self._ask({"given": str(given), "got": str(got)})
            return load_arrays(got, self.outputs)

    def close(self) -> None:
        """End the process, once."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._resources.close()

    def __enter__(self) -> ChildRunner:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request; whatever interrupts it ends the process, which would else answer the next one."""
        assert self._process.stdin and self._process.stdout
        try:
            with contextlib.suppress(BrokenPipeError):  # it died; how says more
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BaseException:
            end(self._process)
            raise
        if not line:
            code = self._process.wait()
            self._drainer.join()
            raise ToolchainError(f"the process of the engine {how_it_ended(code)}{last_words(self._log)}")
        answer: dict[str, Any] = json.loads(line)
        raise_failed(answer)
        return answer

    def _end(self) -> None:
        """Its stdin ends, so it does, with its engine freed; one that hangs is killed."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            end(self._process)
        except BaseException:
            end(self._process)
            raise
        finally:
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe:
                    pipe.close()


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any names as `.npz`: by number, since a name may be no file's."""
    np.savez(path, *arrays.values(), names=np.array(list(arrays), dtype=np.str_))


def load_arrays(path: Path, specs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote, with the types that `specs` say: numpy's files do not know bfloat16."""
    dtypes = {spec.name: spec.numpy_dtype for spec in specs}
    with np.load(path, allow_pickle=False) as file:
        return {str(name): file[f"arr_{i}"].view(dtypes[str(name)]) for i, name in enumerate(file["names"])}


def _spec(told: Mapping[str, Any]) -> TensorSpec:
    shapes = {name: tuple(told[name]) if told[name] is not None else None for name in ("minimum", "maximum")}
    return TensorSpec(told["name"], told["dtype"], tuple(told["shape"]), **shapes)
