"""What the README says, done: its commands run, its table is the one the results make."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import parse
from runtime.flavors import find_flavor
from tests.cli.conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
RTX = find_flavor("tensorrt_rtx")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(language):
    joined = [block.replace("\\\n", " ") for block in blocks(language)]
    lines = [line.split("  #")[0].strip() for block in joined for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


RUN = [words for words in commands("bash") if words[0] != "make"]


@pytest.mark.xdist_group("shop")
@pytest.mark.parametrize("words", RUN, ids=[" ".join(words) for words in RUN])
def test_the_commands_run(shop, words):
    if "build" in words and not RTX.can_build:
        pytest.skip(f"no TensorRT-RTX to build with: {RTX.reason}")
    (example,) = blocks("python")
    (shop.folder / "my_models.py").write_text(example)
    if words[0] == "python":
        words = [shop.command()[0], str(ROOT / words[1]), *words[2:]]
    elif words[0] == ".venv/bin/polygraphy":
        words = [str(Path(sys.executable).with_name("polygraphy")), *words[1:]]
        # The command before it makes what it loads.
        if not (shop.folder / "build/accuracy/tiny-128_fp16/inputs.json").exists():
            assert shop.cat2dog("accuracy", "--model", "models/tiny-128").returncode == 0
    else:
        assert words[0] == ".venv/bin/cat2dog"
        words = shop.command(*words[1:])
    done = subprocess.run(words, cwd=shop.folder, env=shop.environment(), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_are_commands_to_run():
    assert len(RUN) >= 6


@pytest.mark.parametrize("words", commands("sh"), ids=" ".join)
def test_the_long_ones_are_well_formed(words):
    if words[0] == "make":
        done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif "--list" not in words:
        model = getattr(parse(words[1:]), "model", None)  # `store` takes none
        named = model if isinstance(model, list) else [model] if model else []
        assert all(Path(each).parts[0] == "models" for each in named)


@pytest.mark.parametrize("target", ["run", "test", "engines", "accuracy", "test-all", "test-gpu"])
def test_make_targets_exist(target):
    assert re.search(rf"`?make {target}\b", README)
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_is_made_of_the_results():
    import importlib.util

    spec = importlib.util.spec_from_file_location("record_no_gpu", ROOT / "scripts/record_no_gpu.py")
    record_no_gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(record_no_gpu)
    (shown,) = re.findall(r"<!-- no_gpu table -->\n(.*?)\n<!-- end of table -->", README, re.DOTALL)
    assert shown == record_no_gpu.table(ROOT / "bench/results/no_gpu.json")


def test_the_demo_figures_are_those_of_the_results():
    results = ROOT / "bench/results/demo"
    held_out = json.loads((results / "tiny-128.json").read_text())
    dog, cat = held_out["dog_against_drawn_dog"], held_out["cat_against_drawn_dog"]
    precision = json.loads((results / "precision.json").read_text())["precisions"]
    (shown,) = re.findall(r"<!-- demo figures -->\n(.*?)\n<!-- end of figures -->", README, re.DOTALL)
    for said in (
        f"{dog['psnr_db_mean']:.1f} dB and SSIM {dog['ssim_mean']:.2f}",
        f"{cat['psnr_db_mean']:.1f} dB and {cat['ssim_mean']:.2f}",
        f"{precision['fp16']['onnx_in_onnxruntime']['psnr_db_min']:.1f} dB",
        f"{precision['bf16']['pytorch']['psnr_db_min']:.1f} dB",
    ):
        assert said in " ".join(shown.split())


def test_pictures_and_files_it_names_exist():
    for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README):
        path = next(filter(None, target))
        assert path.startswith("http") or (ROOT / path).exists(), path
    for path in re.findall(r"`((?:bench|export|scripts|images)/[\w./]+\.\w+)`", README):
        assert (ROOT / path).exists(), path
