"""The built-in head model as a sampler: its prior makes codes, generator and head space heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.cameras import Camera, orbit
from engine.checkpoints.default import load_default
from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.inversion.appearance import surface_points
from engine.inversion.shape import RESIDUAL, Shape, bake, learned_lattice, skin_and_hair
from engine.sampling.base import Picture, Sampler
from engine.sampling.harmony import harmonise
from engine.systems.head.prior import HeadPrior, Parts, load_prior
from engine.systems.head.strands import add_strands

FOV = math.radians(18)
EXTENT = 0.385  # metres that fit the picture at the pivot
PIVOT = (0.0, -0.008, 0.0)
DRAWS, CLEAR = 20, 0.97  # a seed's numbers are drawn again while they lie between two hair styles
GRID, SMALL_GRID = 176, 112  # nodes along the box: a head's own, a small picture's
THIN = 0.003  # metres: thinner hair is skin with a shadow on it
LEAST = 0.08  # of the surface: less hair than this is stubble
SURFACE = 6000  # points at which colours are brought to agree
SMALL = 200  # pixels a side up to which a picture makes do with SMALL_GRID


class BuiltInSampler(Sampler):
    """The head model that comes with Triplane. It has no conditioning on cameras."""

    name = "built-in"
    picture_size = 512

    def __init__(self, prior: HeadPrior | None = None) -> None:
        """prior: another than the shipped one. Raises WeightsError where the weights cannot be
        read."""
        self.model, self.prior = load_default(), prior or load_prior()
        self.rows, self.sha256 = self.prior.rows, self.prior.sha256

    def z(self, seed: int) -> Tensor:
        rng = np.random.RandomState(seed)
        for _ in range(DRAWS):
            z = torch.from_numpy(rng.standard_normal(self.prior.z_dim)).float()
            if float(self.prior.classes(z, 0.7).max()) > CLEAR:
                break
        return z

    def map(
        self,
        z: Tensor,
        psi: float = 0.7,
        cutoff: int = -1,
        yaw: float = 0.0,
        pitch: float = 0.0,
    ) -> Tensor:
        code = self.prior.map(z, psi)
        if 0 <= cutoff < len(code):
            code[cutoff:] = self.prior.map(z, 1.0)[cutoff:]
        return code

    def field(self, code: Tensor) -> HeadField:
        return self._field(code, GRID)

    @torch.no_grad()
    def _field(
        self, code: Tensor, grid: int, check: Callable[[], None] = lambda: None
    ) -> HeadField:
        """The head's field with its distance on grid^3 nodes."""
        model, parts = self.model, self.prior.unpack(code.float())
        planes = model.generator.planes(parts.ws[None])
        check()
        shape = _shape(parts)
        learned = learned_lattice(
            model.space, shape, lambda points: model.generator(planes, points[None])[1][0]
        )
        distance, warp = bake(model.space, shape, learned, grid, check)
        distance = _in_one_piece(distance)
        decoder, bounds = model.generator.decoder, model.space.bounds
        info = {"model": model.config.get("name", ""), "version": model.config.get("version")}
        field = HeadField(distance, warp, planes[0], decoder, bounds, info)
        points = surface_points(field, SURFACE)
        mass = model.space.hair(parts.hair)
        skin, hair = skin_and_hair(model.space, points, mass, shape.residual, learned)
        cover = torch.sigmoid((skin - hair - THIN) / (THIN / 4))
        if (cover > 0.9).float().mean() < LEAST:
            cover = torch.zeros_like(cover)
        planes = harmonise(model.generator, planes, points, cover, check)
        planes = self.prior.detail.add(planes[0], parts.ws, model.space, mass)
        field.planes = add_strands(planes, decoder, points[cover > 0.9], model.space, mass)
        return field

    def camera(self, yaw: float, pitch: float, size: int = 0) -> Camera:
        size = size or self.picture_size
        radius = 0.5 * EXTENT / math.tan(FOV / 2)
        return orbit(math.radians(yaw), math.radians(pitch), radius, FOV, PIVOT, size, size)

    def picture(
        self,
        code: Tensor,
        camera: Camera,
        check: Callable[[], None] = lambda: None,
        field: Field | None = None,
    ) -> Picture:
        if field is None:
            grid = SMALL_GRID if max(camera.width, camera.height) <= SMALL else GRID
            field = self._field(code, grid, check)
        seen = field.render(camera, check)
        alpha = seen.alpha[..., None]
        straight = torch.where(alpha > 1e-4, seen.image / alpha.clamp_min(1e-4), torch.zeros(()))
        rgba = (torch.cat([straight, alpha], -1).clamp(0, 1) * 255 + 0.5).byte().cpu().numpy()
        return Picture(np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3]))


def _in_one_piece(distance: Tensor) -> Tensor:
    """The distance [R, R, R] without what floats beside the head (metres): between two hair styles
    a lock's end can come off."""
    pieces, count = ndimage.label((distance < 0).numpy())
    if count < 2:
        return distance
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    head = pieces == sizes.argmax()
    # With a margin: distances under half a millimetre would still show as a wisp.
    loose = ndimage.binary_dilation((pieces > 0) & ~head, iterations=2) & ~head
    return torch.where(torch.from_numpy(loose), distance.abs().clamp_min(0.005), distance)


def _shape(parts: Parts) -> Shape:
    """The head space's shape of a head's parts: no residual, no camera."""
    return Shape(
        identity=parts.identity.clamp(-3, 3),
        expression=parts.expression.clamp(-3, 3),
        hair=parts.hair,
        offset=torch.zeros(()),
        residual=torch.zeros(1, RESIDUAL, RESIDUAL, RESIDUAL),
        pose=torch.zeros(6),
    )
