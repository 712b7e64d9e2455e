"""The texture of a head's mesh of quads, with the code that textures the iso-surface, and colours
of what no field and no photo shows: skin under hair, the mouth's inside, the eyeballs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from engine.fields.head import HeadField
from engine.headspace.quad import load_quads
from engine.surface import bake as baking
from engine.surface import eyeball
from engine.surface.mesh import Mesh
from engine.surface.quad import (
    QuadHead,
    distance,
    gradient,
    looking,
    split,
    split_corners,
)
from engine.surface.rasterize import rasterize, rasterize_uvs, sample

SCALP = 0.5  # of hair's colour in that of skin under hair
FRINGE = 0.009  # metres beside covered skin in which photo and field still show strands
INSIDE = np.array([0.30, 0.11, 0.10])  # colour at the end of the mouth's bag
EYE_REACH = 0.03  # metres round an eye's centre whose vertices move as it does
MAP_SIDE = 1024  # pixels of the picture in which hair that hides skin is found, at most


def bake(
    head: QuadHead,
    field: HeadField,
    photos: Sequence[baking.PhotoView],
    size: int = 2048,
    check: Callable[[], None] = lambda: None,
) -> QuadHead:
    """The head with its texture: photos where they see skin, the field elsewhere; under hair a
    scalp's colour, between both. The eyeballs' picture has the iris's colour."""
    mesh = head.triangles()
    bare = [_bare(mesh, head.hidden, photo) for photo in photos]
    texture = baking.bake(mesh, _Skin(field, head), bare, size, check)
    check()
    iris, white = _eye_colours(head, field, photos)
    texture = _insides(head, texture, load_quads().parts, photos)
    radius = 0.5 * (head.eyes[0].radius + head.eyes[1].radius)
    eyes = eyeball.picture(iris, white, radius)
    return QuadHead(**vars(head) | {"texture": texture, "eye_texture": eyes})


