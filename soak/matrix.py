"""`python -m soak.matrix`: the versions this toolchain says it works with, each in an environment of its own.

    python -m soak.matrix                        # all rows, some gigabytes of PyTorch among them
    python -m soak.matrix --rows runtime names   # those whose name begins so

A row installs exact versions (with uv, else with pip) under one of this machine's Pythons, and does one real thing:
runs an exported network, exports and runs one, builds an engine, or looks for names. What cannot be done here is filed
with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak.result import FOLDER, measured

ROOT = Path(__file__).resolve().parent.parent
_CORE = ("onnx", "onnx-ir", "onnxscript", "ml_dtypes", "pillow", "rich", "filelock")
_LIMIT_SECONDS = 1500


@dataclass(frozen=True)
class Row:
    """A Python, exact packages, and which path of `soak.matrix_paths` is taken."""

    name: str
    python: str
    packages: tuple[str, ...]
    path: str

    @property
    def requirements(self) -> tuple[str, ...]:
        """With what everything here needs, as far as the row does not name it."""
        named = {package.partition("=")[0] for package in self.packages}
        return (*self.packages, *(package for package in _CORE if package not in named))


def _torch(version: str, python: str = "3.12", *more: str) -> Row:
    packages = (f"torch=={version}", "onnxruntime==1.32.0", "einops", "jaxtyping", "safetensors", *more)
    return Row(f"export-torch{version}", python, packages, "export")


ROWS = (
    Row("runtime-py3.10-numpy1", "3.10", ("numpy==1.26.4", "onnxruntime==1.23.2"), "runtime"),
    Row("runtime-py3.10-numpy2", "3.10", ("numpy==2.2.6", "onnxruntime==1.23.2"), "runtime"),
    Row("runtime-py3.11-numpy1", "3.11", ("numpy==1.26.4", "onnxruntime==1.23.2"), "runtime"),
    Row("runtime-py3.11-numpy2", "3.11", ("numpy==2.4.6", "onnxruntime==1.32.0"), "runtime"),
    Row("runtime-py3.12-numpy1", "3.12", ("numpy==1.26.4", "onnxruntime==1.23.2"), "runtime"),
    Row("runtime-py3.12-numpy2", "3.12", ("numpy==2.4.6", "onnxruntime==1.32.0"), "runtime"),
    Row("runtime-py3.13-numpy2", "3.13", ("numpy==2.4.6", "onnxruntime==1.32.0"), "runtime"),
    *(
        Row(f"build-py{python}", python, (
            f"onnxruntime=={ort}", "numpy", "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0",
            "tensorrt-rtx-cu13-bindings==1.7.1.116",
        ), "build")
        for python, ort in (("3.10", "1.23.2"), ("3.12", "1.32.0"), ("3.13", "1.32.0"))
    ),
    _torch("2.13.0"),
    _torch("2.12.1"),
    _torch("2.11.0"),
    _torch("2.10.0"),
    Row("names-tensorrt8.6", "3.10", ("tensorrt-bindings==8.6.1",), "names"),
    Row("names-tensorrt10", "3.12", ("tensorrt-cu12-bindings==10.16.1.11",), "names"),
    Row("names-tensorrt11", "3.12", ("tensorrt-cu13-bindings==11.4.0.106",), "names"),
)  # fmt: skip


def run_row(row: Row, folder: Path) -> dict[str, Any]:
    """What became of one row: `passed` with what its path gave, `failed` or `not run` with a reason."""
    about = {"row": row.name, "python": row.python}
    python = find_python(row.python)
    if python is None:
        return {**about, "status": "not run", "reason": f"there is no Python {row.python} on this machine"}
    began = time.monotonic()
    environment = folder / row.name
    shutil.rmtree(environment, ignore_errors=True)
    try:
        if reason := install(python, environment, row):
            return {**about, "status": "not run", "reason": reason}
        installed = time.monotonic()
        done = _run([str(environment / "bin/python"), "-m", "soak.matrix_paths", row.path])
        last = done.stdout.strip().splitlines()[-1:] or ["{}"]
        about["seconds"] = {"install": round(installed - began, 1), "run": round(time.monotonic() - installed, 1)}
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
            return {**about, "status": "failed", "reason": reason}
        return {**about, "status": "passed", **json.loads(last[0])}
    except subprocess.TimeoutExpired:
        return {**about, "status": "failed", "reason": f"it took over {_LIMIT_SECONDS} s"}
    finally:
        shutil.rmtree(environment, ignore_errors=True)


def find_python(version: str) -> str | None:
    """A Python of that version: on the path, or one of pyenv's."""
    candidates = [shutil.which(f"python{version}"), sys.executable]
    candidates += [str(path) for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        program = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([candidate, "-c", program], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def install(python: str, environment: Path, row: Row) -> str:
    """Make the environment; why it could not be made, or ""."""
    uv = shutil.which("uv")
    made = [uv, "venv", "-q", "-p", python] if uv else [python, "-m", "venv"]
    installing = [uv, "pip", "install", "-q", "-p"] if uv else []
    interpreter = str(environment / "bin/python")
    command = [*installing, interpreter] if uv else [interpreter, "-m", "pip", "install", "-q"]
    for words in ([*made, str(environment)], [*command, *row.requirements]):
        done = _run([str(word) for word in words])
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            return f"not installed: {' '.join(lines[-3:])[:300]}"
    return ""


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_LIMIT_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows, print and file what became of each; exit code 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m soak.matrix", description="Versions, each put to work.")
    parser.add_argument("--rows", nargs="*", default=[""], help="beginnings of names (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("build/matrix"), help="where environments are made")
    parser.add_argument("--output", type=Path, help="result file (default: bench/results/reliability/matrix.json)")
    args = parser.parse_args(arguments)
    output = args.output or FOLDER / "matrix.json"
    before = json.loads(output.read_text())["rows"] if output.exists() else []
    found = {row["row"]: row for row in before}
    args.folder.mkdir(parents=True, exist_ok=True)
    chosen = [row for row in ROWS if row.name.startswith(tuple(args.rows))]
    for row in chosen:
        found[row.name] = run_row(row, args.folder)
        print(json.dumps(found[row.name]), flush=True)
        rows = [found[each.name] for each in ROWS if each.name in found]
        counts = {kind: sum(each["status"] == kind for each in rows) for kind in ("passed", "failed", "not run")}
        measured("matrix", lambda rows=rows, counts=counts: {**counts, "rows": rows}, output)  # type: ignore[misc]
    return int(any(found[row.name]["status"] == "failed" for row in chosen))


if __name__ == "__main__":
    sys.exit(main())
