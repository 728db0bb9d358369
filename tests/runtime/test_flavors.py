from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import flavors
from runtime.errors import InputError, ToolchainError
from runtime.flavors import Flavor, find_flavor, find_flavors, load_flavor, supports

ROOT = Path(flavors.__file__).parent.parent
RTX_HERE = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
needs_rtx = pytest.mark.skipif(not RTX_HERE, reason="TensorRT-RTX is not installed in this Python")


@pytest.fixture
def no_other_python(monkeypatch):
    for name in flavors.FLAVORS:
        monkeypatch.delenv(flavors.python_variable(name), raising=False)


@pytest.fixture
def fake_python(tmp_path, monkeypatch):
    """Makes CAT2DOG_PYTHON_TENSORRT name a program that answers `script` instead of a Python."""

    def make(script: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CAT2DOG_PYTHON_TENSORRT", str(path))
        return str(path)

    return make


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts a package of that source before all others, for child processes too."""

    def make(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    yield make
    for name in ("tensorrt", "tensorrt_rtx"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "version", "capability", "expected"),
    [
        ("tensorrt_rtx", "1.7.1", "8.0", True),
        ("tensorrt_rtx", "1.7.1", "8.6", True),
        ("tensorrt_rtx", "1.7.1", "8.9", True),
        ("tensorrt_rtx", "1.7.1", "12.0", True),
        ("tensorrt_rtx", "1.7.1", "9.0", False),
        ("tensorrt_rtx", "1.7.1", "10.0", False),
        ("tensorrt", "8.6.0", "9.0", True),
        ("tensorrt", "8.6.0", "10.0", False),
        ("tensorrt", "8.6.0", "6.1", True),
        ("tensorrt", "10.0.1", "7.0", True),
        ("tensorrt", "10.5.0", "7.0", False),
        ("tensorrt", "10.7.0", "12.0", False),
        ("tensorrt", "10.14.1", "12.0", True),
        ("tensorrt", "11.1.0", "9.0", True),
    ],
)
def test_which_gpus(name, version, capability, expected):
    assert supports(name, version, capability) is expected


def test_unknown_flavor():
    for function in (load_flavor, find_flavor):
        with pytest.raises(InputError, match="there is no flavor 'trt'; expected one of tensorrt, tensorrt_rtx"):
            function("trt")


def test_every_flavor_is_listed(no_other_python):
    found = find_flavors()
    assert [flavor.name for flavor in found] == ["tensorrt", "tensorrt_rtx"]
    assert all(flavor.python == sys.executable for flavor in found)
    assert all(flavor.version or "pip install" in flavor.reason for flavor in found)


@needs_rtx
def test_rtx_out_of_the_wheels(no_other_python):
    flavor = find_flavor("tensorrt_rtx")
    assert flavor.version and flavor.can_build
    assert flavor.can_run == (flavor.reason == "")


@needs_rtx
def test_rtx_loads_and_makes_a_builder():
    # In a child: its libraries must not stay in the process of the other tests.
    program = (
        "from runtime.flavors import load_flavor; t = load_flavor('tensorrt_rtx'); load_flavor('tensorrt_rtx')\n"
        "print(t.Builder(t.Logger(t.Logger.ERROR)) is not None, t.__name__)"
    )
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert child.stdout == "True tensorrt_rtx_bindings\n", child.stderr


def test_finding_flavors_loads_none_here(no_other_python):
    # In a child: another test may have loaded one in this process.
    program = (
        "from runtime import flavors; flavors.find_flavors()\n"
        "print([name for name in flavors.FLAVORS if flavors._is_loaded(name)])"
    )
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert child.stdout == "[]\n", child.stderr


def test_a_placeholder_package_is_reported(no_other_python, package):
    package("tensorrt", "raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    flavor = find_flavor("tensorrt")
    assert flavor == Flavor(
        "tensorrt",
        None,
        sys.executable,
        False,
        False,
        "tensorrt cannot be used: libnvinfer.so.10: cannot open shared object file; install it whole: "
        "pip install tensorrt --extra-index-url https://pypi.nvidia.com",
    )


def test_a_crash_while_trying_is_reported(no_other_python, package):
    package("tensorrt", "import os; os.abort()")
    assert find_flavor("tensorrt").reason.startswith(f"trying tensorrt in {sys.executable} ended with -6: ")


def test_a_proper_package_is_preferred(package, monkeypatch):
    package("tensorrt_rtx", "__version__ = '1.9'")
    assert load_flavor("tensorrt_rtx").__version__ == "1.9"


def test_two_flavors_do_not_meet(package):
    package("tensorrt_rtx", "__version__ = '1.9'")
    load_flavor("tensorrt_rtx")
    with pytest.raises(
        ToolchainError, match="tensorrt cannot be loaded beside tensorrt_rtx in one process; use another"
    ):
        load_flavor("tensorrt")


def test_without_the_wheel_the_loader_is_asked(monkeypatch):
    monkeypatch.setattr(flavors, "_RTX_LIBRARY_PACKAGES", ("no_such_package",))
    assert flavors._rtx_libraries() == ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"]


def test_another_python(no_other_python, monkeypatch):
    monkeypatch.setenv("CAT2DOG_PYTHON_TENSORRT_RTX", sys.executable)
    flavor = find_flavor("tensorrt_rtx")
    assert flavor.python == sys.executable and flavor.name == "tensorrt_rtx"
    assert flavor.version or "is not installed" in flavor.reason


def test_its_answer_is_taken(fake_python):
    answer = Flavor("tensorrt", "8.6.0", "its own name for itself", True, True)
    python = fake_python(f"echo noise; echo '{json.dumps([vars(answer)])}'")
    assert find_flavor("tensorrt") == Flavor("tensorrt", "8.6.0", python, True, True)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo hello", "answered something else than a flavor"),
        ("true", "answered something else than a flavor"),
        ("echo '[]'", "answered something else than a flavor"),
        ("echo '[3]'", "answered something else than a flavor"),
        (
            'echo \'[{"name":"tensorrt","version":8,"can_build":true,"can_run":true,"reason":""}]\'',
            "answered something else than a flavor",
        ),
        ("echo worse >&2; echo oh no >&2; exit 3", "ended with 3: oh no"),
    ],
)
def test_a_strange_python(fake_python, script, reason):
    python = fake_python(script)
    flavor = find_flavor("tensorrt")
    assert flavor.reason.endswith(reason) and python in flavor.reason
    assert (flavor.version, flavor.can_build, flavor.can_run) == (None, False, False)


def test_a_python_that_hangs(fake_python, monkeypatch):
    monkeypatch.setattr(flavors, "_PROBE_SECONDS", 0.2)
    python = fake_python("exec sleep 20")
    assert find_flavor("tensorrt").reason == f"{python} did not answer within 0.2 s"


def test_a_python_that_is_missing(monkeypatch):
    monkeypatch.setenv("CAT2DOG_PYTHON_TENSORRT", "/nowhere/python")
    reason = find_flavor("tensorrt").reason
    assert reason.startswith("CAT2DOG_PYTHON_TENSORRT names /nowhere/python, which cannot be started: ")


def test_the_command():
    command = [sys.executable, "-m", "runtime.flavors"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CAT2DOG_PYTHON")}
    options = dict(cwd=ROOT, capture_output=True, text=True, timeout=120, check=True, env=environment)
    listed = json.loads(subprocess.run([*command, "--json"], **options).stdout)
    assert [Flavor(**entry).name for entry in listed] == ["tensorrt", "tensorrt_rtx"]
    lines = subprocess.run(command, **options).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["tensorrt", "tensorrt_rtx"]