class _Skin:
    """A field's colours as bare skin has them. What hair covers is a scalp where hair grows, and
    plain skin elsewhere (ears, neck): there, no colour of the field is the skin's. A beard's colour
    is the skin's under it."""

    def __init__(self, field: HeadField, head: QuadHead) -> None:
        self.bounds, self._field = field.bounds, field
        v = head.vertices
        face = (head.covered < 0.05) & (head.follows > 0.95) & (v[:, 1] > -0.09)
        hair = (head.covered > 0.95) & (head.scalp > 0.95)
        self._bare: torch.Tensor | None = None
        if not face.sum() > 50:
            return
        skin = np.median(self._at(v[face]), 0)
        strands = skin
        if hair.sum() > 50:
            strands = np.median(self._at(self._over(v[hair])), 0)
        self._bare = torch.from_numpy(skin).float()
        self._scalp = torch.from_numpy(skin * (1 - SCALP) + strands * SCALP).float()
        self._near = cKDTree(v)
        self._grows = head.scalp
        # Beside hair a field's colours are hair's already.
        under = head.hidden > 0.5
        away = cKDTree(v[under]).query(v)[0] if under.any() else np.full(len(v), np.inf)
        self._veil = np.maximum(baking.smoothstep(away, 2.5 * FRINGE, 0.5 * FRINGE), head.hidden)
        self._beard = head.beard * head.covered

    def _at(self, points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self._field.color(torch.from_numpy(points.astype(np.float32))).numpy()

    def _over(self, points: np.ndarray) -> np.ndarray:
        """The field's surface over points [N, 3] that lie under it."""
        return points - distance(self._field, points)[:, None] * gradient(self._field, points)

    def color(self, points: torch.Tensor) -> torch.Tensor:
        colour = self._field.color(points)
        if self._bare is None:
            return colour
        far, near = self._near.query(points.numpy(), k=3)
        weight = 1 / (far + 1e-4)
        weight /= weight.sum(1, keepdims=True)
        grows, veil, beard = (
            torch.from_numpy((values[near] * weight).sum(1)).float()[:, None]
            for values in (self._grows, self._veil, self._beard)
        )
        furry = beard[:, 0] > 0.01
        if furry.any():
            fur = torch.from_numpy(self._at(self._over(points[furry].numpy())))
            colour[furry] = colour[furry].lerp(fur, beard[furry])
        return colour.lerp(self._bare.lerp(self._scalp, grows), veil)


def _bare(mesh: Mesh, covered: np.ndarray, photo: baking.PhotoView) -> baking.PhotoView:
    """The photo without trust where it shows hair before the skin."""
    camera = photo.camera
    scale = min(1.0, MAP_SIDE / max(camera.width, camera.height))
    size = max(2, round(camera.width * scale)), max(2, round(camera.height * scale))
    vertices = photo.vertices(mesh)
    raster = rasterize(vertices, mesh.faces, camera.resized(*size))
    hidden = raster.interpolate(covered[mesh.faces][..., None])[..., 0]
    # Strands reach over the border: trust begins a little away from it.
    pixels, _ = camera.resized(*size).project(vertices.astype(np.float64))
    unit = np.ptp(pixels[:, 1]) / np.ptp(vertices[:, 1])  # pixels a metre, about
    away = ndimage.distance_transform_edt(hidden < 0.5) / (FRINGE * unit)
    clear = (baking.smoothstep(away, 0.3, 1.0) * (1 - hidden)).astype(np.float32)
    picture = Image.fromarray(clear).resize((camera.width, camera.height))
    return replace(photo, alpha=photo.alpha * np.asarray(picture))


def _insides(
    head: QuadHead,
    texture: np.ndarray,
    parts: tuple[str, ...],
    photos: Sequence[baking.PhotoView],
) -> np.ndarray:
    """Dark inside the mouth but for what the first photo shows between the lips, such as teeth;
    skin's shadow in the sockets."""
    out, size = texture.copy(), len(texture)
    mouth, socket = (parts.index(name) for name in ("mouth", "socket"))
    inner = (head.part == mouth) | (head.part == socket)
    raster, _ = rasterize_uvs(split_corners(head.uvs[inner]), size)
    faces, part = split(head.quads[inner]), np.repeat(head.part[inner], 2)
    at = raster.face >= 0
    face, weights = raster.face[at], raster.barycentric[at]
    points = np.einsum("nk,nkc->nc", weights, head.vertices[faces[face]])
    bag = part[face] == mouth
    if not (bag.any() and (~bag).any()):
        return out
    lips = head.vertices[np.unique(faces[part == mouth]), 2].max()
    depth = baking.smoothstep(lips - points[:, 2], 0.002, 0.016)[:, None]
    own = out[at] / 255.0
    lip = np.median(own[bag & (depth[:, 0] < 0.5)], 0)
    inside = lip * (1 - depth) + INSIDE * lip.mean() / 0.45 * depth
    for photo in photos[:1]:
        then = replace(head, vertices=photo.vertices(head.triangles()))
        points = np.einsum("nk,nkc->nc", weights, then.vertices[faces[face]])
        lips = then.vertices[np.unique(faces[part == mouth]), 2].max()
        share, shown = _between_lips(then, photo, points, mouth, lips - 0.004)
        inside = inside + (shown - inside) * share[:, None]
    shadow = np.median(own[~bag], 0) * 0.6
    mixed = np.where(bag[:, None], inside, shadow)
    out[at] = (mixed.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return out


def _between_lips(
    head: QuadHead, photo: baking.PhotoView, points: np.ndarray, mouth: int, plane: float
) -> tuple[np.ndarray, np.ndarray]:
    """What the photo shows between the lips, laid on the bag straight from in front (from z =
    `plane` backwards): its share [N] and its colours [N, 3]."""
    mesh, camera = head.triangles(), photo.camera
    small = camera.resized(MAP_SIDE, max(2, round(MAP_SIDE * camera.height / camera.width)))
    raster = rasterize(mesh.vertices, mesh.faces, small)
    open_ = (np.repeat(head.part, 2)[np.maximum(raster.face, 0)] == mouth) & (raster.face >= 0)
    soft = ndimage.gaussian_filter(ndimage.binary_dilation(open_, iterations=2).astype(float), 1.5)
    front = points.astype(np.float64)
    front[:, 2] = np.maximum(front[:, 2], plane)
    x, y = small.project(front)[0].T
    share = sample(soft[..., None], x, y)[:, 0] * (open_.sum() > 20)
    ratio = camera.width / small.width, camera.height / small.height
    return share, sample(photo.rgb, x * ratio[0], y * ratio[1]) / 255.0


def _since(head: QuadHead, photo: baking.PhotoView, centre: np.ndarray) -> np.ndarray:
    """The way [3] from an eye's place now to where a photo saw it."""
    if photo.places is None:
        return np.zeros(3)
    near = np.linalg.norm(head.vertices - centre, axis=1) < EYE_REACH
    return (photo.places - head.vertices)[near].mean(0).astype(np.float64)


def _eye_colours(
    head: QuadHead, field: HeadField, photos: Sequence[baking.PhotoView]
) -> tuple[np.ndarray, float]:
    """The iris's mean colour [3] and the white's brightness, of the first photo where it shows the
    eyes, else of the field."""
    unit, _, _ = eyeball.ball(2)
    rng = np.random.default_rng(0)
    tilt = np.arcsin(min(eyeball.IRIS / head.eyes[0].radius, 0.9))
    turn, reach = rng.random(600) * 2 * np.pi, np.sqrt(rng.random(600))
    rings = {"iris": tilt * (0.45 + 0.4 * reach), "white": tilt * (1.25 + 0.5 * reach)}
    seen: dict[str, list[np.ndarray]] = {"iris": [], "white": []}
    for eye in head.eyes:
        for name, angle in rings.items():
            s = np.sin(angle)
            local = np.stack([s * np.cos(turn), s * np.sin(turn) * 0.5, np.cos(angle)], 1)
            points = eye.centre + eye.radius * local @ looking(eye.gaze).T
            if photos:
                camera = photos[0].camera
                pixels, _ = camera.project(points + _since(head, photos[0], eye.centre))
                x, y = np.floor(pixels).astype(int).T
                inside = (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
                seen[name].append(photos[0].rgb[y[inside], x[inside]] / 255.0)
            else:
                with torch.no_grad():
                    colour = field.color(torch.from_numpy(points.astype(np.float32)))
                seen[name].append(colour.numpy())
    iris, white = (np.concatenate(seen[name]) for name in ("iris", "white"))
    if len(iris) < 50 or len(white) < 50:
        return np.array([0.32, 0.24, 0.18]), 0.75
    light = iris.mean(1)
    middle = (light >= np.quantile(light, 0.2)) & (light <= np.quantile(light, 0.7))
    return iris[middle].mean(0), float(np.clip(np.quantile(white.mean(1), 0.9), 0.4, 0.9))
