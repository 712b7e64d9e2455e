"""What the book of faces is made with, and what its sharpness is measured with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from engine.fields.skin import COLUMNS, ROWS
from engine.systems.head.prior import load_prior
from engine.training import build_prior, prior_faces, sharpness


@pytest.fixture(scope="module")
def book():
    return load_prior().faces


def test_blue_goes_but_from_eyes(book):
    skin = torch.tensor([-0.8, -1.1, -1.4])[:, None, None].expand(3, ROWS, COLUMNS).clone()
    regions = book.regions
    same = prior_faces.tidied(skin, regions)
    assert torch.allclose(same, skin, atol=0.04)  # but for lips that are a little red
    blue = skin.clone()
    blue[2] += 0.6
    blue = torch.where(regions.plain > 0.5, skin, blue)
    made = prior_faces.tidied(blue, regions)
    hue = (made[2] - made.mean(0)) - (skin[2] - skin.mean(0))
    assert float(hue[regions.lips > 0.9].max()) < 0.05
    assert float(hue[(regions.eyes > 0.99) & (regions.plain < 0.01)].median()) > 0.3
    lighter = (made - blue).mean(0)[regions.temples < 0.01]
    assert float(lighter.abs().max()) < 0.02


def test_hairlines_at_the_temples_go(book):
    regions = book.regions
    log = torch.full((3, ROWS, COLUMNS), -0.6)
    dark = log - 0.5 * regions.temples
    left = (prior_faces.tidied(dark, regions) - log).abs()[:, regions.temples > 0.9]
    assert float(left.max()) < 0.2  # of 0.5


def test_identity_tells_sex_and_years():
    rng = np.random.default_rng(0)
    identity = rng.normal(size=(400, 64))
    male, years = identity[:, 0] > 0, 40 + 9 * identity[:, 1]
    known = prior_faces.follow(identity, male, years)
    said = np.concatenate([np.ones((400, 1)), identity], 1) @ known
    assert np.corrcoef(said[:, 0], male)[0, 1] > 0.7
    assert np.abs(said[:, 1] - years).mean() < 1.5


def test_new_heads_are_friendly():
    data = {"expression": np.array([[1.0, 0], [0, 2], [0, 0]], np.float32), "male": np.zeros(3)}
    persons = [{"expression_name": name} for name in ("smile", "angry", "neutral")]
    some = build_prior.SMILE
    made = build_prior.friendly(data, persons)["expression"]
    assert np.allclose(made, [[1 + some, 0], [some, 0], [some, 0]])
    alone = build_prior.friendly({"expression": np.ones((1, 2))}, [{"expression_name": "neutral"}])
    assert np.allclose(alone["expression"], 1)


def test_blur_is_less_sharp():
    rng = np.random.default_rng(1)
    picture = rng.random((64, 64, 3)) * 0.5 + 0.2
    marks = 12 + 40 * rng.random((68, 2))
    figures = [
        sharpness.sharpness(ndimage.gaussian_filter(picture, (s, s, 0)), marks) for s in (0, 1, 2)
    ]
    assert figures[0] > 2 * figures[1] > 4 * figures[2] > 0
    darker = sharpness.sharpness(picture * 0.7, marks)
    assert abs(darker / figures[0] - 1) < 0.2
