"""Views of planes that gradients flow through: for the optimisation, small and plain.

`Field.render` and the generator's own pictures are made for speed without gradients. What an
optimisation needs is less: only colours that are seen (three of the decoder's 32), planes over the
same two coordinates added up beforehand (EG3D has (x, z) twice, so two look-ups do for three), and
fewer samples a ray.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import device as devices
from engine.fields.folded import aligned_pairs, merged_planes
from engine.fields.triplane import Decoder, TriplaneSettings, plane_projection, sample_planes
from engine.render.rays import pixel_rays
from engine.render.volume import render_rays

SEEN = 4  # rows of the decoder's second layer: density and the three colours that are shown


class PlaneView:
    """The planes [3, C, R, R] of one head with a decoder, to be looked at with gradients to the
    planes, the decoder and the camera."""

    def __init__(self, planes: Tensor, decoder: Decoder, settings: TriplaneSettings) -> None:
        self.settings = settings
        self.decoder = Decoder(
            decoder.weight0, decoder.bias0, decoder.weight1[:SEEN], decoder.bias1[:SEEN]
        )
        self._planes = planes
        self._projection = plane_projection(settings.plane_axes, settings.box, planes)
        pairs = aligned_pairs(self._projection, settings.box)
        square = planes.shape[2] == planes.shape[3]
        self._merged = merged_planes(planes, pairs) if pairs and square else None

    def look(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points [N, 3] -> raw density [N] and the decoder's hidden layer [N, hidden]."""
        with devices.full_precision(points):
            activated = F.softplus(self.decoder.hidden(self._features(points)))
            return self.decoder.density(activated), activated

    def colours(self, state: Tensor) -> Tensor:
        """States [N, hidden] -> colours [N, 3]."""
        return self.decoder.colours(state)

    def _features(self, points: Tensor) -> Tensor:
        if self._merged is None:
            return sample_planes(self._planes, points, self._projection).mean(0).T
        unit = points * (2 / self.settings.box)
        grid = torch.stack([unit[:, list(pair)] for pair in self._merged])[:, None]
        planes = torch.stack(list(self._merged.values()))
        got = F.grid_sample(planes, grid, "bilinear", "zeros", align_corners=False)
        return got[:, :, 0].sum(0).T / 3


def view(
    head: PlaneView, cam2world: Tensor, intrinsics: Tensor, size: int, samples: int
) -> tuple[Tensor, Tensor]:
    """What a pinhole sees: image [3, size, size] in 0..1 before the model's own background, and
    opacity [size, size]. cam2world: [4, 4]; intrinsics: [3, 3], normalised; samples: of each of the
    two passes along a ray, at most the model's own."""
    settings = head.settings
    rays = settings.rays
    few = replace(rays, coarse=min(samples, rays.coarse), fine=min(samples, rays.fine))
    origin, directions = pixel_rays(cam2world, intrinsics, size, size)
    index = torch.arange(len(directions), device=directions.device)
    out = render_rays(head, origin, directions, few, ray_indices=index)
    image = out.features
    if settings.white_background:
        image = image + (1 - out.opacity[:, None])
    return image.T.reshape(3, size, size), out.opacity.view(size, size)
