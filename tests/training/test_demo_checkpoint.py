"""The checkpoint that is shipped: it draws dogs, and the result files are about these very weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from cat2dog.checkpoint import load
from runtime.errors import InputError
from runtime.files import sha256_file
from training.demo_grid import demo_grid, main
from training.evaluate import evaluate
from training.seeds import HELD_OUT

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models" / "tiny-128"
RESULTS = ROOT / "bench" / "results" / "demo"


def test_it_is_small_and_loads():
    assert (TINY / "model.safetensors").stat().st_size <= 14_000_000
    assert load(TINY).config.resolution == 128


def test_it_draws_the_dog_and_not_the_cat():
    results, _, _ = evaluate(TINY, range(HELD_OUT + 200, HELD_OUT + 204), "cpu", [])
    dog, cat = results["dog_against_drawn_dog"], results["cat_against_drawn_dog"]
    assert dog["psnr_db_mean"] > 18 and dog["psnr_db_mean"] > cat["psnr_db_mean"] + 5
    assert dog["ssim_mean"] > 0.75


@pytest.mark.parametrize("name", ["tiny-128.json", "precision.json"])
def test_results_are_of_the_weights_that_are_shipped(name):
    results = json.loads((RESULTS / name).read_text())
    assert results["weights_sha256"] == sha256_file(TINY / "model.safetensors")
    assert results["pictures"] == 100 and results["seeds"][0] >= HELD_OUT


def test_the_precisions_of_the_shipped_weights_keep_their_bounds():
    precisions = json.loads((RESULTS / "precision.json").read_text())["precisions"]
    for way in ("pytorch", "onnx_in_onnxruntime"):
        assert precisions["fp16"][way]["psnr_db_min"] >= 45
        assert precisions["bf16"][way]["psnr_db_min"] >= 40


def test_the_readme_repeats_the_result_files():
    text = (ROOT / "training" / "README.md").read_text()
    for name in ("tiny-128", "small-256"):
        results = json.loads((RESULTS / f"{name}.json").read_text())
        for who, row in (("dog", f"`{name}`"), ("cat", f"the trivial answer at {results['resolution']} px")):
            scores = results[f"{who}_against_drawn_dog"]
            figures = f"{scores['psnr_db_mean']:.1f} dB | {scores['psnr_db_min']:.1f} dB | {scores['ssim_mean']:.3f}"
            assert any(line.startswith(f"| {row}") and figures in line for line in text.splitlines()), (row, figures)
        assert results["training"]["command"] in text
    half, brain = json.loads((RESULTS / "precision.json").read_text())["precisions"].values()
    rows = {
        "ONNX": (half["onnx_in_onnxruntime"], brain["onnx_in_onnxruntime"]),
        "PyTorch, islands of the policy": (half["pytorch"], brain["pytorch"]),
        "without any": (half["pytorch_without_any"], brain["pytorch_without_any"]),
        **{f"without {i}": (half["pytorch_without"][i], brain["pytorch_without"][i]) for i in half["pytorch_without"]},
    }
    for row, pair in rows.items():
        cells = [f"{scores[key]:.1f} dB" for scores in pair for key in ("psnr_db_mean", "psnr_db_min")]
        assert f"| {row} | {' | '.join(cells)} |" in text


@pytest.mark.slow
def test_the_grid_has_a_row_each_for_cat_dogs_and_target(tmp_path):
    picture = demo_grid(TINY, [ROOT / "images" / "img1.jpg"], range(HELD_OUT, HELD_OUT + 2))
    assert picture.shape == (4 * 132 + 4, 3 * 132 + 4, 3)
    rows = [picture[4 + 132 * i : 132 + 132 * i, 4:].astype(int) for i in range(4)]
    assert np.abs(rows[1] - rows[2]).mean() < 0.5  # FP32 and FP16 look alike
    assert np.abs(rows[0] - rows[1])[:, :128].mean() > 10  # and the photo was changed
    assert (rows[3][:, :128] == 255).all()  # nobody drew the photo's dog


@pytest.mark.slow
def test_the_grid_command_refuses_training_seeds_and_says_where_it_wrote(tmp_path, capsys):
    with pytest.raises(InputError, match=r"^seed 7 may have been trained on: expected seeds from 1000000000"):
        demo_grid(TINY, [], range(7, 8))
    out = tmp_path / "grid.jpg"
    assert main(["--model", str(TINY), "--out", str(out), "--images", "--seeds", str(HELD_OUT)]) == 0
    assert out.stat().st_size > 1000
    assert capsys.readouterr().out == f"{out}: {TINY} drew 0 photos and the cats of seeds {HELD_OUT}\n"
