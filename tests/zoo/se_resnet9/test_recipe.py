"""SE-ResNet9 through the toolchain's own commands, and new weights for its engines."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cli.main import main
from engines.refit import structure_sha256, weights_of
from export.export import export
from export.recipe import load_recipe
from runtime.errors import InputError
from runtime.flavors import find_flavor, load_flavor
from zoo.se_resnet9.network import macs
from zoo.se_resnet9.recipe import recipe_of
from zoo.se_resnet9.weights import fixup, save, seeded


def test_each_input_has_a_recipe():
    for name, channels in (("rgb", 3), ("depth", 1), ("binned_depth", 11)):
        recipe = load_recipe(f"zoo.se_resnet9.recipe:{name}")
        feed = recipe.validation(2)
        assert feed["image"].shape == (2, channels, 64, 64) and feed["image"].dtype == np.float32
        assert recipe.reference(feed)["features"].shape == (2, 512, 2, 2)
    assert load_recipe("zoo.se_resnet9.recipe:rgb").flops() == 2 * macs(3)
    encoder = load_recipe("zoo.se_resnet9.recipe:encoder")
    assert encoder.reference(encoder.validation(2))["vector"].shape == (2, 512)
    assert encoder.module().pixels.norm.count > 0


def test_a_trained_checkpoint_is_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("CAT2DOG_SE_RESNET9", raising=False)
    with pytest.raises(InputError, match="CAT2DOG_SE_RESNET9 names no checkpoint"):
        load_recipe("zoo.se_resnet9.recipe:trained")
    save(tmp_path / "after 7.safetensors", seeded(1, 5))
    monkeypatch.setenv("CAT2DOG_SE_RESNET9", str(tmp_path / "after 7.safetensors"))
    recipe = load_recipe("zoo.se_resnet9.recipe:trained")
    assert recipe.name == "se-resnet9-after-7" and recipe.inputs[0].shape == (-1, 1, 64, 64)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """FP16 exports of one network before training, after, and after more."""
    folder = tmp_path_factory.mktemp("onnx")
    networks = {"fixup": fixup(), "one": seeded(3, 1), "two": seeded(3, 2)}
    return {
        name: export(recipe_of(network.eval(), name), folder / f"{name}.onnx", "fp16").path
        for name, network in networks.items()
    }


@pytest.mark.slow
def test_what_it_learns_changes_weights_and_nothing_else(graphs):
    """Not even at Fixup's initial values, where scalars are 0 and 1 and whole weights 0, is anything folded away."""
    assert len({structure_sha256(path) for path in graphs.values()}) == 1
    weights = {name: weights_of(path) for name, path in graphs.items()}
    names = {f"{name}.fp16" for name in seeded().state_dict()}
    assert set(weights["fixup"]) == set(weights["one"]) == names
    expected = seeded(3, 2).state_dict()["blocks.3.b2a"].half().numpy()
    assert np.array_equal(weights["two"]["blocks.3.b2a.fp16"], expected)


@pytest.mark.slow
def test_tensorrts_parser_knows_every_weight_by_name(graphs):
    """What a refitter needs; in a network that TensorRT-RTX parsed, as far as it goes without a GPU."""
    if not (flavor := find_flavor("tensorrt_rtx")).can_build:
        pytest.skip(flavor.reason)
    trt = load_flavor("tensorrt_rtx")
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(graphs["one"]))
    unknown = [name for name in weights_of(graphs["one"]) if not network.mark_weights_refittable(name)]
    assert not unknown and not network.mark_weights_refittable("of no graph")


def test_an_engine_that_takes_new_weights_needs_its_gpu_with_tensorrt_rtx(tmp_path, capsys):
    common = ["--recipe", "zoo.se_resnet9.recipe:depth", "--precision", "fp16", "--build-dir", str(tmp_path)]
    if not find_flavor("tensorrt_rtx").can_build or find_flavor("tensorrt_rtx").can_run:
        pytest.skip("TensorRT-RTX is not here, or a GPU that it runs on is")
    assert main(["build", *common, "--batch", "128", "--flavor", "tensorrt_rtx", "--refit"]) == 2
    assert "only on the GPU that runs them: leave out --refit" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name, precision", [("rgb", "fp16"), ("binned_depth", "bf16"), ("encoder", "fp16")])
def test_it_is_exported_built_and_judged_by_the_toolchains_own_commands(tmp_path, capsys, name, precision):
    common = ["--recipe", f"zoo.se_resnet9.recipe:{name}", "--precision", precision, "--build-dir", str(tmp_path)]
    assert main(["build", *common, "--batch", "1-128", "--flavor", "tensorrt_rtx", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gate"]["state"] == "pending" and min(told["gate"]["proxy_scores"]) >= 0.999
    pytest.importorskip("polygraphy", reason="cat2dog accuracy needs it")
    assert main(["accuracy", *common]) == 0


def test_scalars_left_out_or_folded_wrongly_at_the_border_do_not_pass_the_judge():
    recipe = load_recipe("zoo.se_resnet9.recipe:rgb")
    from runtime.judge import scores

    feed = recipe.validation(4)
    right = recipe.reference(feed)
    network = recipe.module()
    wrong = seeded()
    with torch.no_grad():
        for block in wrong.each_block():  # as if the scalars were a bias of the convolution, its border forgotten
            block.b1b += block.b1a * block.conv1.weight.sum((1, 2, 3)).mean()
            block.b1a.zero_()
        got = {"features": wrong(torch.from_numpy(feed["image"])).numpy()}
    assert min(scores(*recipe.judge[:1], right, right)) >= recipe.judge[1] > min(scores("cosine", got, right))
    assert network is recipe.module()
