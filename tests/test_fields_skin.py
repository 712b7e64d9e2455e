"""The fine skin over a head field's colours."""

from __future__ import annotations

import pytest
import torch

from engine.fields.head import HeadField
from engine.fields.io import field_to_bytes, load_field
from engine.fields.skin import COLUMNS, ROWS, Skin, directions, unwrap
from engine.networks.planes import PlaneDecoder
from engine.systems.head.faces import places

BOUNDS = torch.tensor([[-0.2, -0.2, -0.2], [0.2, 0.2, 0.2]])
RADIUS = torch.full((1, ROWS, COLUMNS), 0.09)


def field(skin: Skin | None) -> HeadField:
    ball = torch.ones(8, 8, 8)
    decoder = PlaneDecoder(4, 8).requires_grad_(False)
    zeros = torch.zeros(3, 4, 4, 4), torch.zeros(4, 4, 8, 8)
    return HeadField(ball, *zeros, decoder, BOUNDS, skin=skin)


def test_texels_are_where_they_say():
    points = places(RADIUS)
    place, radius = unwrap(points.reshape(-1, 3))
    rows, columns = (((torch.arange(n) + 0.5) / n * 2 - 1) for n in (ROWS, COLUMNS))
    wanted = torch.stack(torch.broadcast_tensors(columns[None], rows[:, None]), -1)
    assert torch.allclose(place.reshape(ROWS, COLUMNS, 2), wanted, atol=1e-4)
    assert torch.allclose(radius, torch.tensor(0.09), atol=1e-5)
    around, _ = directions()
    widths = (around[1:] - around[:-1]).norm(dim=1)
    middle = COLUMNS // 2
    assert widths[middle] * 0.09 < 0.0009 < 0.5 * widths[0] * 0.09 + 0.0009  # finest in front


def test_colours_are_multiplied_on_the_skin_only():
    shade = torch.zeros(3, ROWS, COLUMNS)
    shade[0] = 0.5
    skin = Skin(shade, RADIUS)
    on = places(RADIUS)[ROWS // 2, COLUMNS // 2][None]
    axis = torch.tensor([[0.0, float(on[0, 1]), -0.015]])
    above, behind = axis + (on - axis) * 1.15, axis - (on - axis)
    factor = skin.factor(torch.cat([on, above, behind]))
    assert torch.allclose(factor[0], torch.tensor([0.5, 0, 0]).exp(), atol=1e-3)
    assert torch.allclose(factor[1:], torch.ones(2, 3))


def test_files_keep_it_and_old_ones_open():
    shade = torch.randn(3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) * 0.2
    made = field(Skin(shade, RADIUS))
    back = load_field(field_to_bytes(made))
    points = places(RADIUS).reshape(-1, 3)[::97]
    assert torch.allclose(back.color(points), made.color(points), atol=2e-3)
    assert not torch.allclose(back.color(points), field(None).color(points), atol=2e-2)
    assert load_field(field_to_bytes(field(None))).skin is None


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        Skin(torch.zeros(3, 4, 4), RADIUS)
    with pytest.raises(ValueError, match="missing"):
        Skin.from_saved({"skin.shade": torch.zeros(3, ROWS, COLUMNS)})
