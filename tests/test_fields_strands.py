"""Strands on a head field: where they are, what they look like, and that files keep them."""

from __future__ import annotations

import math

import pytest
import torch

from engine.errors import WeightsError
from engine.fields import strands
from engine.fields.head import HeadField
from engine.fields.io import field_to_bytes, load_field
from engine.fields.strands import Strands, lines
from engine.networks.planes import PlaneDecoder

BOUNDS = torch.tensor([[-0.2] * 3, [0.2] * 3])
RADIUS = 0.08
EVEN = torch.full((5,), 0.05)


def on_head(angle: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Points on a cylinder round the crown's vertical."""
    return torch.stack(
        [RADIUS * angle.sin(), y.expand_as(angle), strands.CROWN - RADIUS * angle.cos()], -1
    )


def patch(across: float, along: float, size: int = 160) -> torch.Tensor:
    """lines() on a patch of the back of the head [size, size], rows down; steps in metres."""
    angle = (torch.arange(size) - size / 2) * across / RADIUS
    y = -(torch.arange(size) - size / 2)[:, None] * along
    points = on_head(angle.expand(size, size), y.expand(size, size)).reshape(-1, 3)
    return lines(points, EVEN).reshape(size, size)


def test_lines_are_as_strong_as_asked():
    generator = torch.Generator().manual_seed(0)
    angle = (torch.rand(12000, generator=generator) * 2 - 1) * math.pi
    points = on_head(angle, torch.rand(12000, generator=generator) * 0.2 - 0.1)
    for strength in (EVEN, torch.tensor([0.1, 0, 0, 0, 0]), torch.tensor([0, 0, 0.2, 0, 0])):
        shade = lines(points, strength)
        assert float(shade.std()) == pytest.approx(float(strength.norm()), rel=0.25)
        assert abs(float(shade.mean())) < 0.15 * float(strength.norm())
    assert torch.equal(lines(points, EVEN), lines(points, EVEN))
    assert not lines(points, torch.zeros(5)).any()


def test_lines_run_down_the_head():
    seen = patch(0.0005, 0.0005)
    across = (seen[:, 4:] - seen[:, :-4]).std()  # 2 mm apart
    along = (seen[4:] - seen[:-4]).std()
    assert float(across) > 2 * float(along)


def test_nothing_breaks_at_the_crown_or_behind_it():
    y = torch.linspace(-0.2, 0.2, 50)
    axis = torch.stack([torch.zeros(50), y, torch.full((50,), strands.CROWN)], 1)
    assert torch.isfinite(lines(axis, EVEN)).all()
    # Once round the head the lines meet themselves.
    angle = torch.tensor([math.pi - 1e-4, 1e-4 - math.pi])
    left, right = lines(on_head(angle, torch.tensor(0.0)), EVEN)
    assert abs(float(left - right)) < 0.02


def behind(bounds: torch.Tensor) -> Strands:
    """Strands on the back half."""
    amount = torch.zeros(1, 9, 9, 9)
    amount[:, :4] = 1
    return Strands(amount, EVEN, torch.tensor([1.0, 0.9, 0.8]))


def test_colours_change_where_the_amount_says_and_keep_their_mean():
    made = behind(BOUNDS)
    points = torch.rand(6000, 3, generator=torch.Generator().manual_seed(1)) * 0.3 - 0.15
    factor = made.factor(points, BOUNDS)
    front = points[:, 2] > 0.001
    assert (factor[front] == 1).all()
    hair = points[:, 2] < -0.06
    assert float(factor[hair].std()) > 0.05
    assert float(factor[hair].mean()) == pytest.approx(1, abs=0.03)
    spread = factor[hair].log().std(0)
    assert torch.allclose(spread / spread[0], torch.tensor([1.0, 0.9, 0.8]), atol=0.01)


@pytest.fixture
def field() -> HeadField:
    torch.manual_seed(0)
    nodes = torch.linspace(-0.2, 0.2, 24)
    z, y, x = torch.meshgrid(nodes, nodes, nodes, indexing="ij")
    ball = (x * x + y * y + z * z).sqrt() - 0.1
    decoder = PlaneDecoder(4, 8).requires_grad_(False)
    return HeadField(ball, torch.zeros(3, 4, 4, 4), torch.zeros(4, 4, 8, 8), decoder, BOUNDS)


def test_a_field_shows_its_strands_and_its_file_keeps_them(field):
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(2)) * 0.2 - 0.1
    plain = field.color(points)
    assert load_field(field_to_bytes(field)).strands is None
    field.strands = behind(BOUNDS)
    shown = field.color(points)
    front = points[:, 2] > 0.001
    assert torch.equal(shown[front], plain[front])
    assert float((shown - plain)[~front].abs().max()) > 0.02
    again = load_field(field_to_bytes(field))
    assert torch.allclose(again.color(points), shown, atol=2e-3)


def test_parts_that_do_not_fit_are_refused(field):
    with pytest.raises(ValueError, match="shapes"):
        Strands(torch.zeros(1, 4, 4, 4), EVEN[:3], torch.ones(3))

    class Lacking(Strands):
        def tensors(self):
            return {k: v for k, v in super().tensors().items() if not k.endswith("tint")}

    whole = behind(BOUNDS)
    field.strands = Lacking(whole.amount, whole.strength, whole.tint)
    with pytest.raises(WeightsError, match="fit"):
        load_field(field_to_bytes(field))
