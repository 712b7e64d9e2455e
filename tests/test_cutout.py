"""Objects cut out of pictures: by alpha, by a mask, by their colours; and set in their square."""

from __future__ import annotations

import numpy as np
import object_fixtures as things
import pytest
from scipy import ndimage

from engine.cutout.cutout import Cutout, cut_out, read_mask
from engine.cutout.find import find_object
from engine.cutout.square import recentre
from engine.errors import Cancelled, PhotoError
from engine.portrait.image import load_photo


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def cut(folder, picture, mask=""):
    return cut_out(load_photo(things.save(folder, "picture", picture)), mask)


def test_a_thing_before_an_unevenly_lit_wall_with_its_shadow(tmp_path):
    picture, inside = things.photo("wall")
    found = cut(tmp_path, picture)
    assert found.source == "found" and not found.warnings
    assert iou(found.alpha > 0.5, inside) > 0.97
    middle = np.s_[125:145, 200:215]  # through the handle one sees the wall
    assert not inside[middle].all() and found.alpha[middle][~inside[middle]].mean() < 0.3
    rim = (found.alpha > 0.2) & (found.alpha < 0.8)
    wall = picture[5, 5].astype(float)
    before, after = (np.abs(p[rim] - wall).mean() for p in (picture * 1.0, found.rgb * 1.0))
    assert after > before  # the wall's light is out of the edge


def test_alpha_is_taken_as_it_is(tmp_path):
    picture, inside = things.photo("transparent")
    found = cut(tmp_path, picture)
    assert found.source == "alpha"
    assert np.array_equal(found.alpha, picture[..., 3].astype(np.float32) / 255)
    assert np.array_equal(found.rgb[inside], picture[inside][:, :3])


def test_a_mask_rules_over_all_else(tmp_path):
    picture, inside = things.photo("clutter")
    with pytest.raises(PhotoError, match="background|Two things"):
        cut(tmp_path, picture)
    found = cut(tmp_path, picture, things.save(tmp_path, "mask", inside))
    assert found.source == "mask" and iou(found.alpha > 0.5, inside) == 1
    transparent, _ = things.photo("transparent")
    other = np.zeros_like(inside)
    other[60:200, 40:200] = True
    found = cut(tmp_path, transparent, things.save(tmp_path, "other", other))
    assert np.array_equal(found.alpha > 0.5, other)


def test_masks_are_read_by_alpha_or_brightness_and_resized(tmp_path):
    mask = np.zeros((130, 160, 4), np.uint8)
    mask[40:90, 50:110, 3] = 255  # black paint on nothing
    alpha = read_mask(things.save(tmp_path, "painted", mask), 320, 260)
    assert alpha.shape == (260, 320) and alpha[130, 160] == 1 and alpha[20, 20] == 0
    with pytest.raises(PhotoError, match=r"another shape \(160 x 130 pixels\)"):
        read_mask(things.save(tmp_path, "painted", mask), 260, 320)
    picture, _ = things.photo("wall")
    with pytest.raises(PhotoError, match="mask is empty"):
        cut(tmp_path, picture, things.save(tmp_path, "black", np.zeros((260, 320, 3), np.uint8)))
    with pytest.raises(PhotoError, match="covers the whole"):
        cut(tmp_path, picture, things.save(tmp_path, "white", np.ones((260, 320), bool)))
    with pytest.raises(PhotoError, match="does not exist"):
        cut(tmp_path, picture, str(tmp_path / "none.png"))


def two_of_them():
    left, inside = things.photo("wall", 400, 260, at=(0.25, 0.5), size=0.5)
    right, other = things.photo("wall", 400, 260, at=(0.75, 0.5), size=0.5)
    return np.where(other[..., None], right, left)


def nothing():
    return np.clip(np.random.default_rng(0).normal(150, 4, (200, 240, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (two_of_them(), "Two things stand out"),
        (nothing(), "Nothing in the photo stands out|cannot be told"),
        (np.full((200, 200, 3), 128, np.uint8), "Nothing in the photo stands out|cannot be told"),
        (np.zeros((200, 200, 4), np.uint8), "transparent all over"),
    ],
    ids=["two", "noise", "plain", "transparent"],
)
def test_what_cannot_be_cut_out_is_said(tmp_path, picture, sentence):
    with pytest.raises(PhotoError, match=sentence) as error:
        cut(tmp_path, picture)
    assert error.value.remedy


def test_a_thing_that_reaches_beyond_the_photo_is_warned_of(tmp_path):
    picture, inside = things.photo("wall", at=(0.5, 0.85), size=0.6)
    found = cut(tmp_path, picture)
    assert iou(found.alpha > 0.5, inside) > 0.93
    assert any("beyond the photo (bottom)" in w for w in found.warnings)


def test_a_thing_of_a_few_pixels_is_refused(tmp_path):
    picture = np.zeros((200, 200, 4), np.uint8)
    picture[90:110, 90:105] = 255
    with pytest.raises(PhotoError, match="only 15 x 20 pixels"):
        cut(tmp_path, picture)


def test_cancelled_between_steps():
    def check():
        raise Cancelled()

    with pytest.raises(Cancelled):
        find_object(things.photo("wall")[0], check)


def test_the_square_is_as_triposrs_script_makes_it():
    """Composited at grey 0.5 and truncated; the longer side is 0.85 of the square's."""
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (60, 90, 3), np.uint8)
    alpha = np.zeros((60, 90), np.float32)
    alpha[10:44, 20:71] = 1
    alpha[10:44, 20] = 0.4
    square = recentre(Cutout(rgb, alpha, "alpha"), 0.85, 0.5)
    side = len(square.rgb)
    assert side == int(51 / 0.85) and square.rgb.shape == (side, side, 3)
    expected = rgb / 255 * alpha[..., None] + 0.5 * (1 - alpha[..., None])
    expected = (expected * 255).astype(np.uint8)
    x, y = (side - 51) // 2, (side - 34) // 2
    inside = square.rgb[y : y + 34, x : x + 51].astype(int)
    assert np.abs(inside - expected[10:44, 20:71]).max() <= 1
    assert (inside == expected[10:44, 20:71]).mean() > 0.99
    assert (square.rgb[0, 0] == 127).all()
    assert square.to_square @ [20, 10, 1] == pytest.approx([x, y, 1])


def test_large_squares_are_scaled_down_and_tell_where_they_come_from():
    picture, inside = things.photo("wall", 1600, 1300)
    square = recentre(Cutout(picture, inside.astype(np.float32), "mask"), 0.8, 1.0, 256)
    assert square.rgb.shape == (256, 256, 3) and (square.rgb[0, 0] == 255).all()
    v, u = ndimage.center_of_mass(inside)
    there = square.to_square @ [u + 0.5, v + 0.5, 1]
    row, column = ndimage.center_of_mass(square.alpha)
    assert there[:2] == pytest.approx([column + 0.5, row + 0.5], abs=0.5)
