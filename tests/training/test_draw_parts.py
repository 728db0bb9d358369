"""Canvas, curves, projection and noise."""

import math

import numpy as np
import pytest

from training.draw_camera import photograph
from training.draw_canvas import Canvas
from training.draw_noise import FUR_PIXELS, clouds, fur_sheet
from training.draw_pose import Projection, ellipse, mirror, smooth, taper

SQUARE = np.array([[8, 8], [24, 8], [24, 24], [8, 24]])


def test_a_filled_square_has_its_area_and_colour():
    canvas = Canvas(32)
    canvas.fill(SQUARE, (1.0, 0.5, 0.0))
    pixels = canvas.finish()
    assert pixels[..., 3].sum() / 255 == pytest.approx(256, abs=1)
    assert pixels[16, 16].tolist() == [255, 128, 0, 255]
    assert pixels[2, 2].tolist() == [0, 0, 0, 0]


def test_colours_are_premultiplied_by_alpha():
    canvas = Canvas(32)
    canvas.fill(SQUARE, (1.0, 1.0, 1.0), 0.5)
    assert canvas.finish()[16, 16] == pytest.approx([128] * 4, abs=1)


def test_edges_are_anti_aliased():
    canvas = Canvas(64)
    canvas.fill(ellipse(32, 32, 20, 20), (1, 1, 1))
    alpha = canvas.finish()[..., 3]
    area = 28 / 2 * math.sin(2 * math.pi / 28) * 400  # of the polygon with 28 corners
    assert alpha.sum() / 255 == pytest.approx(area, rel=0.01)
    assert ((alpha > 0) & (alpha < 255)).sum() > 60


def test_a_clip_keeps_paint_inside():
    canvas = Canvas(32)
    canvas.fill(SQUARE, (1, 1, 1), clip=np.array([[0, 0], [16, 0], [16, 32], [0, 32]]))
    pixels = canvas.finish()
    assert pixels[16, 12, 3] == 255 and pixels[16, 20, 3] == 0


def test_a_stroke_is_as_wide_as_asked():
    canvas = Canvas(64)
    canvas.stroke(np.array([[8, 32], [56, 32]]), (1, 0, 0), 10)
    assert canvas.finish()[:, 32, 3].sum() / 255 == pytest.approx(10, abs=0.2)


def test_a_smooth_curve_goes_through_its_points():
    points = np.array([(0, 0), (1, 2), (3, 1), (4, 4)], dtype=float)
    for closed in (True, False):
        curve = smooth(points, closed, 5)
        assert all(np.abs(curve - point).sum(1).min() < 1e-9 for point in points)
    assert len(smooth(points, True, 5)) == 20 and len(smooth(points, False, 5)) == 16


def test_mirror_makes_a_symmetric_outline():
    outline = mirror([(0, -1), (1, 0), (0, 1)])
    assert sorted(map(tuple, outline)) == [(-1, 0), (0, -1), (0, 1), (1, 0)]


def test_taper_is_widest_in_the_middle():
    spine = np.stack([np.linspace(0, 10, 11), np.zeros(11)], 1)
    band = taper(spine, 2.0)
    widths = band[:11, 1] - band[:10:-1, 1]
    assert widths[5] == pytest.approx(2.0) and abs(widths[0]) < 1e-9 and abs(widths[-1]) < 1e-9


def test_a_straight_look_projects_to_scale_and_shift():
    project = Projection((50, 60), 10, 0.0, 0.0, 0.0)
    assert project(np.array([(1, 2)])).tolist() == [[60, 80]]
    assert project.face_map(0.0).tolist() == [[10, 0, 50], [0, 10, 60]]


def test_turning_the_head_moves_near_things_most():
    project = Projection((0, 0), 1, 0.3, 0.0, 0.0)
    nose, forehead = project(np.array([(0.0, 0.0)] * 2), np.array([1.0, 0.5]))
    assert nose[0] > forehead[0] > 0


def test_stretch_lengthens_below_the_eyes_only():
    plain, long = (Projection((0, 0), 1, 0, 0, 0, stretch) for stretch in (0.0, 0.25))
    points = np.array([(0.3, -0.4), (0.0, 0.8)])
    assert (long(points)[0] == plain(points)[0]).all() and long(points)[1, 1] == pytest.approx(1.0)


def test_clouds_are_centred_and_repeatable():
    first, again = (clouds(np.random.default_rng(3), 64, 6) for _ in range(2))
    assert (first == again).all() and abs(first.mean()) < 0.6 and 0.4 < first.std() < 1.6


def test_fur_is_smeared_along_its_direction_and_made_once():
    sheet = fur_sheet(7)
    assert sheet is fur_sheet(1)
    assert sheet.shape == (FUR_PIXELS, FUR_PIXELS, 4)
    # Straight above the nose hair grows upwards: neighbours along it are more alike than across it.
    strip = sheet[60:200, 280:360, 0]
    along, across = np.abs(np.diff(strip, axis=0)).mean(), np.abs(np.diff(strip, axis=1)).mean()
    assert along < 0.75 * across


def test_a_photograph_keeps_the_scene():
    picture = np.full((64, 64, 3), 0.5, dtype=np.float32)
    for seed in range(12):
        photo = photograph(np.random.default_rng(seed), picture)
        assert photo.shape == (64, 64, 3) and photo.dtype == np.uint8
        assert 90 < photo[24:40, 24:40].mean() < 165
