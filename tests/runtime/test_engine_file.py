from __future__ import annotations

import errno
import hashlib
import mmap
import os
from dataclasses import replace

import pytest

from runtime import engine_file
from runtime.engine_file import check_engine, engine_manifest, open_engine
from runtime.errors import AccuracyError, EngineMismatch, InputError
from runtime.files import write_bytes
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from runtime.manifest import Build, Gate, Manifest, manifest_path, write_manifest
from tests.runtime import stand_ins

PLAN = b"a plan" * 1000
REBUILD = "cat2dog build --model models/tiny-128 --precision fp16 --flavor tensorrt"
FLAVOR = Flavor("tensorrt", "10.14.1", "python", True, True)
H200 = Gpu(0, "NVIDIA H200", "9.0", 141 << 30, "13.0")
KEY = replace(stand_ins.KEY, flavor_version="10.14.1", gpu="NVIDIA H200", compute_capability="9.0")
AOT = replace(KEY, gpu=None, compute_capability=None, targets=("8.0", "8.9"))


@pytest.fixture
def engine(tmp_path):
    return file_engine(tmp_path / "tiny.engine")


def file_engine(path, key=KEY, gate=None, plan=PLAN):
    path.write_bytes(plan)
    build = Build(1.0, 1, "2026-11-23", REBUILD)
    gate = gate or Gate("passed", "psnr", 30.0, "PyTorch fp32", (50.0,))
    write_manifest(path, Manifest(path.name, hashlib.sha256(plan).hexdigest(), len(plan), key, gate, build))
    return path


def mismatch(path, flavor=FLAVOR, gpu=H200, **options) -> str:
    with pytest.raises(EngineMismatch) as error:
        check_engine(path, flavor, gpu, **options)
    text = str(error.value)
    assert error.value.exit_code == 4 and "\n" not in text and text.endswith(f"; build it again: `{REBUILD}`")
    return text


def test_what_belongs_here_passes(engine):
    manifest = check_engine(engine, FLAVOR, H200)
    assert manifest.key == KEY
    assert check_engine(engine, FLAVOR, H200, verify_hash=False) == manifest
    assert check_engine(engine, FLAVOR, None) == manifest
    with open_engine(engine, FLAVOR, H200) as opened:
        assert opened == (manifest, PLAN)


def test_another_size(engine):
    engine.write_bytes(PLAN[:-1])
    assert "has 5999 bytes, but 6000 were built" in mismatch(engine, verify_hash=False)


def test_an_altered_byte(engine):
    engine.write_bytes(b"A" + PLAN[1:])
    assert "was altered: its sha256 begins with " in mismatch(engine)
    with pytest.raises(EngineMismatch, match="was altered"), open_engine(engine, FLAVOR, H200):
        pass


def test_the_plan_is_mapped_and_let_go(engine):
    with open_engine(engine, FLAVOR, H200) as (_, plan):
        assert isinstance(plan.obj, mmap.mmap) and plan.readonly
        mapping = plan.obj
        assert plan[:6] == b"a plan"
    assert mapping.closed
    with pytest.raises(ValueError, match="released"):
        plan[0]


def test_who_writes_into_the_file_changes_nothing_that_was_read(engine):
    sound = engine.read_bytes()
    with open_engine(engine, FLAVOR, H200, private=True) as (_, plan):
        with open(engine, "r+b") as file:
            file.write(b"GONE")
        assert bytes(plan) == sound
    with pytest.raises(EngineMismatch, match="was altered"), open_engine(engine, FLAVOR, H200, private=True):
        pass


def test_a_plan_replaced_while_it_is_open_stays_what_it_was(engine):
    with open_engine(engine, FLAVOR, H200) as (_, plan):
        write_bytes(engine, b"another")
        assert plan == PLAN


def test_a_plan_cut_short_between_check_and_mapping(engine, monkeypatch):
    checked = engine_file._checked_manifest

    def check_then_cut(path, *rest):
        manifest = checked(path, *rest)
        path.write_bytes(PLAN[:100])
        return manifest

    monkeypatch.setattr(engine_file, "_checked_manifest", check_then_cut)
    with pytest.raises(EngineMismatch) as error, open_engine(engine, FLAVOR, H200):
        pass
    assert str(error.value).endswith(f"has 100 bytes, but 6000 were built; build it again: `{REBUILD}`")


@pytest.mark.parametrize("position", [0, 1, 2999, 5998, 5999])
def test_any_altered_byte_or_length_is_a_mismatch(engine, position):
    altered = bytearray(PLAN)
    altered[position] ^= 1
    for content, said in (
        (altered, "was altered"),
        (PLAN[:position], f"has {position} bytes, but 6000 were built"),
        (PLAN + b"x" * (position + 1), f"has {6001 + position} bytes, but 6000 were built"),
    ):
        engine.write_bytes(content)
        with pytest.raises(EngineMismatch) as error, open_engine(engine, FLAVOR, H200):
            pass
        assert said in str(error.value) and str(error.value).endswith(f"; build it again: `{REBUILD}`")
        assert error.value.exit_code == 4


