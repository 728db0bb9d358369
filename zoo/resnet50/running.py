"""Pictures through a network, each step timed, and what is known of each afterwards."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import EngineMismatch, InputError, ToolchainError
from runtime.files import sha256_file
from runtime.runner import Runner
from zoo.resnet50 import pixels
from zoo.resnet50.answer import OUTPUTS, Answer, answer_of, margin

if TYPE_CHECKING:
    pass

STEPS = ("decode", "preprocess", "network", "postprocess")
INPUT = "crop"


@dataclass(frozen=True)
class Seen:
    """A picture and what became of it: its answer and the crop, or the fault. Milliseconds are by step."""

    number: int
    path: Path
    answer: Answer | None = None
    crop_sha256: str = ""
    margins: tuple[float, float] = (0.0, 0.0)
    milliseconds: Mapping[str, float] | None = None
    fault: ToolchainError | None = None

    def facts(self) -> dict[str, Any]:
        """For JSON, as the C++ runner writes them."""
        if self.answer is None:
            return {"image": self.number, "fault": str(self.fault)}
        return {
            "image": self.number,
            "classes": list(self.answer.classes),
            "percent": list(self.answer.percent),
            "mean": self.answer.mean,
            "variance": self.answer.variance,
            "margins": list(self.margins),
            "crop_sha256": self.crop_sha256,
            "ms": dict(self.milliseconds or {}),
        }


def seen(paths: Sequence[Path], runner: Runner, seed: int) -> Iterator[Seen]:
    """Each picture of `paths` in order, one at a time; one that cannot be read comes with its fault."""
    for index, path in enumerate(paths):
        try:
            yield _see(index, path, runner, seed)
        except InputError as fault:
            yield Seen(index + 1, path, fault=fault)


def _see(index: int, path: Path, runner: Runner, seed: int) -> Seen:
    clock = _Clock()
    data = pixels.read_file(path)
    clock.start()
    picture = clock.time("decode", lambda: pixels.decode(data, str(path)))
    try:
        crop = clock.time(
            "preprocess",
            lambda: pixels.cut(picture, *pixels.place(picture.shape[:2], seed, index)),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    outputs = clock.time("network", lambda: runner.infer({INPUT: crop[None]}))
    answer = clock.time("postprocess", lambda: answer_of(outputs))
    digest = hashlib.sha256(crop.tobytes()).hexdigest()
    return Seen(index + 1, path, answer, digest, margin(outputs), clock.milliseconds)


class _Clock:
    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = 0

    def start(self) -> None:
        self._last = time.perf_counter_ns()

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        done = work()
        now = time.perf_counter_ns()
        self.milliseconds[step], self._last = (now - self._last) / 1e6, now
        return done


def about(runner: Runner) -> str:
    """What runs the network, in words, as the C++ runner says it."""
    kind = type(runner).__name__
    if kind == "OnnxRuntimeRunner":
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}, CPU"
    if kind == "TensorRTRunner":
        from runtime.gpu import find_gpus

        return f"TensorRT {getattr(runner, 'manifest').key.flavor_version}, {find_gpus()[0].name}, CUDA graph"  # noqa: B009
    return "PyTorch FP32, CPU"


def open_network(path: Path | None, weights: Path | None, threads: int | None = None) -> Runner:
    """The runner of an engine or an exported ONNX file, each checked against its manifest; PyTorch where none is named.

    Raises InputError, or EngineMismatch for a file that is not what its manifest says.
    """
    if path is None:
        from export.reference_runner import ReferenceRunner
        from zoo.resnet50.recipe import recipe_of

        recipe = recipe_of(weights)
        recipe.module()  # now, so that weights are refused before any picture is read
        return ReferenceRunner(recipe)
    if weights is not None:
        raise InputError("--weights are PyTorch's, but --network was given too: leave one of them out")
    runner = _opened(path, threads)
    try:
        check_network(path, runner)
    except InputError:
        runner.close()
        raise
    return runner


def _opened(path: Path, threads: int | None) -> Runner:
    if path.suffix == ".engine":
        from runtime.engine_file import engine_manifest
        from runtime.tensorrt_runner import TensorRTRunner

        if engine_manifest(path).gate.state == "pending":
            raise InputError(f"{path} has not passed its gate yet: `cat2dog accuracy --engine {path}` runs it")
        return TensorRTRunner(path)
    if path.suffix == ".onnx":
        from runtime.onnxruntime_runner import OnnxRuntimeRunner

        check_onnx(path)
        return OnnxRuntimeRunner(path, threads=threads)
    raise InputError(f"{path} is neither an engine nor an ONNX file; expected a file ending in .engine or .onnx")


def check_onnx(path: Path) -> None:
    """Raise EngineMismatch unless an exported ONNX file and its data are what the manifest beside them says."""
    from export.onnx_file import read

    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; export it with `cat2dog export`")
    for name, known in read(path).files.items():
        file = path.with_name(Path(name).name)
        if not file.is_file() or file.stat().st_size != known["size"] or sha256_file(file) != known["sha256"]:
            raise EngineMismatch(f"{file} is not what was exported: export it again with `cat2dog export`")


def check_network(path: Path, runner: Runner) -> None:
    """Raise InputError unless `runner` takes crops and answers as this family's networks do."""
    expected = {"input": {INPUT: ("uint8", (pixels.CROP, pixels.CROP, 3))}, "output": _floats(OUTPUTS)}
    for role, specs in (("input", runner.inputs), ("output", runner.outputs)):
        have = {spec.name: (spec.dtype, tuple(spec.shape[1:])) for spec in specs}
        if have != expected[role]:
            raise InputError(
                f"{path} is no network of this family: its {role}s are {'; '.join(map(str, specs))}; export "
                "`--recipe zoo.resnet50.recipe:resnet50`"
            )


def _floats(outputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: ("float32", shape) for name, shape in outputs.items()}
