"""The built-in head model as a sampler: its prior makes shapes, its mapping network their w+ (the
prior, too, where there is no mapping), generator and head space make heads of both."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.cameras import Camera, orbit
from engine.checkpoints.default import DefaultModel, load_default
from engine.fields.base import Field
from engine.fields.head import HeadField
from engine.inversion.appearance import surface_points
from engine.inversion.shape import RESIDUAL, Shape, bake, learned_lattice, skin_and_hair
from engine.sampling.base import Picture, Sampler
from engine.sampling.harmony import harmonise
from engine.systems.head.mapping import shape_vector
from engine.systems.head.prior import HeadPrior, Parts, load_prior
from engine.systems.head.strands import add_strands

FOV = math.radians(18)
EXTENT = 0.385  # metres that fit the picture at the pivot
PIVOT = (0.0, -0.008, 0.0)
DRAWS, CLEAR = 20, 0.97  # a seed's numbers are drawn again while they lie between two hair styles
EXPRESSION = 20.0  # coefficients at most: directions of expressions have large ones, seeds 1.3
GRID, SMALL_GRID = 176, 112  # nodes along the box: a head's own, a small picture's
THIN = 0.003  # metres: thinner hair is skin with a shadow on it
LEAST = 0.08  # of the surface: less hair than this is stubble
SURFACE = 6000  # points at which colours are brought to agree
SMALL = 200  # pixels a side up to which a picture makes do with SMALL_GRID


class BuiltInSampler(Sampler):
    """The head model that comes with Triplane. It has no conditioning on cameras."""

    name = "built-in"
    picture_size = 512

    def __init__(self, prior: HeadPrior | None = None, model: DefaultModel | None = None) -> None:
        """prior, model: others than the shipped ones. Raises WeightsError where the weights cannot
        be read."""
        self.model, self.prior = model or load_default(), prior or load_prior()
        self.rows = self.prior.rows
        both = self.prior.sha256 + self.model.sha256
        self.sha256 = hashlib.sha256(both.encode()).hexdigest()

    def z(self, seed: int) -> Tensor:
        rng = np.random.RandomState(seed)
        for _ in range(DRAWS):
            z = torch.from_numpy(rng.standard_normal(self.prior.z_dim)).float()
            if float(self.prior.classes(z, 0.7).max()) > CLEAR:
                break
        if self.model.mapping is None:
            return z
        # The shape's numbers stay what they are without a mapping; w+ has its own after them.
        more = rng.standard_normal(self.model.mapping.z_dim)
        return torch.cat([z, torch.from_numpy(more).float()])

    def map(
        self,
        z: Tensor,
        psi: float = 0.7,
        cutoff: int = -1,
        yaw: float = 0.0,
        pitch: float = 0.0,
    ) -> Tensor:
        code = self._map(z, psi)
        if 0 <= cutoff < len(code):
            code[cutoff:] = self._map(z, 1.0)[cutoff:]
        return code

    @torch.no_grad()
    def _map(self, z: Tensor, psi: float) -> Tensor:
        mapping = self.model.mapping
        if mapping is None:
            return self.prior.map(z, psi)
        z, more = z.split([self.prior.z_dim, mapping.z_dim])
        code, none, full = (self.prior.unpack(self.prior.map(z, p)) for p in (psi, 0.0, 1.0))
        # The mapping knows whole heads, not truncated ones: w+ is that of the full shape, drawn to
        # the average of that shape, and as the hair style gives way to that of the average head.
        shape, rest = (shape_vector(p.identity, p.expression, p.hair)[None] for p in (full, none))
        ws = mapping.average(shape).lerp(mapping(more[None], shape)[0], psi)
        least, kept = (float(torch.minimum(p.hair, full.hair).sum()) for p in (none, code))
        share = (kept - least) / max(1 - least, 1e-6)
        return self.prior.pack(replace(code, ws=mapping.average(rest).lerp(ws, share)))

    def field(self, code: Tensor) -> HeadField:
        return self._field(code, GRID)

    @torch.no_grad()
    def _field(
        self, code: Tensor, grid: int, check: Callable[[], None] = lambda: None
    ) -> HeadField:
        """The head's field with its distance on grid^3 nodes."""
        model, parts = self.model, self.prior.unpack(code.float())
        planes = model.generator.planes(parts.ws[None], parts.hair[None])
        check()
        shape = _shape(parts)
        learned = learned_lattice(
            model.space, shape, lambda points: model.generator(planes, points[None])[1][0]
        )
        distance, warp = bake(model.space, shape, learned, grid, check)
        distance = _in_one_piece(distance)
        decoder, bounds = model.generator.decoder, model.space.bounds
        info = {"model": model.config.get("name", ""), "version": model.config.get("version")}
        info["coefficients"] = shape.coefficients()
        field = HeadField(distance, warp, planes[0], decoder, bounds, info)
        points = surface_points(field, SURFACE)
        mass = model.space.hair(parts.hair)
        skin, hair = skin_and_hair(model.space, points, mass, shape.residual, learned)
        cover = torch.sigmoid((skin - hair - THIN) / (THIN / 4))
        if (cover > 0.9).float().mean() < LEAST:
            cover = torch.zeros_like(cover)
        planes = harmonise(model.generator, planes, points, cover, check)
        planes = planes[0]
        hair = None
        if cover.any():
            colour = model.generator(planes[None], points[cover > 0.9][None])[0][0]
            hair = colour.mean(0)
        look = model.generator, planes, model.space, mass, parts.identity, hair
        field.skin = self.prior.faces.skin(*look)
        check()
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
        rgba = field.render(camera, check).rgba()
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
        expression=parts.expression.clamp(-EXPRESSION, EXPRESSION),
        hair=parts.hair,
        offset=torch.zeros(()),
        residual=torch.zeros(1, RESIDUAL, RESIDUAL, RESIDUAL),
        pose=torch.zeros(6),
    )
