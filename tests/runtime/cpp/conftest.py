"""Builds the runner in C++ once a session, under AddressSanitizer and UBSan, with what its tests ask it.

libjpeg-turbo and OpenSSL with headers come from Debian (`libjpeg62-turbo-dev`, `libssl-dev`), TensorRT's headers as the
plugin's tests get them; without OpenSSL the runner checks no signatures, without TensorRT it is built for ONNX files
alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from engines.plugin.headers import find_cuda_headers, find_tensorrt_headers
from runtime.errors import InputError
from tests.engines.plugin.conftest import CACHE, CUDA_WHEELS, TENSORRT_WHEELS, unpack_wheels

ROOT = Path(__file__).resolve().parents[3]
# A folder with NvInfer*.h of another version than the one that is downloaded: v8.6.0's, say.
HEADERS_VARIABLE = "CAT2DOG_TEST_TENSORRT_INCLUDE"


@dataclass(frozen=True)
class Runner:
    """What was built; without TensorRT's headers `fake_gpu` is None, `major` 0, and `why` says so."""

    folder: Path
    fake_gpu: Path | None
    major: int
    why: str
    onnxruntime: Path | None

    def run(
        self, *arguments: object, program: str = "cat2dog-resnet50", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The program, or "tests/bare_runner", which has no OpenSSL; a sanitizer's report ends it with exit code 99."""
        options = {"ASAN_OPTIONS": "exitcode=99", "UBSAN_OPTIONS": "exitcode=99", **environment}
        return subprocess.run(
            [self.folder / program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **options},
        )

    def ask(self, *lines: str, program: str = "probe") -> list[str]:
        """What `probe` answers to each line, without its "= "; errors begin with "! " and their exit code."""
        child = subprocess.run(
            [self.folder / "tests" / program],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert child.returncode == 0 and not child.stderr, child.stderr
        answers = [line.removeprefix("= ") for line in child.stdout.splitlines()]
        assert len(answers) == len(lines), child.stdout
        return answers

    def with_openssl(self) -> Runner:
        """Skips the test where it was built without OpenSSL."""
        if "signatures by OpenSSL " not in self.run("--version").stdout:
            pytest.skip("needs OpenSSL's headers to build a runner that checks signatures: apt-get install libssl-dev")
        return self

    def library(self) -> Path:
        """ONNX Runtime's shared library. Skips the test where the package has none."""
        if self.onnxruntime is None:
            pytest.skip("the package onnxruntime has no libonnxruntime.so here")
        return self.onnxruntime


@pytest.fixture(scope="session")
def runner() -> Runner:
    """Skips the test, with the reason, where the runner cannot be built."""
    for program, package in (("cmake", "cmake"), ("c++", "g++")):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} to build the runner: apt-get install {package}")
    settings, major, why = _headers()
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / ".runner.lock"):
        folder = CACHE / (f"runner-trt{major}" if settings else "runner-onnx")
        _build(
            folder, {"CAT2DOG_TESTS": "ON", "CAT2DOG_STRICT": "ON", "CAT2DOG_SANITIZE": "address,undefined", **settings}
        )
    fake_gpu = folder / "tests/libfake_gpu.so" if settings else None
    return Runner(folder, fake_gpu, major, why, _onnxruntime())


@pytest.fixture
def fake(runner: Runner) -> Path:
    """The library that plays TensorRT and CUDA; skips, with the reason, where TensorRT's headers are missing."""
    if runner.fake_gpu is None:
        pytest.skip(f"the runner was built without TensorRT's headers: {runner.why}")
    return runner.fake_gpu


@pytest.fixture
def major(runner: Runner, fake: Path) -> int:
    return runner.major


def _headers() -> tuple[dict[str, str], int, str]:
    try:
        named = os.environ.get(HEADERS_VARIABLE)
        if named:
            tensorrt = find_tensorrt_headers([named])[0]
        else:
            wheel = unpack_wheels(TENSORRT_WHEELS, CACHE / "tensorrt")
            tensorrt = find_tensorrt_headers([wheel / "kernel_lens/include/tensorrt"])[0]
        try:
            cuda = find_cuda_headers()
        except InputError:
            cuda = find_cuda_headers(unpack_wheels(CUDA_WHEELS, CACHE / "cuda") / "nvidia" / "cu13" / "include")
    except (InputError, pytest.skip.Exception) as error:
        return {}, 0, str(error)
    settings = {"TENSORRT_INCLUDE": str(tensorrt.folders[0]), "CUDA_INCLUDE": ";".join(map(str, cuda.folders))}
    return settings, tensorrt.major, ""


def _build(folder: Path, settings: dict[str, str]) -> None:
    configure = [
        "cmake",
        "-S",
        ROOT / "runtime/cpp",
        "-B",
        folder,
        *(f"-D{name}={value}" for name, value in settings.items()),
    ]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    for command in (configure, ["cmake", "--build", folder, "--parallel", "2"]):
        child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280)
        if "no libjpeg-turbo with headers here" in child.stdout:
            pytest.skip("needs libjpeg-turbo's headers to build the runner: apt-get install libjpeg62-turbo-dev")
        assert child.returncode == 0, child.stdout[-4000:]


def _onnxruntime() -> Path | None:
    import onnxruntime

    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1*"))
    return found[0] if found and sys.platform == "linux" else None
