"""Finding headers, building, and what is said where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engines.plugin import build, headers
from engines.plugin.headers import find_cuda_headers, find_tensorrt_headers, release_tag
from runtime.errors import InputError
from tests.engines.plugin.conftest import ROOT

OLD = "#define NV_TENSORRT_MAJOR 8 //!< major\n#define NV_TENSORRT_MINOR 6\n#define NV_TENSORRT_PATCH 1\n"
NEW = (
    "#define TRT_MAJOR_ENTERPRISE 10\n#define TRT_MINOR_ENTERPRISE 14\n#define TRT_PATCH_ENTERPRISE 1\n"
    "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< TensorRT major version.\n"
)


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """A machine without any headers."""
    for variable in (
        "TENSORRT_HOME",
        "CUDA_HOME",
        "CUDA_PATH",
        "CPATH",
        "CPLUS_INCLUDE_PATH",
        "CAT2DOG_PYTHON_TENSORRT",
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(headers, "_SYSTEM_TENSORRT", ())
    monkeypatch.setattr(headers, "_SYSTEM_CUDA", ())
    monkeypatch.setattr(headers.shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "path", [])


def tensorrt(folder, text):
    folder.mkdir(parents=True)
    (folder / "NvInferVersion.h").write_text(text)
    (folder / "NvInferRuntime.h").touch()
    return folder


def cuda(folder, version=13000, crt=True):
    (folder / "crt").mkdir(parents=True)
    (folder / "cuda.h").write_text(f"#define CUDA_VERSION {version}\n")
    (folder / "cuda_runtime_api.h").touch()
    if crt:
        (folder / "crt" / "host_defines.h").touch()
    return folder


def test_where_tensorrt_headers_are_looked_for(tmp_path, monkeypatch):
    system = tensorrt(tmp_path / "system", OLD)
    home = tensorrt(tmp_path / "home" / "include", NEW)
    given = tensorrt(tmp_path / "given" / "include", OLD)
    monkeypatch.setattr(headers, "_SYSTEM_TENSORRT", (str(system),))
    assert find_tensorrt_headers() == [headers.Headers((system,), "8.6.1", "system")]
    monkeypatch.setenv("TENSORRT_HOME", str(tmp_path / "home"))
    assert find_tensorrt_headers() == [headers.Headers((home,), "10.14.1", "TENSORRT_HOME")]
    found = find_tensorrt_headers([tmp_path / "given", home])
    assert [(each.folders[0], each.major) for each in found] == [(given, 8), (home, 10)]
    monkeypatch.setenv("TENSORRT_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"TENSORRT_HOME=.*: no NvInferRuntime\.h"):
        find_tensorrt_headers()


def test_no_tensorrt_headers(monkeypatch):
    monkeypatch.setattr(headers, "installed_tensorrt", lambda: None)
    with pytest.raises(InputError, match=r"no TensorRT headers here.*--branch v10\.14 .*`make plugin HEADERS="):
        find_tensorrt_headers()
    monkeypatch.setattr(headers, "installed_tensorrt", lambda: "8.6.1")
    with pytest.raises(InputError, match=r"--branch v8\.6\.1 .*\(tensorrt 8\.6\.1 is installed here\)"):
        find_tensorrt_headers()


def test_the_tensorrt_of_another_python_is_asked(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 8.6.0\n")
    python.chmod(0o755)
    monkeypatch.setenv("CAT2DOG_PYTHON_TENSORRT", str(python))
    assert headers.installed_tensorrt() == "8.6.0"
    monkeypatch.setenv("CAT2DOG_PYTHON_TENSORRT", str(tmp_path / "absent"))
    assert headers.installed_tensorrt() is None


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ("8.6.1", "v8.6.1"),
        ("8.6.0.12", "v8.6.0"),
        ("10.0.1", "v10.0.1"),
        ("10.11.0.33", "v10.11"),
        ("10.13.3.9", "v10.13.3"),
        ("10.14.1.48", "v10.14"),
        ("11.1.0.106", "v11.1"),
    ],
)
def test_release_tags(version, tag):
    assert release_tag(version) == tag


def test_where_cuda_headers_are_looked_for(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no CUDA headers \(12\.0 or newer\).*pip install nvidia-cuda-runtime"):
        find_cuda_headers()
    # CUDA 12's wheels: crt/ is in another wheel than the rest.
    wheel = cuda(tmp_path / "site" / "nvidia" / "cuda_runtime" / "include", 12010, crt=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    with pytest.raises(InputError):
        find_cuda_headers()
    crt = tmp_path / "site" / "nvidia" / "cuda_nvcc" / "include"
    (crt / "crt").mkdir(parents=True)
    (crt / "crt" / "host_defines.h").touch()
    assert find_cuda_headers() == headers.Headers((wheel, crt), "12.1", "pip")
    old = cuda(tmp_path / "old" / "include", 11080)
    new = cuda(tmp_path / "new" / "include")
    monkeypatch.setattr(headers, "_SYSTEM_CUDA", (str(old), str(new)))
    assert find_cuda_headers() == headers.Headers((new,), "13.0", "system")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "new"))
    assert find_cuda_headers().source == "CUDA_HOME"
    with pytest.raises(InputError, match=r"--cuda .*12\.0 or newer"):
        find_cuda_headers(tmp_path / "old")


def test_a_wrapper_of_nvcc_is_seen_through(tmp_path, monkeypatch):
    cuda(tmp_path / "toolkit" / "include")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho '#$ _HERE_={tmp_path}/toolkit/bin' >&2\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(headers.shutil, "which", lambda name: str(nvcc))
    assert find_cuda_headers() == headers.Headers((tmp_path / "toolkit" / "include",), "13.0", "nvcc")


def test_errors_are_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "installed_tensorrt", lambda: None)
    assert build.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there are no TensorRT headers here") and error.count("\n") == 1
    folder = str(tensorrt(tmp_path / "trt", NEW))
    assert build.main(["--headers", folder]) == 2
    assert "no CUDA headers" in capsys.readouterr().err
    cuda(tmp_path / "cuda")
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    assert build.main(["--headers", folder, "--cuda", str(tmp_path / "cuda")]) == 2
    assert "error: there is no cmake here: `pip install cmake`" in capsys.readouterr().err
    monkeypatch.setattr(build, "_find_cmake", lambda: "cmake")
    assert build.main(["--headers", folder, "--cuda", str(tmp_path / "cuda")]) == 2
    assert "error: there is no C++ compiler here (looked for c++, g++, clang++)" in capsys.readouterr().err


@pytest.mark.xdist_group("plugin")
def test_building_twice_does_nothing(v3, tmp_path):
    """By the command, with the headers that the other tests found; needs no more than Python's own library."""
    cache = (v3.programs.parent / "CMakeCache.txt").read_text()
    found = {line.split(":")[0]: line.partition("=")[2] for line in cache.splitlines() if "_INCLUDE:" in line}
    folders = found["CUDA_INCLUDE"].split(";")
    command = [sys.executable, "-S", "-m", "engines.plugin.build", "--headers", found["TENSORRT_INCLUDE"]]
    command += ["--cuda", folders[0], "--output", str(v3.programs.parent.parent / "command")]
    environment = {name: value for name, value in os.environ.items() if name != "TENSORRT_HOME"}
    said = []
    for _ in range(2):
        child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
        assert child.returncode == 0, child.stderr
        said.append(child.stdout)
    assert said[1].startswith("TensorRT headers: 10.14.1, ")
    assert "CUDA headers: 13." in said[1]
    assert said[1].rstrip().endswith("libcat2dog_plugin_trt10.so: up to date")