def test_an_empty_plan(tmp_path):
    path = file_engine(tmp_path / "x.engine", plan=b"")
    with open_engine(path, FLAVOR, H200) as (_, plan):
        assert len(plan) == 0


def test_where_files_cannot_be_mapped_the_plan_is_read(engine, monkeypatch):
    def refuse(code):
        def mmap_(*args, **options):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(mmap, "mmap", type("mmap", (), {"__new__": mmap_}))

    refuse(errno.ENODEV)
    with open_engine(engine, FLAVOR, H200) as (_, plan):
        assert plan == PLAN
    refuse(errno.ENOMEM)
    with pytest.raises(InputError, match=r"tiny\.engine cannot be read: Cannot allocate memory"):
        with open_engine(engine, FLAVOR, H200):
            pass


def test_without_the_hash_time_stamps_decide(engine):
    engine.write_bytes(b"A" + PLAN[1:])
    stamp = manifest_path(engine).stat().st_mtime_ns
    os.utime(engine, ns=(stamp, stamp - 10**9))
    check_engine(engine, FLAVOR, H200, verify_hash=False)
    os.utime(engine, ns=(stamp, stamp + 10**9))
    assert "was altered" in mismatch(engine, verify_hash=False)


def test_a_newer_engine_of_the_right_content_passes(engine):
    stamp = manifest_path(engine).stat().st_mtime_ns
    os.utime(engine, ns=(stamp, stamp + 10**9))
    check_engine(engine, FLAVOR, H200, verify_hash=False)


@pytest.mark.parametrize(
    "flavor",
    [replace(FLAVOR, version="10.14.2"), replace(FLAVOR, name="tensorrt_rtx"), replace(FLAVOR, version=None)],
)
def test_another_flavor_or_version(engine, flavor):
    here = f"{flavor.name} {flavor.version or '(absent)'}"
    assert f"was built by tensorrt 10.14.1, but here is {here}" in mismatch(engine, flavor)


@pytest.mark.parametrize("gpu", [replace(H200, name="NVIDIA H100"), replace(H200, compute_capability="9.1")])
def test_another_gpu(engine, gpu):
    here = f"{gpu.name} (compute capability {gpu.compute_capability})"
    assert f"was built for NVIDIA H200 (compute capability 9.0), but here is {here}" in mismatch(engine, gpu=gpu)


def test_ahead_of_time_targets(tmp_path):
    path = file_engine(tmp_path / "x.engine", AOT)
    check_engine(path, FLAVOR, replace(H200, name="NVIDIA L4", compute_capability="8.9"))
    assert "was built for compute capability 8.0, 8.9, but here is NVIDIA H200" in mismatch(path)


@pytest.mark.parametrize(
    ("level", "name", "capability", "fits"),
    [
        ("ampere_plus", "NVIDIA A10", "8.6", True),
        ("ampere_plus", "NVIDIA RTX PRO 6000", "12.0", True),
        ("ampere_plus", "Tesla T4", "7.5", False),
        ("same_compute_capability", "NVIDIA H100", "9.0", True),
        ("same_compute_capability", "NVIDIA H200", "8.0", False),
        ("none", "NVIDIA H100", "9.0", False),
    ],
)
def test_hardware_compatible_plans(level, name, capability, fits, tmp_path):
    path = file_engine(tmp_path / "x.engine", replace(KEY, options={"hardware_compatibility": level}))
    gpu = replace(H200, name=name, compute_capability=capability)
    if fits:
        check_engine(path, FLAVOR, gpu)
    else:
        assert "was built for NVIDIA H200" in mismatch(path, gpu=gpu)


def test_what_the_gate_refused(tmp_path):
    path = file_engine(tmp_path / "x.engine", gate=Gate("failed", "psnr", 30.0, "PyTorch fp32", (31.0, 18.5)))
    with pytest.raises(AccuracyError) as error:
        check_engine(path, FLAVOR, H200)
    assert str(error.value) == (
        f"engine {path} was refused by the accuracy gate with 18.5 dB; expected at least 30 dB: find the diverging "
        "layer with `cat2dog accuracy --model models/tiny-128 --precision fp16`"
    )


def test_a_pending_gate_passes(tmp_path):
    path = file_engine(tmp_path / "x.engine", gate=Gate("pending", "psnr", 30.0, "PyTorch fp32"))
    assert check_engine(path, FLAVOR, H200).gate.state == "pending"


def test_missing_files(engine, tmp_path):
    with pytest.raises(InputError, match=r"engine .*none\.engine does not exist; build it with `cat2dog build`"):
        engine_manifest(tmp_path / "none.engine")
    with pytest.raises(InputError, match=r"none\.onnx is no engine; expected a file ending in \.engine"):
        engine_manifest(tmp_path / "none.onnx")
    manifest_path(engine).unlink()
    with pytest.raises(EngineMismatch, match=r"tiny\.engine has no manifest tiny\.json beside it; build it again"):
        check_engine(engine, FLAVOR, H200)


def test_an_unreadable_engine(engine, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("runtime.files.sha256_file", refuse)
    with pytest.raises(InputError, match=r"tiny\.engine cannot be read: Permission denied"):
        check_engine(engine, FLAVOR, H200)
