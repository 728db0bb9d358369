"""Real ahead-of-time compilation, and the folder in which its results are kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.kernels import images
from engines.kernels.launch import Argument, Null, Number, Pointer, TensorMap
from engines.kernels.plan import make_plan
from engines.kernels.problem import AttentionProblem
from engines.kernels.variants import TARGETS, Sm90Variant, TritonVariant
from runtime.errors import InputError, ToolchainError
from tests.engines.kernels import cubin

ROOT = Path(__file__).resolve().parents[3]
REASON = images.why_not()
needs_compilers = pytest.mark.skipif(bool(REASON), reason=REASON)

PREPARE = {
    "D": 64, "HEADS": 2, "TOKENS": 17, "Q_BATCH": 6528, "Q_HEAD": 64, "Q_ROW": 384, "K_BATCH": 6528, "K_HEAD": 64,
    "K_ROW": 384, "BF16": False, "NORM": True, "ROPE": False, "OVERLAP": False,
}  # fmt: skip
COMBINE = {"HEADS": 2, "D": 32, "QUERIES": 17, "O_BATCH": 1088, "O_HEAD": 32, "O_ROW": 64}
# Another process, and perhaps another copy of the sources, compile the same two kernels.
SCRIPT = """
import hashlib, json, sys
from engines.kernels import images
prepare, combine = json.loads(sys.argv[1])
made = images.cuda_kernel("prepare.cu", "", ["prepare"], prepare, "9.0", 0, 256)
made.append(images.triton_kernel(
    "combine", {"Partial": "*fp32", "Peaks": "*fp32", "Out": "*fp16"},
    {**combine, "BLOCK_M": 16, "WIDE": 32, "SPLITS": 2}, "9.0", 4))
