"""Measuring a checkpoint on held-out pairs."""

import json

import numpy as np
import pytest
import torch

from cat2dog.checkpoint import save
from cat2dog.config import Config
from cat2dog.model import Cat2Dog
from runtime.errors import InputError
from training.draw import pair
from training.evaluate import main
from training.seeds import HELD_OUT
from training.similarity import ssim

MICRO = Config(resolution=32, patch=8, width=32, depth=1, heads=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "micro"
    torch.manual_seed(0)
    save(folder, MICRO, Cat2Dog(MICRO))
    return folder


def test_ssim_is_scikit_images():
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    cat, dog = pair(3, 64)
    theirs = structural_similarity(
        cat, dog, gaussian_weights=True, use_sample_covariance=False, channel_axis=2, data_range=255
    )
    assert ssim(cat, dog) == pytest.approx(theirs, abs=1e-6)
    assert ssim(cat, cat) == pytest.approx(1.0)


def test_ssim_refuses_pictures_of_two_shapes():
    with pytest.raises(InputError, match=r"^SSIM needs two uint8 pictures of one shape, over 10 pixels wide; uint8 "):
        ssim(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 31, 3), np.uint8))


def test_the_command_writes_results_and_grids(checkpoint, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    from PIL import Image

    Image.fromarray(pair(1, 64)[0]).save(photo)
    out = tmp_path / "eval"
    seeds = f"{HELD_OUT}:{HELD_OUT + 5}"
    assert main(["--model", str(checkpoint), "--seeds", seeds, "--out", str(out), "--images", str(photo)]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["pictures"] == 5 and results["resolution"] == 32
    # An untrained network draws noise: worse than copying the cat.
    assert results["dog_against_drawn_dog"]["ssim_mean"] < results["cat_against_drawn_dog"]["ssim_mean"] < 0.7
    assert results["dog_against_drawn_dog"]["psnr_db_min"] <= results["dog_against_drawn_dog"]["psnr_db_mean"]
    assert Image.open(out / "grid.png").size == (3 * 36 + 4, 5 * 36 + 4)
    assert Image.open(out / "photos.png").size == (2 * 36 + 4, 36 + 4)
    assert capsys.readouterr().out.startswith("dog against drawn dog: PSNR ")


def test_the_training_is_repeated_in_the_results(checkpoint, tmp_path, capsys):
    run = tmp_path / "run.json"
    run.write_text('{"steps": 7}')
    options = ["--model", str(checkpoint), "--seeds", str(HELD_OUT), "--out", str(tmp_path), "--run", str(run)]
    assert main(options) == 0
    assert json.loads((tmp_path / "results.json").read_text())["training"] == {"steps": 7}
    run.write_text("[]")
    assert main(options) == 2
    assert f"{run} is a JSON list: expected the run.json of training.train" in capsys.readouterr().err
    run.write_text("{")
    assert main(options) == 2
    assert f"cannot read {run} (" in capsys.readouterr().err


def test_seeds_that_may_have_been_trained_on_are_refused(checkpoint, tmp_path, capsys):
    assert main(["--model", str(checkpoint), "--seeds", "0:5", "--out", str(tmp_path)]) == 2
    assert "seed 0 may have been trained on: expected seeds from 1000000000" in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()
