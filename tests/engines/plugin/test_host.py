"""The library driven through its creators as TensorRT drives it, on a stand-in for the CUDA driver."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest

from engines.kernels.launch import Image, Launch, LaunchPlan, Number, Pointer, Tensor
from tests.engines.plugin.conftest import ROOT, Built

pytestmark = pytest.mark.xdist_group("plugin")


def host(built: Built, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [built.host_test, str(built.library), *arguments], capture_output=True, text=True, timeout=120
    )


def check(built: Built, driver: str, *options: str) -> list[str]:
    """Run every check; the names of those that passed."""
    child = host(built, "--fake", str(built.programs / driver), *options)
    assert child.returncode == 0, child.stdout + child.stderr
    assert not child.stderr, child.stderr  # a sanitizer's report, or a message that missed TensorRT's logger
    return [line.removeprefix("ok: ") for line in child.stdout.splitlines()]


def check_all(built: Built) -> None:
    assert len(check(built, "libfake_cuda.so")) == 16
    assert check(built, "libfake_cuda_old.so", "--old-driver") == ["old driver"]


def test_v3(v3):
    check_all(v3)


def test_v2_without_leaks(v2):
    check_all(v2)


@pytest.mark.slow
def test_v3_without_leaks(sanitized_v3):
    check_all(sanitized_v3)


def gpu_files(folder) -> list[str]:
    """A plan for the stand-in driver, whose kernels write nothing, with its input."""
    image = Image(b"FAKE\nnothing 8 8 4\nend\n")
    arguments = (Pointer("input"), Pointer("output"), Number("i32", "B"))
    launch = Launch(0, "nothing", ("B", 1, 1), 32, 0, arguments)
    plan = LaunchPlan("9.0", (Tensor("fp16", ("B", 8)),), (Tensor("fp16", ("B", 4)),), (launch,), (image,), "B*64")
    (folder / "launch.txt").write_text(plan.text())
    (folder / "images.bin").write_bytes(plan.data)
    np.ones((3, 8), np.float16).tofile(folder / "in.bin")
    np.zeros((3, 4), np.float16).tofile(folder / "zeros.bin")
    np.full((3, 4), 0.5, np.float16).tofile(folder / "halves.bin")
    (folder / "short.bin").write_bytes(b"12")
    return [str(folder / "launch.txt"), str(folder / "images.bin"), "--input", f"fp16:3x8:{folder}/in.bin"]


def test_the_gpu_run_compares(v3, tmp_path):
    driver = str(v3.programs / "libfake_cuda.so")
    arguments = ["--gpu", *gpu_files(tmp_path), "--driver", driver, "--output"]
    environment = {"CAT2DOG_LIBCUDA": driver}

    def run(output: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [v3.host_test, str(v3.library), *arguments, f"fp16:3x4:{tmp_path}/{output}", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    good = run("zeros.bin")
    assert good.returncode == 0, good.stderr
    assert good.stdout.count("ok: thread") == 4  # two threads, eager and graph
    bad = run("halves.bin")
    assert bad.returncode == 1
    assert "FAILED: thread 1 graph output 0: max abs 0.5, rms 0.5, workspace 192 bytes" in bad.stdout
    assert run("halves.bin", "--max-abs", "0.6", "--rms", "0.6").returncode == 0
    assert "2 bytes, expected 24" in run("short.bin").stderr


IN_PROCESS = """
import ctypes, sys
sys.path.insert(0, {root!r})
{before}
library = ctypes.CDLL({library!r}, ctypes.RTLD_GLOBAL)
print("registered", library.cat2dog_register())
"""


def load(built: Built, before: str = "") -> subprocess.CompletedProcess[str]:
    program = IN_PROCESS.format(root=str(ROOT), before=before, library=str(built.library))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


def test_it_loads_where_there_is_no_tensorrt(v3):
    child = load(v3)
    assert child.stdout == "registered 1\n"
    assert child.stderr == ("error: cat2dog plugin: TensorRT 10 is not loaded in this process\n")


def test_it_leaves_tensorrt_rtx_alone(v3, rtx):
    child = load(v3, "from runtime.flavors import load_flavor; load_flavor('tensorrt_rtx')")
    assert "registered 1" in child.stdout
    # Its version, 10701 for 1.7.1, must not be taken for a 10.x, whose registry has another layout.
    assert "is not version 10" in child.stderr or "is not loaded" in child.stderr


def test_what_it_exports(v3):
    names = subprocess.run(["nm", "-D", "--defined-only", str(v3.library)], capture_output=True, text=True, check=True)
    exported = {line.split()[-1] for line in names.stdout.splitlines()}
    assert exported == {"cat2dog_register", "getCreators", "setLoggerFinder"}
    ctypes.CDLL(str(v3.library))  # resolves everything without TensorRT or CUDA
