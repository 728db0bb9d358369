"""Both adapters on a real GPU: one plan with everything in it, eagerly and from CUDA graphs, in two threads."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from runtime.gpu import find_gpus
from tests.engines.plugin.gpu_case import compile_image, plan, write_case

pytestmark = [pytest.mark.gpu, pytest.mark.xdist_group("plugin")]


@pytest.mark.parametrize("adapter", ["v2_plain", "v3"])
def test_a_plan_with_everything(adapter, request, tmp_path):
    gpus = find_gpus()
    if not gpus or gpus[0].compute_capability != "9.0":
        pytest.skip(f"needs a GPU of compute capability 9.0, found {gpus or 'none'}")
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("needs nvcc to compile the kernels")
    built = request.getfixturevalue(adapter)
    arguments = write_case(plan(compile_image(nvcc)), tmp_path)
    child = subprocess.run(
        [built.host_test, str(built.library), *arguments], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert child.stdout.count("ok: thread") == 4