print(images.__file__)
print(*(hashlib.sha256(each.data).hexdigest() for each in made))
"""


def prepare(target="9.0"):
    return images.cuda_kernel("prepare.cu", "", ["prepare"], PREPARE, target, 0, 256)[0]


def combine(target="9.0"):
    signature = {"Partial": "*fp32", "Peaks": "*fp32", "Out": "*fp16"}
    return images.triton_kernel(
        "combine", signature, {**COMBINE, "BLOCK_M": 16, "WIDE": 32, "SPLITS": 2}, target, 4
    )  # fmt: skip


def elsewhere(root: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, json.dumps([PREPARE, COMBINE])]
    environment = {**os.environ, "PYTHONPATH": str(root), images.FOLDER_VARIABLE: str(folder)}
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def answer(child: subprocess.Popen) -> tuple[str, list[str]]:
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    where, hashes = output.splitlines()
    return where, hashes.split()


def argument_size(argument: Argument) -> int:
    match argument:
        case Pointer() | Null():
            return 8
        case TensorMap():
            return 128
        case Number():
            return 8 if argument.kind == "i64" else 4


@needs_compilers
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", [prepare, combine], ids=["cuda", "triton"])
def test_every_target_is_compiled(kept, kernel, target):
    made = kernel(target)
    assert cubin.kernels(made.data) == {made.name}
    assert made.threads in (128, 256)
    # The architecture stands in the ELF header's flags, in bits 8 to 15 by the newer layout, 0 to 7 by the older one.
    flags = int.from_bytes(made.data[0x30:0x34], "little")
    assert int(target.replace(".", "")) in (flags & 0xFF, flags >> 8 & 0xFF)
    assert sorted(path.suffix for path in kept.iterdir()) == [".cubin", ".json"]


@needs_compilers
@pytest.mark.parametrize(
    "variant",
    [
        TritonVariant(32, 64, 4, 2, splits=2, prepare=True),
        TritonVariant(64, 64, 4, 2),
        Sm90Variant(2, 80, 2, turns=True, blocks=6, parts=True, prepare=True),
        Sm90Variant(1, 128, 1, turns=False),  # all 113 keys in one stage: norm and RoPE inside
    ],
    ids=str,
)
@pytest.mark.parametrize("turned", [False, True], ids=["plain", "turned"])
def test_kernels_take_the_arguments_that_plans_give(compiled, variant, turned):
    problem = AttentionProblem(
        "bf16", 2, 64, 113, 113, 0.125, (1, 2, 4), qk_norm=1e-6 if turned else None, rope=turned
    )  # fmt: skip
    plan = make_plan(problem, variant, "9.0")
    for launch in plan.launches:
        taken = cubin.parameters(plan.images[launch.image].data, launch.name)
        assert [each.size for each in taken] == [argument_size(given) for given in launch.arguments], launch.name


@needs_compilers
def test_the_same_source_gives_the_same_bytes_from_another_folder(kept, tmp_path):
    copy = tmp_path / "copy of the house"
    for room in ("engines", "runtime"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    where, hashes = answer(elsewhere(copy, tmp_path / "its kernels"))
    assert where.startswith(str(copy))
    made = [prepare(), combine()]
    assert [sha256(each.data) for each in made] == hashes
    assert {path.name for path in kept.iterdir()} == {path.name for path in (tmp_path / "its kernels").iterdir()}
    for each in made:
        assert not any(word in each.data for word in (str(ROOT).encode(), b"attention_triton.py", b"/engines/"))


@needs_compilers
def test_processes_that_compile_the_same_do_not_disturb_each_other(tmp_path):
    folder = tmp_path / "shared"
    answers = [answer(child)[1] for child in [elsewhere(ROOT, folder) for _ in range(3)]]
    assert answers[0] == answers[1] == answers[2]
    assert sorted(path.suffix for path in folder.iterdir()) == [".cubin", ".cubin", ".json", ".json"]
    assert sorted(sha256(path.read_bytes()) for path in folder.glob("*.cubin")) == sorted(answers[0])


@pytest.fixture
def one(kept, monkeypatch):
    """A kept kernel of made-up bytes; `calls` counts how often it was compiled."""
    calls = []

    def compile_cuda(name, text, constants, architecture):
        calls.append(architecture)
        return b"\x7fELF" + bytes(1000)

    monkeypatch.setattr(images, "_compile_cuda", compile_cuda)
    assert prepare().data == b"\x7fELF" + bytes(1000)
    return next(kept.glob("*.cubin")), calls


def test_what_is_kept_is_not_compiled_again(one):
    assert prepare().data == one[0].read_bytes()
    assert len(one[1]) == 1
    prepare("8.6")
    assert one[1] == ["sm_90a", "sm_86"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\0" + path.read_bytes()[1:]),
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[1]"),
        lambda path: path.with_suffix(".json").write_text('{"sha256": 3}'),
        lambda path: path.with_suffix(".json").write_text("[" * 100_000),
        lambda path: path.with_suffix(".json").write_bytes(b"\xff"),
    ],
    ids=["truncated", "changed", "gone", "no JSON", "half a JSON", "a list", "few facts", "deep", "no text"],
)
def test_what_is_damaged_is_compiled_anew(one, damage):
    path, calls = one
    good = path.read_bytes()
    facts = path.with_suffix(".json").read_text()
    damage(path)
    assert prepare().data == good
    assert len(calls) == 2
    assert path.read_bytes() == good and path.with_suffix(".json").read_text() == facts


def test_launch_numbers_are_those_asked_for_not_those_kept(one):
    again = images.cuda_kernel("prepare.cu", "", ["first", "second"], PREPARE, "9.0", 512, 128)
    assert [(each.name, each.shared, each.threads) for each in again] == [("first", 512, 128), ("second", 512, 128)]
    assert len(one[1]) == 1


@pytest.mark.parametrize(
    ("kernel", "package", "pinned"),
    [(prepare, "nvidia-cuda-nvrtc", images.NVRTC), (combine, "triton", images.TRITON)],
    ids=["cuda", "triton"],
)
@pytest.mark.parametrize("have", [None, "1.0"])
def test_without_the_pinned_compiler_the_message_says_what_to_install(kept, monkeypatch, kernel, package, pinned, have):
    installed(monkeypatch, package, have)
    with pytest.raises(InputError) as refused:
        kernel()
    state = f"{package} {pinned} is not installed" if have is None else f"{package} 1.0 is installed"
    message = str(refused.value)
    assert state in message and f"pip install {package}=={pinned}" in message
    assert len(message.splitlines()) == 1
    assert not kept.exists()


@needs_compilers
@pytest.mark.parametrize("kernel", [prepare, combine], ids=["cuda", "triton"])
def test_what_is_kept_needs_no_compiler(compiled, monkeypatch, kernel):
    made = kernel()
    for package in ("triton", "nvidia-cuda-nvrtc"):
        installed(monkeypatch, package, None)
    assert kernel() == made


def test_why_not_names_the_first_that_is_missing(monkeypatch):
    installed(monkeypatch, "triton", images.TRITON)
    assert images.why_not("triton") == ""
    installed(monkeypatch, "nvidia-cuda-nvrtc", "12.0")
    assert images.why_not("triton") == ""
    for reason in (images.why_not(), images.why_not("nvrtc"), images.why_not("triton", "nvrtc")):
        assert reason.startswith("nvidia-cuda-nvrtc 12.0 is installed, kernels are compiled with 13.")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, one):
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv(images.FOLDER_VARIABLE, str(file / "kernels"))
    with pytest.raises(ToolchainError, match=r"^cannot write .*/file/kernels/[0-9a-f]{32}\.cubin: Not a directory$"):
        prepare()


def test_a_disk_that_fills_leaves_no_part_behind(kept, monkeypatch, one):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = set(kept.iterdir())
    with pytest.raises(ToolchainError, match="No space left on device"):
        prepare("8.0")
    assert set(kept.iterdir()) == before


@needs_compilers
def test_a_source_that_does_not_compile_is_one_line(kept):
    with pytest.raises(ToolchainError) as failed:
        images.cuda_kernel("prepare.cu", "this is no C++;\n", ["prepare"], PREPARE, "9.0", 0, 256)
    assert "prepare.cu" in str(failed.value) and "error" in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    with pytest.raises(ToolchainError, match=r"Triton .* cannot compile combine for 9\.0: ") as failed:
        images.triton_kernel("combine", {}, {**COMBINE, "BLOCK_M": 16, "WIDE": 33, "SPLITS": 2}, "9.0", 4)
    assert len(str(failed.value).splitlines()) == 1
    assert not kept.exists()


def installed(monkeypatch: pytest.MonkeyPatch, package: str, version: str | None) -> None:
    """As if `version` of a package were installed, or none."""
    real = importlib.metadata.version

    def asked(name: str) -> str:
        if name != package:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", asked)
