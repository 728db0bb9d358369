"""The seeded weights behave like a trained network's; the figures are those of the design."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from skimage import data

from cat2dog.checkpoint import load
from cat2dog.config import NAMED, Config
from cat2dog.initialise import initialise, random_weights
from cat2dog.model import Cat2Dog
from cat2dog.pixels import denormalise, normalise
from runtime.errors import InputError

TINY = NAMED["tiny-128"]
CASES = {
    "tiny-128": (TINY, 0),
    "tiny-128, another seed": (TINY, 5),
    "deep, heads of 64": (Config(resolution=64, patch=8, width=128, depth=32, heads=2), 0),
    "deep, heads of 128": (Config(resolution=64, patch=8, width=256, depth=32, heads=2), 1),
    "deep, the other switches": (
        Config(resolution=64, patch=8, width=128, depth=32, heads=2, norm="rmsnorm", mlp="swiglu", bias=False,
               qk_norm=False, rope=False),
        0,
    ),
}  # fmt: skip


def psnr(a, b):
    error = (a.double() - b.double()).square().mean().clamp(min=1e-9)
    return float(10 * torch.log10(255**2 / error))


def photos(resolution):
    """A cat, a person, a cup of coffee, and another part of the cat."""
    crops = [
        data.chelsea()[:300, 75:375],
        data.astronaut(),
        data.coffee()[:400, 100:500],
        data.chelsea()[60:260, 130:330],
    ]
    images = [torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() for crop in crops]
    small = [torch.nn.functional.interpolate(image, (resolution, resolution), mode="area") for image in images]
    return torch.cat(small).round().to(torch.uint8).permute(0, 2, 3, 1)


@pytest.fixture(params=CASES, scope="module")
def network(request):
    config, seed = CASES[request.param]
    model = Cat2Dog(config).eval().requires_grad_(False)
    model.load_state_dict(dict(random_weights(config, seed)))
    streams = [model.tokens(normalise(photos(config.resolution)))]
    for block in model.blocks:
        streams.append(block(streams[-1], model.rope))
    return model, streams, model.picture(streams[-1])


def test_the_output_has_contrast_and_is_hardly_clipped(network):
    _, _, output = network
    for image in output:
        assert (denormalise(image[None]).float()).std() >= 40
        assert (image.abs() > 1).float().mean() < 0.05


def test_different_inputs_give_different_outputs(network):
    _, _, output = network
    pictures = denormalise(output)
    assert max(psnr(a, b) for a, b in combinations(pictures, 2)) < 20


def test_skipping_any_one_block_shows(network):
    model, streams, output = network
    whole = denormalise(output)
    for skipped in range(model.config.depth):
        x = streams[skipped]
        for block in model.blocks[skipped + 1 :]:
            x = block(x, model.rope)
        for a, b in zip(denormalise(model.picture(x)), whole, strict=True):
            assert psnr(a, b) < 30, f"block {skipped}"


def test_some_channels_are_outliers(network):
    model, streams, _ = network
    for x in streams[1:]:
        size = x.abs().mean(dim=(0, 1))
        assert 15 < size.max() / size.median() < 100
    gains = [block.norm1.weight for block in model.blocks]
    assert all(gain.max() > 4 * gain.median() for gain in gains)
    assert max(x.abs().max() for x in streams) < 6000  # a tenth of what FP16 can hold


def test_narrow_precisions_stay_near(network):
    model, _, output = network
    image = normalise(photos(model.config.resolution))
    for dtype, floor in ((torch.float16, 45), (torch.bfloat16, 32)):
        narrow = Cat2Dog(model.config).eval()
        narrow.load_state_dict(model.state_dict())
        with torch.no_grad():
            pictures = denormalise(narrow.to(dtype)(image.to(dtype)))
        assert min(psnr(a, b) for a, b in zip(pictures, denormalise(output), strict=True)) > floor


def test_a_seed_gives_the_same_weights_again_and_another_seed_others():
    first, again, other = (dict(random_weights(TINY, seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert set(first) == {name for name, _ in Cat2Dog(TINY).named_parameters()}


def test_initialise_writes_a_checkpoint_and_counts(tmp_path):
    counts = []
    initialise(TINY, 0, tmp_path / "tiny-128", progress=lambda done, total: counts.append((done, total)))
    assert counts == [(done, 9) for done in range(1, 10)]
    model = load(tmp_path / "tiny-128")
    weights = dict(random_weights(TINY, 0))
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())
    with pytest.raises(InputError, match=r"tiny-128 exists already; remove it, or replace it with --overwrite"):
        initialise(TINY, 0, tmp_path / "tiny-128")


def test_a_very_small_grid_can_be_made():
    config = replace(TINY, resolution=8, depth=1)
    model = Cat2Dog(config)
    model.load_state_dict(dict(random_weights(config, 0)))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
