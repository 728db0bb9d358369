"""What lies on the disk after an export: finished files, or nothing; and when they are made again."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from export import onnx_file
from export.export import export
from export.policy import Island, Policy
from export.recipe import ModuleRecipe
from runtime.errors import InputError, ToolchainError
from runtime.runner import TensorSpec

room = importlib.import_module("export.export")  # `export.export` is also the name of its function
ROOT = Path(__file__).resolve().parents[2]
X = TensorSpec("x", "float32", (-1, 64))


class Net(nn.Module):
    def __init__(self, width=64, scale=1.0):
        super().__init__()
        self.inner = nn.Linear(64, width)
        with torch.no_grad():
            self.inner.weight.mul_(scale)

    def forward(self, x):
        return torch.relu(self.inner(x))


def recipe(seed=0, **arguments):
    width = arguments.get("width", 64)
    outputs = [TensorSpec("y", "float32", (-1, width))]
    return ModuleRecipe("net", lambda: Net(**arguments), [X], outputs, seed=seed)


@pytest.fixture(scope="module")
def _exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    export(recipe(), path)
    return path.parent


@pytest.fixture
def path(_exported, tmp_path):
    """A finished export, in a folder of its own (and so with other time stamps' chance to go wrong)."""
    shutil.copytree(_exported, tmp_path / "copy")
    return tmp_path / "copy" / "net.onnx"


def stamps(path):
    return {file.name: file.stat().st_mtime_ns for file in sorted(path.parent.iterdir())}


def results(folder):
    """Everything but the lock file, which stays so that no two processes ever lock different files of one name."""
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith(".lock"))


def test_an_export_is_three_files(path):
    assert results(path.parent) == ["net.json", "net.onnx", "net.onnx.data"]
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["path"] == "net.onnx" and set(manifest["files"]) == {"net.onnx", "net.onnx.data"}
    assert manifest["inputs"][0]["name"] == "x" and manifest["outputs"][0]["shape"] == [-1, 64]
    assert manifest["versions"]["torch"] == torch.__version__


def test_a_second_export_does_nothing(path):
    before = stamps(path)
    again = export(recipe(), path)
    assert stamps(path) == before
    assert again == onnx_file.read(path) and again.attention_nodes == 0


def test_a_second_export_of_a_checkpoint_needs_no_torch(tmp_path):
    from tests.export.micro import micro_export, micro_recipe

    made, folder = micro_export("fp16"), micro_recipe().folder
    program = f"""
import sys, time
from export.export import export
from cat2dog.recipe import Cat2DogRecipe
began = time.perf_counter()
export(Cat2DogRecipe({str(folder)!r}, {str(micro_recipe().cache)!r}), {str(made.path)!r}, "fp16")
assert time.perf_counter() - began < 2
heavy = {{"torch", "onnxruntime", "onnx", "onnxscript", "PIL"}} & set(sys.modules)
assert heavy <= {{"PIL"}}, heavy
"""
    before = made.path.stat().st_mtime_ns
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert made.path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": recipe(seed=1)},
        {"recipe": recipe(width=32)},
        {"precision": "fp16"},
        {"opset": 18},
        {"batch": 2},
        {"policy": Policy("fp16", (Island("why", module="inner"),)), "precision": "fp16"},
    ],
    ids=["weights", "structure", "precision", "opset", "batch", "policy"],
)
def test_anything_that_changes_the_graph_makes_a_new_one(path, change):
    before = onnx_file.read(path)
    after = export(**{"recipe": recipe(), "path": path, **change})
    assert after.key != before.key
    assert after.files != before.files and onnx_file.read(path) == after


def test_a_touched_file_is_hashed_and_kept(path, monkeypatch):
    os.utime(path, (1, 1))
    os.utime(onnx_file.data_path(path), (1, 1))
    hashed = []
    monkeypatch.setattr(onnx_file, "sha256_file", lambda file: hashed.append(file) or onnx_file_sha(file))
    export(recipe(), path)
    assert len(hashed) == 2 and path.stat().st_mtime == 1


