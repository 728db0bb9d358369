"""Narrow networks, and what their islands are worth."""

import json

import numpy as np
import pytest
import torch

from cat2dog.checkpoint import load
from cat2dog.config import Config
from cat2dog.initialise import initialise
from cat2dog.pixels import denormalise, normalise
from export.policy import POLICIES
from runtime.errors import AccuracyError, InputError
from runtime.metrics import psnr
from training.draw import pair
from training.narrow import ISLANDS, NarrowCat2Dog
from training.precision import POLICY, check, main
from training.seeds import HELD_OUT

MICRO = Config(resolution=64, patch=8, width=64, depth=2, heads=2)
OTHER = Config(resolution=64, patch=8, width=64, depth=2, heads=2, norm="rmsnorm", rope=False, mlp="swiglu")


@pytest.fixture(scope="module", params=[MICRO, OTHER], ids=["layernorm-rope-gelu", "rmsnorm-table-swiglu"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "micro"
    initialise(request.param, 3, folder)
    return folder


@pytest.fixture(scope="module")
def cats():
    return torch.from_numpy(np.stack([pair(HELD_OUT + i, 64)[0] for i in range(2)]))


def _exact(model, cats):
    with torch.inference_mode():
        return denormalise(model(normalise(cats)))


@pytest.mark.parametrize("islands", [(), ("softmax", "norms"), ISLANDS])
def test_in_fp32_the_narrow_network_is_the_network(checkpoint, cats, islands):
    model = load(checkpoint)
    expected = _exact(model, cats).int()
    drawn = NarrowCat2Dog(model, torch.float32, islands)(cats).int()
    assert (drawn - expected).abs().max() <= 1
    assert model.embed.weight.dtype == torch.float32


def test_islands_bring_bf16_nearer_to_fp32(checkpoint, cats):
    model = load(checkpoint)
    expected = _exact(model, cats).numpy()
    bare, whole = (psnr(NarrowCat2Dog(model, torch.bfloat16, i)(cats).numpy(), expected) for i in ((), ISLANDS))
    assert 15 < bare < whole - 1


def test_fp16_is_nearer_than_bf16(checkpoint, cats):
    model = load(checkpoint)
    expected = _exact(model, cats).numpy()
    half, brain = (
        psnr(NarrowCat2Dog(model, t, ISLANDS)(cats).numpy(), expected) for t in (torch.float16, torch.bfloat16)
    )
    assert half > brain + 6


def test_an_unknown_island_is_refused(checkpoint):
    with pytest.raises(InputError, match=r"^there is no island 'gelu': expected some of pixels, norms, softmax, resid"):
        NarrowCat2Dog(load(checkpoint), torch.float16, ["gelu"])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_families_are_those_of_the_export_policy(precision):
    islands = POLICIES[precision].islands
    assert any(island.residual for island in islands) == ("residual" in POLICY[precision])
    assert any(island.module.startswith("pixels") for island in islands) == ("pixels" in POLICY[precision])
    assert any("Norm" in island.kind for island in islands) == ("norms" in POLICY[precision])
    assert "softmax" in POLICY[precision]


@pytest.mark.slow
def test_the_command_measures_each_island(tmp_path, capsys):
    initialise(MICRO, 3, tmp_path / "micro")
    out = tmp_path / "precision.json"
    seeds = f"{HELD_OUT}:{HELD_OUT + 2}"
    code = main(["--model", str(tmp_path / "micro"), "--out", str(out), "--seeds", seeds])
    results = json.loads(out.read_text())
    half, brain = results["precisions"]["fp16"], results["precisions"]["bf16"]
    assert set(half["pytorch_without"]) == {"pixels", "norms", "softmax"} and set(half["pytorch_with"]) == {"residual"}
    assert set(brain["pytorch_without"]) == set(ISLANDS) and brain["pytorch_with"] == {}
    # The emulation in PyTorch and the exported graph round in the same places.
    assert abs(brain["pytorch"]["psnr_db_mean"] - brain["onnx_in_onnxruntime"]["psnr_db_mean"]) < 3
    assert half["onnx_in_onnxruntime"]["psnr_db_min"] > 40
    enough = all(
        p[way]["psnr_db_mean"] >= p["bound_db"] for p in (half, brain) for way in ("pytorch", "onnx_in_onnxruntime")
    )
    assert code == (0 if enough else 3)
    assert capsys.readouterr().out.startswith("fp16  ONNX in ONNX Runtime")


def test_a_precision_under_its_bound_is_an_accuracy_error():
    good, bad = {"psnr_db_mean": 50.0}, {"psnr_db_mean": 39.99}
    results = {"precisions": {"bf16": {"bound_db": 40.0, "onnx_in_onnxruntime": good, "pytorch": bad}}}
    with pytest.raises(AccuracyError, match=r"^bf16 \(pytorch\) is 39\.99 dB from FP32, expected at least 40: see "):
        check(results)


def test_training_seeds_are_refused(tmp_path, capsys):
    assert main(["--model", str(tmp_path), "--out", str(tmp_path / "p.json"), "--seeds", "0:5"]) == 2
    assert "seed 0 may have been trained on: expected seeds from 1000000000" in capsys.readouterr().err
