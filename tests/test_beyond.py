"""What is read of a head beyond its crop."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine import device
from engine.inversion import beyond
from engine.inversion.beyond import HAIR, SKIN
from engine.portrait.align import OUTER, Aligned, align
from engine.portrait.image import Photo
from engine.portrait.matte import Matte

SIZE = 512
POINTS = np.array([[450, 450], [550, 450], [500, 500], [465, 550], [535, 550.0]])


@pytest.fixture(scope="module")
def aligned() -> Aligned:
    y, x = np.mgrid[:1000, :1000]
    rgb = np.stack([128 + 100 * np.sin(x / 30), 128 + 100 * np.cos(y / 40), (x + y) / 8], -1)
    return align(Photo(rgb.astype(np.uint8), None, "waves"), POINTS, SIZE)


def blob(size: int, reach: float, top: float) -> Matte:
    """A round head of hair from `top` down, in pixels of the crop, seen in a square so many crops
    wide; skin below the middle."""
    at = ((np.arange(size) + 0.5) / size - 0.5) * reach * SIZE
    y, x = np.meshgrid(at, at, indexing="ij")
    head = ((x**2 + y**2) < 200**2) | ((abs(x) < 150) & (y < 0) & (y > top - SIZE / 2))
    labels = np.where(head, np.where(y < 0, HAIR, SKIN), 0).astype(np.uint8)
    head = head.astype(np.float32)
    return Matte(head, head, labels, 0 * head)


def test_the_wider_square_has_the_same_middle(aligned):
    outer = aligned.outer
    assert outer.crop.shape == (256, 256, 3) and outer.outer is None
    inner = round(256 / OUTER / 2)
    both = [
        F.interpolate(torch.from_numpy(x).permute(2, 0, 1)[None].float(), (64, 64), mode="area")
        for x in (outer.crop[128 - inner : 128 + inner, 128 - inner : 128 + inner], aligned.crop)
    ]
    assert (both[0] - both[1]).abs().mean() < 3


def test_a_look_beyond_only_where_hair_runs_over(aligned):
    assert beyond.runs_over(aligned, blob(SIZE, 1, -40))
    assert not beyond.runs_over(aligned, blob(SIZE, 1, 60))
    assert not beyond.runs_over(replace(aligned, outer=None), blob(SIZE, 1, -40))
    bald = blob(SIZE, 1, -40)
    bald.labels[bald.labels == HAIR] = SKIN
    assert not beyond.runs_over(aligned, bald)
    nowhere = replace(aligned, valid=np.zeros((SIZE, SIZE), bool))
    assert not beyond.runs_over(nowhere, blob(SIZE, 1, -40))


def test_what_counts_beyond(aligned, monkeypatch):
    """Only pixels outside the crop, above its lower edge; and only if both squares agree."""
    model = SimpleNamespace(space=None, perception=None)
    seen = SimpleNamespace(classes=torch.zeros(1, 5, 128, 128))
    monkeypatch.setattr(beyond, "look_at", lambda *_: seen)
    compute = device.choose("cpu", threads=1)
    wide = {"head": blob(256, OUTER, -40)}
    monkeypatch.setattr(beyond, "matte", lambda *_, **__: wide["head"])
    cut = blob(SIZE, 1, -40)
    assert beyond.beyond(model, aligned, blob(SIZE, 1, 60), compute) is None
    more = beyond.beyond(model, aligned, cut, compute)
    low = round(256 * (1 - 1 / OUTER) / 2)
    assert more.ignore[low : 256 - low, low : 256 - low].all() and more.ignore[256 - low :].all()
    known = ~more.ignore & aligned.outer.valid
    assert known[: low - 1].mean() > 0.5
    assert more.head[known].any() and not more.head[known].all()
    assert (more.labels[known & (more.head > 0.5)] == HAIR).all()
    # Someone else's head.
    other = wide["head"]
    wide["head"] = Matte(1 - other.alpha, other.person, other.labels, other.glasses)
    assert beyond.beyond(model, aligned, cut, compute) is None