onnx_file_sha = onnx_file.sha256_file


@pytest.mark.parametrize("which", ["net.onnx", "net.onnx.data"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_made_again(path, which, damage):
    whole = onnx_file.read(path)
    file = path.with_name(which)
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    again = export(recipe(), path)
    assert [again.files[name]["sha256"] for name in again.files] == [whole.files[n]["sha256"] for n in whole.files]
    assert path.with_name(which).stat().st_size == whole.files[which]["size"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 99, "path": "net.onnx"}', "\xff"])
def test_a_damaged_manifest_means_a_new_export(path, text):
    path.with_suffix(".json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"net\.json .*export the model again$"):
        onnx_file.read(path)
    export(recipe(), path)
    assert onnx_file.read(path).path == path


def test_a_manifest_that_is_missing_or_huge_is_named(path):
    path.with_suffix(".json").write_bytes(b" " * (5 << 20))
    with pytest.raises(InputError, match=r"net\.json is larger than a manifest: export the model again$"):
        onnx_file.read(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"net\.onnx has no manifest net\.json beside it: export the model again$"):
        onnx_file.read(path)


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("the width is odd\nand more")


class Undecided(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize("module", [Raises, Undecided])
def test_a_module_that_cannot_be_exported_is_one_line_and_no_file(module, tmp_path):
    failing = ModuleRecipe("net", module, [X], [TensorSpec("y", "float32", (-1, 64))])
    with pytest.raises(InputError) as caught:
        export(failing, tmp_path / "net.onnx")
    message = str(caught.value)
    assert message.startswith("PyTorch cannot export recipe 'net': ") and "\n" not in message and len(message) < 450
    assert message.endswith("; if its batch cannot vary, fix it with --batch 1")
    if module is Raises:
        assert "the width is odd" in message
    assert results(tmp_path) == []


class BatchBound(nn.Module):
    def forward(self, x):
        return x.reshape(2, 64) + torch.zeros(2, 64)


class BatchLost(nn.Module):
    def forward(self, x):
        return x.sum(0, keepdim=True)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            BatchBound,
            r"^recipe 'net': the batch of input 'x' cannot vary, the module fixes its shape to \[2, 64\]; "
            r"fix it with --batch 1$",
        ),
        (BatchLost, r"^recipe 'net': the batch of output 'y' cannot vary, the module fixes its shape to \[1, 64\]; "),
        (lambda: nn.Linear(64, 32), r"^recipe 'net': output 'y' is \[-1, 32\] in the graph, \[-1, 64\] in the recipe$"),
    ],
    ids=["bound", "lost", "other width"],
)
def test_a_shape_that_is_not_the_recipes_is_refused(module, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export(ModuleRecipe("net", module, [X], [TensorSpec("y", "float32", (-1, 64))]), tmp_path / "net.onnx")
    assert results(tmp_path) == []


def test_a_module_of_one_batch_size_exports_with_it(tmp_path):
    file = export(
        ModuleRecipe("net", BatchBound, [X], [TensorSpec("y", "float32", (-1, 64))]), tmp_path / "net.onnx", batch=2
    )
    assert file.key["batch"] == 2


def test_a_failed_export_leaves_the_old_one(path):
    before = stamps(path)
    failing = ModuleRecipe("net", Raises, [X], [TensorSpec("y", "float32", (-1, 64))])
    with pytest.raises(InputError, match="the width is odd"):
        export(failing, path)
    assert stamps(path) == before


def test_weights_beyond_fp16_are_named(tmp_path):
    with pytest.raises(
        InputError,
        match=r"^weight 'inner\.weight\.fp16' reaches 1\.2[0-9]e\+05, over FP16's 65504: "
        r"keep its module FP32 by an island, or use bf16$",
    ):
        export(recipe(scale=1e6), tmp_path / "net.onnx", "fp16")
    assert results(tmp_path) == []


def test_an_island_keeps_weights_beyond_fp16(tmp_path):
    policy = Policy("fp16", (Island("its weights are large", module="inner"),))
    file = export(recipe(scale=1e6), tmp_path / "net.onnx", "fp16", policy=policy)
    assert file.nodes["fp32"] >= 1


def test_files_are_onnx_and_precisions_agree(tmp_path):
    with pytest.raises(InputError, match=r"^an export is written to a file that ends in \.onnx, not to 'net\.pt'$"):
        export(recipe(), tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"^precision bf16 with a policy for fp16: give one of them$"):
        export(recipe(), tmp_path / "net.onnx", "bf16", policy=Policy("fp16"))
    with pytest.raises(InputError, match=r"^precision 'int8' is not one of fp32, fp16, bf16$"):
        export(recipe(), tmp_path / "net.onnx", "int8")
    with pytest.raises(InputError, match=r"^opset 16 is not supported; choose one from 17 .* to 23$"):
        export(recipe(), tmp_path / "net.onnx", opset=16)
    assert results(tmp_path) == []


def test_what_a_killed_export_left_is_removed(tmp_path):
    child = subprocess.Popen(["sleep", "60"])
    living = tmp_path / f".tmp-{child.pid}-a"
    dead = tmp_path / f".tmp-{_dead_pid()}-b"
    for folder in (living, dead):
        folder.mkdir()
        (folder / "net.onnx.data").write_bytes(b"half")
    try:
        export(recipe(), tmp_path / "net.onnx")
        assert living.exists() and not dead.exists()
    finally:
        child.kill()
        child.wait()


def _dead_pid():
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@contextlib.contextmanager
def disk_of(limit):
    """Writing beyond `limit` bytes into one file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 500, 10_000])
def test_a_full_disk_leaves_nothing(limit, path, monkeypatch):
    """No room at all; none for the graph; none for the weights, of 16 KiB. The old export is as it was."""
    before = stamps(path)
    write = room._write

    def short_of_disk(*arguments):
        with disk_of(limit):
            write(*arguments)

    monkeypatch.setattr(room, "_write", short_of_disk)
    with pytest.raises(ToolchainError, match=r"^cannot write .*net\.onnx: File too large$") as caught:
        export(recipe(seed=1), path)
    assert caught.value.exit_code == 1
    assert stamps(path) == before


def test_no_room_for_the_manifest_leaves_no_graph(path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_file.OnnxFile, "save", full)
    with pytest.raises(ToolchainError, match=r"^cannot write .*net\.onnx: No space left on device$"):
        export(recipe(seed=5), path)
    assert results(path.parent) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolchainError, match=r"^cannot lock .*file/net\.onnx: "):
        export(recipe(), tmp_path / "file" / "net.onnx")


def test_ctrl_c_leaves_nothing(path):
    """The interrupt comes while weights are written."""
    before = stamps(path)

    def interrupt(what, done):
        if what == "writing weights":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        export(recipe(seed=1), path, progress=interrupt)
    assert stamps(path) == before


def test_two_exports_at_once_write_once(tmp_path, monkeypatch):
    write, wrote = room._export, []

    def slowly(*arguments):
        wrote.append(1)
        time.sleep(0.3)
        return write(*arguments)

    monkeypatch.setattr(room, "_export", slowly)
    same = recipe()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: export(same, tmp_path / "net.onnx"), range(2))
    assert wrote == [1] and first == second
    assert results(tmp_path) == ["net.json", "net.onnx", "net.onnx.data"]


def test_progress_is_told(tmp_path):
    told = []
    export(recipe(), tmp_path / "net.onnx", progress=lambda what, done: told.append((what, done)))
    assert told[0] == ("tracing", 0.0) and told[-1] == ("done", 1.0)
    assert ("writing weights", 1.0) in told


def test_memory_of_an_export_is_written_down(path):
    assert 0 < onnx_file.read(path).peak_memory_bytes <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 0 < onnx_file.read(path).seconds < time.monotonic()
