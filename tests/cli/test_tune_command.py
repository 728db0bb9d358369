"""`cat2dog tune` where there is no GPU: what it compiles, and what it says instead of measuring."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cli import main as command
from engines.kernels import images
from tests.cli.test_bad_input import refused

pytestmark = pytest.mark.xdist_group("shop")
needs_compilers = pytest.mark.skipif(bool(images.why_not()), reason=images.why_not())


def test_without_a_gpu_it_is_one_line_and_exit_code_1(shop):
    before = shop.files()
    done = shop.cat2dog("tune", "--model", "models/tiny-128")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: tuning needs an NVIDIA GPU: ") and line.endswith("; --compile-only needs none")
    assert shop.files() == before


@pytest.mark.parametrize("batch", ["", "0", "1,,4", "-1", "one", "1.5", "1-4", "65537", "9" * 40])
def test_a_batch_that_is_no_list_of_sizes(shop, batch):
    message = refused(shop, "tune", f"--batch={batch}")
    assert message == f"batch '{batch}' is not a list of sizes such as 1,4,8"


@pytest.mark.parametrize("model", ["models/tiny-129", "tiny-129", "", "."])
def test_a_model_that_nobody_knows(shop, model):
    assert "tiny-128" in refused(shop, "tune", "--compile-only", "--model", model)


def test_a_target_that_no_kernel_has(shop):
    message = refused(shop, "tune", "--compile-only", "--target", "7.5")
    assert message == "kernels are compiled for 8.0, 8.6, 8.9, 9.0, 10.0, 12.0, not 7.5"


@pytest.mark.parametrize("option", ["--output", "--results"])
def test_a_file_that_compiling_would_not_write(shop, option):
    message = refused(shop, "tune", "--compile-only", "--model", "tiny-128", option, "x.json")
    assert message == "--output and --results go with measuring; --compile-only fills the folder of kernels"


def test_a_target_without_compile_only(shop):
    message = refused(shop, "tune", "--target", "9.0")
    assert message == "--target goes with --compile-only; measuring is for the GPU at hand"


def test_a_precision_without_kernels(shop):
    assert "fp32" in refused(shop, "tune", "--precision", "fp32")


@needs_compilers
def test_compile_only_fills_the_folder_for_a_machine_without_compilers(shop):
    words = ("tune", "--compile-only", "--model", "tiny-128", "--plain", "--precision", "fp16", "--batch", "1")
    done = shop.cat2dog(*words, "--target", "8.6", CAT2DOG_KERNELS="kernels")
    assert done.returncode == 0 and done.stderr == ""
    count = int(done.stdout.removeprefix("kernels: ").split()[0])
    assert done.stdout == f"kernels: {count} plans for 1 problems and compute capability 8.6\n"
    cubins = set((shop.folder / "kernels").glob("*.cubin"))
    assert count >= 12 and len(cubins) >= count
    again = shop.cat2dog(*words, "--target", "8.6", "--json", CAT2DOG_KERNELS="kernels")
    assert json.loads(again.stdout) == {"kernels": "kernels", "target": "8.6", "problems": 1, "plans": count}
    assert set((shop.folder / "kernels").glob("*.cubin")) == cubins


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A GPU of compute capability 9.0 on which every problem takes as many microseconds as it has tokens."""
    from engines.kernels import tune
    from engines.kernels.tables import Entry, Timing
    from engines.kernels.variants import TritonVariant
    from runtime import cuda
    from runtime import gpu as module

    found = module.Gpu(0, "NVIDIA H100", "9.0", 80 << 30, "13.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(images.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(module, "find_gpus", lambda: [found])
    monkeypatch.setattr(module, "multiprocessors", lambda index: 132)
    monkeypatch.setattr(module, "driver_version", lambda: "580")
    monkeypatch.setattr(cuda, "set_device", lambda index: None)
    asked = []

    def tuned(key, target, multiprocessors, variants, progress):
        asked.append((key, target, multiprocessors, variants))
        timing = Timing(TritonVariant(64, 64, 4, 2), float(key.queries), 1.0, 9e9, ("00",), 1e-4)
        slow = replace(timing, variant=TritonVariant(32, 64, 4, 2), median=2.0 * key.queries)
        return Entry(key, (timing,)), [timing, slow]

    monkeypatch.setattr(tune, "tune", tuned)
    monkeypatch.setattr(tune, "compile_all", lambda *given: 0)
    return SimpleNamespace(asked=asked, folder=tmp_path)


def test_what_was_measured_is_filed_and_merged(gpu, capsys):
    from engines.kernels.tables import read_table

    path = gpu.folder / "build/kernels/tuned/sm90_nvidia-h100.json"
    assert command.main(["tune", "--model", "500m-256", "--batch", "1,4", "--results", "all.json"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert len(rows) == 4 and rows[0].startswith(
        "1/4 256 tokens, 20 heads of 64, batch 1, fp16, QK-norm, RoPE: 256.0 us, "
    )
    assert last == "build/kernels/tuned/sm90_nvidia-h100.json: 4 problems"
    table = read_table(path)
    assert (table.gpu, table.multiprocessors, table.driver) == ("NVIDIA H100", 132, "580")
    assert table.command == "cat2dog tune --model 500m-256 --precision fp16 bf16 --batch 1,4"
    everything = json.loads((gpu.folder / "all.json").read_text())
    assert everything["about"]["gpu"] == "NVIDIA H100" and len(everything["problems"]) == 4
    assert command.main(["tune", "--model", "500m-512", "--precision", "fp16", "--batch", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1
    assert len(read_table(path).entries) == 5


def test_the_second_precision_measures_what_was_fast_in_the_first(gpu, capsys):
    assert command.main(["tune", "--model", "500m-256", "--batch", "1"]) == 0
    (_, target, multiprocessors, first), (key, *_, second) = gpu.asked
    assert (target, multiprocessors, first, key.precision) == ("9.0", 132, None, "bf16")
    assert [variant.block_m for variant in second] == [64, 32]


def test_layers_of_a_block_are_chosen_together_after_they_were_measured(gpu, capsys, monkeypatch):
    from engines.kernels import library, tune, tune_block
    from engines.kernels.linear_variants import LinearVariant
    from engines.kernels.problem import Unsupported
    from engines.kernels.tables import Entry, InBlock, Timing, read_table

    alone, taken = LinearVariant(1, 1, 128, 8), LinearVariant(2, 1, 128, 4)
    timing = Timing(alone, 9.0, 8.0, 10.0, ("00",), 1e-4)
    monkeypatch.setattr(tune, "tune", lambda key, *rest: (Entry(key, (timing,)), [timing]))
    plans, blocks = [], []

    def planner(capability, name):
        def plan(problem):
            plans.append((capability, name, problem.queries, problem.qk_norm, problem.rope))
            return SimpleNamespace(plan="attention")

        return plan

    def together(block, before, target, multiprocessors, progress):
        blocks.append((block, before, target, multiprocessors))
        return {name: InBlock(replace(timing, variant=taken), (40.0, 39.0, 41.0)) for name in before}

    monkeypatch.setattr(library, "planner", planner)
    monkeypatch.setattr(tune_block, "tune_block", together)
    words = ["tune", "--model", "500m-256", "--kernels", "linear", "--precision", "fp16", "--batch", "1"]
    assert command.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[6].startswith("block of 256 tokens, width 1280, fp16, batch 1: 40.0 us a block: qkv linear 128x128")
    (block, before, target, multiprocessors) = blocks[0]
    assert (target, multiprocessors, set(before.values()), block.attention) == ("9.0", 132, {alone}, "attention")
    assert (block.qkv.columns, block.projection.columns, block.up.columns, block.down.inner) == (3840, 1280, 5120, 5120)
    assert plans == [("9.0", "NVIDIA H100", 256, None, False)]
    entries = read_table(gpu.folder / "build/kernels/tuned/sm90_nvidia-h100.json").entries
    assert len(entries) == 6
    assert [entry.in_block.timing.variant for entry in entries if entry.in_block] == [taken] * 4

    def uncovered(*given):
        raise Unsupported("no kernel has heads of 48")

    monkeypatch.setattr(tune_block, "tune_block", uncovered)
    assert command.main([*words, "--json"]) == 0
    assert ", batch 1: not measured as a whole: no kernel has heads of 48" in capsys.readouterr().err


def test_a_block_whose_attention_turns_is_not_measured_as_a_whole():
    from cat2dog.config import lookup
    from cli.tune_keys import block_keys

    assert block_keys(lookup("tiny-128"), "fp16", 1) is None
    assert list(block_keys(lookup("1b-256"), "fp16", 1)[0]) == ["qkv", "projection", "up", "down"]


def test_a_table_of_another_gpu_is_not_added_to(gpu, capsys):
    assert command.main(["tune", "--model", "500m-256", "--batch", "1", "--output", "table.json"]) == 0
    text = (gpu.folder / "table.json").read_text().replace("H100", "H200")
    (gpu.folder / "table.json").write_text(text)
    capsys.readouterr()
    assert command.main(["tune", "--model", "500m-256", "--batch", "1", "--output", "table.json"]) == 2
    assert capsys.readouterr().err == (
        "error: table.json was measured on NVIDIA H200, this is NVIDIA H100: give another --output\n"
    )
    assert (gpu.folder / "table.json").read_text() == text


def test_an_onnx_file_that_is_none(shop):
    (shop.folder / "notes.onnx").write_text("not a graph")
    done = shop.cat2dog("tune", "--compile-only", "--onnx", "notes.onnx")
    assert done.returncode == 2 and "notes.onnx is not an ONNX file" in done.stderr


def test_an_onnx_file_is_asked_for_its_attention(shop, exported):
    from cli.main import parse
    from cli.tune_command import _keys

    (key,) = _keys(parse(["tune", "--onnx", str(exported), "--batch", "2"]))
    assert (key.precision, key.heads, key.head_size, key.queries, key.batch) == ("fp16", 6, 32, 256, 2)
    assert (key.layout, key.qk_norm, key.rope) == ("packed", True, True)
