"""Latent adjustment: what each does to the numbers, and to a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.zoo.text2image.test_painter import CAT
from zoo.text2image.adjustment import NONE, Adjustment
from zoo.text2image.latent_study import STUDIED, studied
from zoo.text2image.latents import adjusted

# One process imports diffusers.
pytestmark = pytest.mark.xdist_group("text2image")


@pytest.fixture(params=[(2, 4, 6, 8), (2, 48, 16)], ids=["channels", "packed"])
def values(request):
    noise = torch.randn(request.param, generator=torch.Generator().manual_seed(0)) * 2 + 0.7
    noise.flatten()[::37] *= 9
    return noise


def axes(values):
    return (2, 3) if values.ndim == 4 else (1,)


def test_nothing_is_changed_by_none(values):
    assert torch.allclose(adjusted(values, NONE), values, atol=1e-6)


def test_centring_takes_the_mean_of_each_channel_away_and_leaves_the_rest(values):
    centred = adjusted(values, Adjustment(centre=1))
    assert centred.mean(axes(values)).abs().max() < 1e-5
    assert torch.allclose(centred.std(axes(values)), values.std(axes(values)), rtol=1e-5)
    half = adjusted(values, Adjustment(centre=0.5))
    assert torch.allclose(half.mean(axes(values)), values.mean(axes(values)) / 2, atol=1e-5)


def test_clamping_bounds_outliers_and_leaves_the_middle(values):
    mean = values.mean(axes(values), keepdim=True)
    limit = 2 * (values - mean).std(axes(values), keepdim=True)
    bent = adjusted(values, Adjustment(clamp=2)) - mean
    around = values - mean
    assert (around.abs() > limit).any() and (bent.abs() <= limit * 1.0001).all()
    middle = around.abs() <= limit / 2
    assert torch.allclose(bent[middle], around[middle], atol=1e-5)
    order = around.flatten().argsort()
    if values.ndim == 4:  # of one channel: what was larger stays larger
        one, other = around[0, 0].flatten(), bent[0, 0].flatten()
        order = one.argsort()
        assert (other[order].diff() >= -1e-6).all()


def test_contrast_scales_around_the_mean(values):
    more = adjusted(values, Adjustment(contrast=1.5))
    assert torch.allclose(more.mean(axes(values)), values.mean(axes(values)), atol=1e-5)
    assert torch.allclose(more.std(axes(values)), 1.5 * values.std(axes(values)), rtol=1e-5)


def test_half_precision_is_adjusted_in_full(values):
    half = values.half()
    assert adjusted(half, Adjustment(centre=1)).dtype == torch.float16
    wide = adjusted(half.float(), Adjustment(centre=1)).half()
    assert torch.equal(adjusted(half, Adjustment(centre=1)), wide)


def test_a_study_shows_what_changes(painter):
    rows = studied(painter, CAT)
    assert [row.name for row in rows] == list(STUDIED) and rows[0].psnr_db == float("inf")
    assert all(10 < row.psnr_db < 60 for row in rows[1:])
    assert rows[3].contrast > rows[0].contrast  # contrast of latents is contrast of the picture
    assert np.allclose(rows[0].colour, rows[0].picture.reshape(-1, 3).mean(0))


def test_an_adjustment_ends_where_it_is_told(painter):
    from dataclasses import replace

    early, late = (painter.paint(replace(CAT, adjustment=Adjustment(centre=1, until=until))) for until in (0.25, 1.0))
    never = painter.paint(replace(CAT, adjustment=Adjustment(centre=1, until=0.1)))  # less than one step of four
    plain = painter.paint(CAT)
    assert np.array_equal(never.picture, plain.picture)
    assert not np.array_equal(early.picture, plain.picture) and not np.array_equal(early.picture, late.picture)
