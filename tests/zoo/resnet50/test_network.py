"""The network: its size, what is in the graph around it, random weights that say something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.resnet50.network import PARAMETERS, Classifier, NormStatistics, Pixels
from zoo.resnet50.pictures import drawn_crops


def test_parameters_and_outputs(network):
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS == 25_557_032
    with torch.inference_mode():
        logits, embedding = network(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 1000) and embedding.shape == (2, 2048)


def test_padding_comes_before_normalising():
    crop = torch.randint(0, 256, (1, 100, 100, 3), dtype=torch.uint8)
    x = Pixels()(crop)
    assert x.shape == (1, 3, 224, 224) and x.dtype == torch.float32
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(x[0, :, 0, 0], -mean / std)
    assert torch.allclose(x[0, :, 62, 62], (crop[0, 0, 0] / 255 - mean) / std)
    assert torch.allclose(x[0, :, 161, 161], (crop[0, 99, 99] / 255 - mean) / std)
    assert torch.equal(x[0, :, 162, 162], x[0, :, 0, 0])


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_variance_is_unbiased_and_does_not_cancel(offset):
    values = torch.randn(3, 2048, generator=torch.Generator().manual_seed(0)) + offset
    statistics = NormStatistics()(values)
    exact = values.double()
    assert torch.allclose(statistics[:, 0].double(), exact.mean(1), rtol=1e-6)
    assert torch.allclose(statistics[:, 1].double(), exact.var(1, unbiased=True), rtol=1e-5)


def test_random_weights_tell_pictures_apart(network):
    crops = torch.from_numpy(drawn_crops(4, seed=900))
    with torch.inference_mode():
        logits, embedding, statistics = Classifier(network).eval()(crops)
    assert len(set(logits.argmax(1).tolist())) >= 3
    assert torch.softmax(logits, 1).amax(1).min() > 0.03
    assert torch.allclose(statistics, torch.stack([embedding.mean(1), embedding.var(1)], 1), rtol=1e-4)
    assert np.isfinite(logits.numpy()).all()
