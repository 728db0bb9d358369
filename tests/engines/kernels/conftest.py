"""Kernels kept in a folder of the tests' own, and a stand-in for both compilers that remembers what it was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engines.kernels import images, linear_plan, pixels_plan, plan_builder, plan_sm90, plan_triton


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for compiled kernels."""
    folder = tmp_path / "kernels"
    monkeypatch.setenv(images.FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def compiled(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for compiled kernels that the tests of one process share: the compilers are called once for each."""
    monkeypatch.setenv(images.FOLDER_VARIABLE, str(shared_folder))
    return shared_folder


@dataclass
class Request:
    """What a plan asked a compiler for."""

    constants: Mapping[str, Any]
    target: str


@dataclass
class Compilers:
    """Stands in for Triton and NVRTC: a different image for every request, and `shared` bytes for Triton's kernels."""

    shared: int = 1000
    requests: dict[bytes, Request] = field(default_factory=dict)

    def triton_kernel(self, function, signature, constants, target, warps):
        data = self._image(f"triton {function} {signature} {constants} {target} {warps}", constants, target)
        return images.Compiled(data, function, self.shared, warps * 32)

    def cuda_kernel(self, source, prelude, names, constants, target, shared, threads):
        data = self._image(f"{source} {prelude} {constants} {target}", constants, target)
        return [images.Compiled(data, name, shared, threads) for name in names]

    def _image(self, text: str, constants: Mapping[str, Any], target: str) -> bytes:
        data = images.sha256_text(text).encode()
        self.requests[data] = Request(dict(constants), target)
        return data


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> Compilers:
    """No kernel is compiled while this stands in."""
    made = Compilers()
    monkeypatch.setattr(plan_triton, "triton_kernel", made.triton_kernel)
    monkeypatch.setattr(plan_builder, "cuda_kernel", made.cuda_kernel)
    monkeypatch.setattr(plan_sm90, "cuda_kernel", made.cuda_kernel)
    monkeypatch.setattr(linear_plan, "cuda_kernel", made.cuda_kernel)
    monkeypatch.setattr(pixels_plan, "cuda_kernel", made.cuda_kernel)
    return made
