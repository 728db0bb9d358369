"""The generator: repeatable, the same scene at each size, varied, and a dog that keeps what the cat shows."""

import subprocess
import sys

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.files import sha256_text
from runtime.metrics import psnr
from training.draw import pair
from training.draw_cat import draw_cat, head_projection
from training.draw_dog import draw_dog
from training.draw_scene import BACKGROUNDS, COATS, sample


def _scene(seed):
    return sample(np.random.default_rng(seed))


def test_a_pair_is_two_uint8_pictures():
    for picture in pair(0, 64):
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert picture.std() > 20


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    code = "import sys; from training.draw import pair; sys.stdout.write(pair(11, 64)[0].tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    pair(5, 64)  # what was drawn before must not matter
    assert sha256_text(pair(11, 64)[0].tobytes().hex()) == sha256_text(other)


def test_other_seeds_give_other_pictures():
    dogs = [pair(seed, 64)[1] for seed in range(6)]
    for i in range(6):
        for j in range(i):
            assert psnr(dogs[i], dogs[j]) < 22


def test_a_seed_shows_the_same_scene_at_each_size():
    for seed in range(4):
        small, large = pair(seed, 64)[1], pair(seed, 128)[1]
        halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3)).round().astype(np.uint8)
        assert psnr(small, halved) > 30


def test_every_coat_and_background_occurs():
    scenes = [_scene(seed) for seed in range(300)]
    assert {scene.coat.kind for scene in scenes} == set(COATS)
    assert {scene.background.kind for scene in scenes} == set(BACKGROUNDS)
    assert min(scene.pose.scale for scene in scenes) < 0.25 < 0.55 < max(scene.pose.scale for scene in scenes)


@pytest.mark.parametrize("seed", range(8))
def test_every_background_is_drawn_for_both(seed):
    from dataclasses import replace

    from training.draw_background import draw_background

    background = replace(_scene(seed).background, kind=BACKGROUNDS[seed])
    photo, clean = draw_background(background, 64)
    assert photo.shape == clean.shape == (64, 64, 3)
    # The dog's is a smoother version of the cat's, so the colours agree and the fine structure is gone.
    assert np.abs(photo.mean((0, 1)) * 0.93 + 0.07 - clean.mean((0, 1))).max() < 0.08
    assert np.abs(np.diff(clean, axis=0)).mean() < np.abs(np.diff(photo, axis=0)).mean() + 0.004


def test_the_dog_has_a_dark_nose_where_the_head_points():
    size = 256
    for seed in range(12):
        scene = _scene(seed)
        x, y = head_projection(scene, size)(np.array([(0.0, 0.26)]), 1.25)[0].round().astype(int)
        if 4 <= x < size - 4 and 4 <= y < size - 4:
            patch = draw_dog(scene, size)[y - 2 : y + 3, x - 2 : x + 3]
            assert patch[..., 3].min() == 255
            assert patch[..., :3].mean() < 90


def test_the_dog_wears_the_cats_colour():
    size, differences = 128, []
    for seed in range(12):
        scene = _scene(seed)
        if scene.coat.kind != "solid":
            continue
        fur = draw_cat(scene, size)[0]
        dog = draw_dog(scene, size)
        both = (fur[..., 3] > 0.99) & (dog[..., 3] == 255)
        cat_colour, dog_colour = np.median(fur[both][:, :3], 0), np.median(dog[both][:, :3], 0) / 255
        differences.append(np.abs(cat_colour - dog_colour).max())
    assert differences and max(differences) < 0.3


def test_animals_hide_the_background_within_their_outline():
    fur, features = draw_cat(_scene(1), 128)
    assert fur.dtype == np.float32 and features.dtype == np.uint8
    assert fur[..., 3].min() < 0.01 and fur[..., 3].max() > 0.99
    assert 0.05 < (fur[..., 3] > 0.5).mean() < 0.98


def test_sizes_and_seeds_that_cannot_be_drawn_are_refused():
    with pytest.raises(InputError, match=r"^size 30 cannot be drawn: expected an even number from 32 to 1024"):
        pair(0, 30)
    with pytest.raises(InputError, match=r"^size 65 cannot be drawn"):
        pair(0, 65)
    with pytest.raises(InputError, match=r"^seed -1 is negative: expected 0 or more$"):
        pair(-1, 64)
