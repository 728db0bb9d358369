"""How a worker on another machine gets its network: its file travels by content, or comes from the engine store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engines.remote_store import RemoteStore
from runtime.errors import InputError
from runtime.gpu import Gpu, find_gpus, no_gpu_reason
from runtime.manifest import EngineKey, Manifest, manifest_path
from runtime.runner import ImageRunner
from runtime.signing import signature_path


@dataclass(frozen=True)
class Shipped:
    """An ONNX file or engine with the files beside it: names to a function that gives the bytes where it is opened.

    `provider` is ONNX Runtime's, `threads` bounds those of one operator (None: all cores).
    """

    files: Mapping[str, Callable[[], np.ndarray]]
    name: str
    provider: str = "cpu"
    threads: int | None = None

    def __call__(self) -> ImageRunner:
        """The image runner. Raises what opening the file raises; EngineMismatch for an engine of another machine."""
        with tempfile.TemporaryDirectory(prefix="cat2dog-") as folder:
            for name, content in self.files.items():
                with open(Path(folder, name), "wb") as file:
                    content().tofile(file)
            return open_network(Path(folder, self.name), self.provider, self.threads)


@dataclass(frozen=True)
class FromStore:
    """The engine of a network for whatever GPU it is opened on, from the engine store at `url`.

    `like` is the key of one such engine: network, precision, flavor and batches are its, the GPU is the machine's own.
    """

    url: str
    like: EngineKey

    def __call__(self) -> ImageRunner:
        """The image runner. Raises InputError where the store has no engine for this machine's GPU."""
        gpus = find_gpus()
        if not gpus:
            raise InputError(f"no GPU to run an engine on: {no_gpu_reason()}")
        store = RemoteStore(self.url)
        fitting = [each for each in store.manifests() if self._fits(each, gpus[0])]
        if not fitting:
            raise InputError(
                f"{self.url} has no engine of {self.like.checkpoint} {self.like.precision} for {gpus[0].name}: build "
                "it on such a machine, `cat2dog build --store`"
            )
        with tempfile.TemporaryDirectory(prefix="cat2dog-") as folder:
            newest = max(fitting, key=lambda manifest: manifest.build.date)
            return open_network(store.bring(newest, Path(folder)))

    def _fits(self, manifest: Manifest, gpu: Gpu) -> bool:
        key = manifest.key
        ours = replace(
            self.like, gpu=key.gpu, compute_capability=key.compute_capability, targets=key.targets,
            kernels=key.kernels, options=key.options, attention=key.attention,
        )  # fmt: skip
        fits = gpu.compute_capability in key.targets or (gpu.name, gpu.compute_capability) == (
            key.gpu, key.compute_capability,
        )  # fmt: skip
        return fits and ours == key and manifest.gate.state == "passed"


def open_network(path: Path, provider: str = "cpu", threads: int | None = None) -> ImageRunner:
    """The image runner of an ONNX file or engine; an engine's gate must have passed."""
    if path.suffix == ".engine":
        from engines.elsewhere import engine_runner
        from runtime.engine_file import engine_manifest

        state = engine_manifest(path).gate.state
        if state != "passed":
            raise InputError(f"the accuracy gate of {path.name} is {state}: `cat2dog run --engine` settles it")
        return ImageRunner.from_runner(engine_runner(path, 2))
    from engines.proxy import runnable
    from runtime.onnxruntime_runner import OnnxRuntimeRunner

    with runnable(path) as plain:
        return ImageRunner.from_runner(OnnxRuntimeRunner(plain, [provider], threads))


def files_of(path: Path) -> list[Path]:
    """The file and those beside it that it is read with."""
    beside = (manifest_path(path), signature_path(path)) if path.suffix == ".engine" else (_data_of(path),)
    return [path, *(each for each in beside if each.exists())]


def _data_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")
