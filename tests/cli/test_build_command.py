"""`cat2dog build` with the real TensorRT-RTX: built ahead of time, found the second time, and what goes wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time

import pytest

from runtime.flavors import find_flavor
from tests.cli.conftest import ROOT

RTX = find_flavor("tensorrt_rtx")
pytestmark = [
    pytest.mark.xdist_group("shop"),
    pytest.mark.skipif(not RTX.can_build, reason=f"TensorRT-RTX cannot build here: {RTX.reason}"),
]
BUILD = ("build", "--model", "models/tiny-128", "--flavor", "tensorrt_rtx", "--targets", "8.6,8.9")


def engines(shop):
    return {path for path in (shop.folder / "build/engines").rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_built_once_and_gated_by_its_onnx(shop, exported):
    first = shop.cat2dog(*BUILD, "--json")
    assert first.returncode == 0, first.stderr
    facts = json.loads(first.stdout)
    assert facts["fresh"] is True
    assert facts["gate"]["state"] == "pending" and min(facts["gate"]["proxy_scores"]) >= 45
    assert facts["linear_lines"] == ["TensorRT's own: tensorrt_rtx has no plugins"]
    assert "aot-sm86-89_tensorrt_rtx1.7.1/tiny-128_fp16_native_b1-1_" in facts["engine"]

    began = time.perf_counter()
    again = shop.cat2dog(*BUILD, "--json")
    seconds = time.perf_counter() - began
    assert json.loads(again.stdout)["fresh"] is False
    assert json.loads(again.stdout)["sha256"] == facts["sha256"]
    assert seconds < 30  # no torch, no build; the promise of 5 s is for a machine that is not running tests


def test_an_up_to_date_build_imports_no_torch(shop, exported):
    assert shop.cat2dog(*BUILD).returncode == 0
    program = "import sys; sys.modules['torch'] = None; from cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [shop.command()[0], "-c", program, *BUILD],
        cwd=shop.folder,
        env=shop.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stdout


def test_an_engine_is_refused_where_it_cannot_run(shop, exported):
    built = json.loads(shop.cat2dog(*BUILD, "--json").stdout)
    done = shop.cat2dog("run", "--engine", built["engine"], "--input-image", "images/img1.jpg", "--output", "no.png")
    assert done.returncode == 2
    assert "cannot run here" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (shop.folder / "no.png").exists()


def test_an_altered_engine_has_exit_code_4(shop, exported):
    built = json.loads(shop.cat2dog(*BUILD, "--batch", "2", "--json").stdout)
    path = shop.folder / built["engine"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    done = shop.cat2dog("run", "--engine", path, "--input-image", "images/img1.jpg", "--output", "no.png")
    assert done.returncode == 4, done.stderr
    assert "was altered" in done.stderr and "cat2dog build --model models/tiny-128" in done.stderr
    assert json.loads(shop.cat2dog(*BUILD, "--batch", "2", "--json").stdout)["fresh"] is True


def test_a_full_disk_files_nothing(shop, exported):
    before = engines(shop)

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))

    done = subprocess.run(
        shop.command(*BUILD, "--batch", "3"), cwd=shop.folder, env=shop.environment(), capture_output=True, text=True,
        preexec_fn=small_files,
    )  # fmt: skip
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stderr.startswith("error: cannot write into ") and len(done.stderr.splitlines()) == 1
    assert engines(shop) == before


def test_ctrl_c_files_nothing(shop, exported):
    before = engines(shop)
    child = subprocess.Popen(
        shop.command(*BUILD, "--batch", "4"), cwd=shop.folder, env=shop.environment(), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_builder(child)
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said == "interrupted; nothing unfinished was filed\n"
    assert engines(shop) == before
    assert not builders(child.pid)


def test_two_builds_of_one_engine_build_once(shop, exported):
    words = shop.command(*BUILD, "--batch", "5", "--json")
    both = [
        subprocess.Popen(words, cwd=shop.folder, env=shop.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    answers = [child.communicate(timeout=200) for child in both]
    assert [child.returncode for child in both] == [0, 0], answers
    assert sorted(json.loads(out)["fresh"] for out, _ in answers) == [False, True]


def test_make_engines_loops_and_says_what_failed(shop, exported):
    folder = shop.folder / "models/broken"
    folder.mkdir()
    shutil.copy(shop.folder / "models/tiny-128/config.json", folder)
    (folder / "model.safetensors").write_bytes(b"")
    command = " ".join(shop.command())
    wrapper = shop.folder / "cat2dog"
    wrapper.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        [ROOT / "scripts/build_engines.sh", "models/broken", "models/tiny-128"], cwd=shop.folder, capture_output=True,
        text=True, env=shop.environment(CAT2DOG=str(wrapper), FLAVOR="tensorrt_rtx", PRECISIONS="fp16 bf16"),
    )  # fmt: skip
    shutil.rmtree(folder)
    assert done.returncode == 2
    assert done.stderr.count("failed: models/broken") == 2
    assert done.stdout.count("models/tiny-128") == 0 and done.stdout.count("tiny-128_bf16_native") == 1


def builders(session):
    """Processes whose parent or session is `session` and that build."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "engines.child" in line and line.split()[1] == str(session)]


def wait_for_builder(child):
    deadline = time.monotonic() + 60
    while not builders(child.pid):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline, "no builder started"
        time.sleep(0.02)
