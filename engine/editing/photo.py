"""The photo of a head that has been edited since: where it saw the edited mesh's points, in the
edited colours, and only what is still as it was.

So the texture keeps every pore that the photo shows: the edit moves the photo's skin and tints it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from engine.cameras import Camera
from engine.fields.base import Field, Render
from engine.fields.head import HeadField
from engine.headspace import lattice
from engine.surface.bake import PhotoView
from engine.surface.draw import silhouette
from engine.surface.mesh import Mesh
from engine.surface.rasterize import rasterize

SIDE = 384  # pixels along the head's longer side in which both heads are compared, at most
DARK = 0.04  # added before ratios are taken
MOST = 1.6  # of their logarithm
COARSE = 0.006  # of that side: colours are compared over so much
LIKE = 0.45, 0.75  # difference of logarithms: photo and field agree; show different things
STILL = 0.003, 0.006  # metres: skin that has come nearer or gone farther is another; that has not


@dataclass(frozen=True)
class Edited:
    """An edited head's field, and the lattice [3, L, L, L] that leads from its points to where they
    were; None where none has moved."""

    field: Field
    back: torch.Tensor | None = None


def edited_photo(
    base: HeadField,
    edited: Edited,
    mesh: Mesh,
    camera: Camera,
    rgb: np.ndarray,
    check: Callable[[], None] = lambda: None,
) -> PhotoView:
    """A photo of the unedited head for baking the edited one's mesh. rgb uint8 [H, W, 3] of the
    camera's size."""
    assert isinstance(edited.field, HeadField)
    places = mesh.vertices
    if edited.back is not None:
        points = torch.from_numpy(mesh.vertices).float()
        moved = lattice.sample(edited.back, points, base.bounds)
        places = (points + moved).numpy().astype(np.float32)
    then = Mesh(places, mesh.faces, mesh.uvs, mesh.texture)
    solid = silhouette(then, camera)
    check()
    rows, columns = (np.flatnonzero(solid.any(axis)) for axis in (1, 0))
    if not len(rows):
        return PhotoView(camera, rgb, solid.astype(np.float32), places)
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part = _Part(_cut(camera, box), rgb[box])
    before = base.render(part.small, check)
    alpha = np.zeros(solid.shape, np.float32)
    alpha[box] = solid[box] * part.large(_alike(before, part.shrunk()))
    if edited.field.planes is base.planes:
        return PhotoView(camera, rgb, alpha, places)
    same = base.decoder, base.bounds, {}, base.strands, base.skin
    recoloured = HeadField(base.distance, base.warp, edited.field.planes, *same)
    after = recoloured.render(part.small, check)
    alpha[box] *= part.large(_still(edited.field, mesh, then, part.small, before, after))
    gain = _gain(before.image.numpy(), after.image.numpy(), before.alpha.numpy())
    out = rgb.copy()
    for channel in range(3):
        check()
        light = part.rgb[..., channel].astype(np.float32) / 255
        light = (light + DARK) * np.exp(part.large(gain[..., channel])) - DARK
        out[box][..., channel] = (light.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return PhotoView(camera, out, alpha, places)


@dataclass(frozen=True)
class _Part:
    """The head's part of a photo, rgb uint8 [H, W, 3], with its camera."""

    camera: Camera
    rgb: np.ndarray

    @property
    def small(self) -> Camera:
        """The camera on as many pixels as both heads are compared on."""
        width, height = self.camera.width, self.camera.height
        scale = min(1.0, SIDE / max(width, height))
        return self.camera.resized(max(2, round(width * scale)), max(2, round(height * scale)))

    def shrunk(self) -> np.ndarray:
        """Its colours float32 [h, w, 3] on those."""
        size = self.small.width, self.small.height
        return np.asarray(Image.fromarray(self.rgb).resize(size, Image.Resampling.BOX)) / 255.0

    def large(self, picture: np.ndarray) -> np.ndarray:
        """A picture float32 [h, w] of those on all [H, W]."""
        made = Image.fromarray(picture.astype(np.float32))
        size = self.camera.width, self.camera.height
        return np.asarray(made.resize(size, Image.Resampling.BILINEAR))


def _cut(camera: Camera, box: tuple[slice, slice]) -> Camera:
    """The camera of a box (rows, columns) of its picture."""
    rows, columns = box
    shift = np.array([[1.0, 0, -columns.start], [0, 1.0, -rows.start], [0, 0, 1.0]])
    return camera.transformed_image(shift, columns.stop - columns.start, rows.stop - rows.start)


def _alike(field: Render, picture: np.ndarray) -> np.ndarray:
    """Where a picture [h, w, 3] shows what a field does, 0..1 [h, w], broadly. Where clothes or a
    hand hide the head in a photo it does not: a field fitted to it never took their colours."""
    alpha = field.alpha.numpy()
    sigma = max(alpha.shape) * COARSE
    ours, theirs = (
        ndimage.gaussian_filter(colours * alpha[..., None], (sigma, sigma, 0))
        / np.maximum(ndimage.gaussian_filter(alpha, sigma), 1e-3)[..., None]
        for colours in (field.image.numpy() / np.maximum(alpha, 1e-3)[..., None], picture)
    )
    away = np.abs(np.log((theirs.clip(0) + DARK) / (ours.clip(0) + DARK))).mean(2)
    return (1 - ((away - LIKE[0]) / (LIKE[1] - LIKE[0])).clip(0, 1)).astype(np.float32)


def _still(
    field: HeadField, mesh: Mesh, then: Mesh, camera: Camera, before: Render, after: Render
) -> np.ndarray:
    """Where a photo still shows what the edited mesh has there, 0..1 [h, w]: its surface has not
    come nearer or gone farther, or has the colours that were there: hair that is fuller is hair.
    before, after: the unedited head's shape in its own colours and in the edited ones."""
    raster = rasterize(then.vertices, then.faces, camera)
    away = np.abs(np.where(np.isfinite(raster.depth), raster.depth, 0) - before.depth.numpy())
    with torch.no_grad():
        colours = field.color(torch.from_numpy(mesh.vertices).float()).numpy()
    now = raster.interpolate(colours[mesh.faces])
    alike = _alike(after, now) * (after.alpha.numpy() > 0.9)
    same = 1 - ((away - STILL[0]) / (STILL[1] - STILL[0])).clip(0, 1)
    return ndimage.minimum_filter(np.maximum(same, alike), 3)


def _gain(before: np.ndarray, after: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Logarithms [h, w, 3] of what two premultiplied pictures [h, w, 3] of one outline differ by,
    continued a little beyond it."""
    solid = alpha > 0.95
    level = np.maximum(alpha, 1e-3)[..., None]
    ratio = np.log((after / level + DARK) / (before / level + DARK)).clip(-MOST, MOST)
    weight = ndimage.gaussian_filter(solid.astype(np.float32), 0.7)[..., None]
    total = ndimage.gaussian_filter(ratio * solid[..., None], (0.7, 0.7, 0))
    inside = np.where(weight > 0.05, total / np.maximum(weight, 0.05), 0)
    near = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    return np.where(solid[..., None], inside, inside[near[0], near[1]]).astype(np.float32)
