"""The texture: the field's colours everywhere, the photo's own skin where the photo sees it.

Painted views of the head (what a network made of the sides that no photo shows) lie over the
field's colours as far as they are sure. These colours are then brought to the photo's tone: the
ratio between photo and field, known on the visible skin, is smoothed and continued over the whole
surface by a Laplace equation on the mesh. Then the photo's detail is laid over it, fading out at
grazing angles, at the matte's edge and where one part hides another, so nothing of the background
is seen and there is no seam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_matrix, csc_matrix, diags
from scipy.sparse.linalg import splu

from engine.cameras import Camera
from engine.surface.mesh import Mesh, half_edges
from engine.surface.rasterize import Raster, rasterize, rasterize_uvs, sample

if TYPE_CHECKING:
    from engine.fields.base import Field

CHUNK = 1 << 18  # texels handled at once
BAND = 1 << 22  # texels of the texture's rows that are rasterised at once
FIELD_SIDE = 2048  # of the texture of the field's own colours, at most: no field is finer
TONE_SIDE = 1024  # of the raster on which the tone is measured, at most
PHOTO_SIDE = 2048  # pixels along the head's longer side, at most: finer than the texels
DEPTH_SIDE = 1024
TONE_REACH = 8.0  # edges over which the tone is smoothed
GRAZING = 0.15, 0.55  # cosines of the angle of view: below, the photo would be drawn out; above not
DARK = 0.08  # added before ratios are taken, so that black hair does not rule them


@dataclass(frozen=True)
class PhotoView:
    """A photo of the head: its camera in field space, rgb uint8 [H, W, 3] and the matte alpha
    float32 [H, W] in 0..1, both of the camera's width and height. places float32 [V, 3]: where the
    mesh's vertices were when the photo was taken, if the head has changed since. sure float32
    [H, W] in 0..1: of a painted view, how far each pixel may be believed; None for a photo, which
    is believed over every painted view."""

    camera: Camera
    rgb: np.ndarray
    alpha: np.ndarray
    places: np.ndarray | None = None
    sure: np.ndarray | None = None

    def vertices(self, mesh: Mesh) -> np.ndarray:
        """The mesh's vertices [V, 3] as the photo saw them."""
        return mesh.vertices if self.places is None else self.places


@dataclass(frozen=True)
class _Prepared:
    """A photo cut to the head: a camera with its picture, and one with depth and trust; corners
    [F, 3, 3] of the mesh's faces as it saw them; whether it is a painted view."""

    camera: Camera
    rgb: np.ndarray
    depth_camera: Camera
    depth: np.ndarray
    trust: np.ndarray
    bias: float
    corners: np.ndarray
    painted: bool


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at `low`, 1 at `high`, which may be the smaller."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _window(camera: Camera, box: tuple[int, int, int, int], width: int, height: int) -> Camera:
    """The camera of the pixels x0..x1, y0..y1 of an image, on an image of width x height."""
    x0, y0, x1, y1 = box
    k = camera.intrinsics.copy()
    k[0] *= camera.width / (x1 - x0)
    k[1] *= camera.height / (y1 - y0)
    k[0, 2] = (camera.intrinsics[0, 2] * camera.width - x0) / (x1 - x0)
    k[1, 2] = (camera.intrinsics[1, 2] * camera.height - y0) / (y1 - y0)
    return Camera(camera.cam2world, k, width, height, camera.name)


def _prepare(mesh: Mesh, photo: PhotoView) -> _Prepared | None:
    camera, vertices = photo.camera, photo.vertices(mesh)
    pixels, z = camera.project(vertices.astype(np.float64))
    if (z <= 0).any():
        return None
    low = np.maximum(np.floor(pixels.min(0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(pixels.max(0)).astype(int) + 2, (camera.width, camera.height))
    if (high - low < 2).any():
        return None
    box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    side = int((high - low).max())

    def scaled(most: int) -> tuple[int, int]:
        f = min(1.0, most / side)
        return max(int((high - low)[0] * f + 0.5), 2), max(int((high - low)[1] * f + 0.5), 2)

    w, h = scaled(PHOTO_SIDE)
    rgb = Image.fromarray(photo.rgb).resize((w, h), Image.Resampling.LANCZOS, box)
    dw, dh = scaled(DEPTH_SIDE)
    matte = Image.fromarray(photo.alpha.astype(np.float32)).resize(
        (dw, dh), Image.Resampling.BOX, box
    )
    depth_camera = _window(camera, box, dw, dh)
    raster = rasterize(vertices, mesh.faces, depth_camera)
    extent = float(np.ptp(vertices, 0).max())
    trust = _trust(raster, np.asarray(matte), extent, min(dw, dh), box, camera)
    if photo.sure is not None:
        sure = Image.fromarray(photo.sure.astype(np.float32))
        trust = trust * np.asarray(sure.resize((dw, dh), Image.Resampling.BILINEAR, box))
    return _Prepared(
        _window(camera, box, w, h),
        np.asarray(rgb).astype(np.float32) / 255,
        depth_camera,
        ndimage.maximum_filter(np.where(np.isfinite(raster.depth), raster.depth, 0), 3),
        trust,
        0.006 * extent,
        vertices[mesh.faces],
        photo.sure is not None,
    )


def _trust(
    raster: Raster, matte: np.ndarray, extent: float, side: int, box: tuple, camera: Camera
) -> np.ndarray:
    """How far each pixel of the depth image can be believed, float32 [h, w] in 0..1: away from the
    matte's edge, from what lies behind other parts, and from the photo's border."""
    # Behind a jump in depth the photo may show what is in front; the near side is safe.
    depth = np.where(np.isfinite(raster.depth), raster.depth, 1e6)
    jump = depth - ndimage.minimum_filter(depth, 3) > 0.03 * extent
    reach = max(0.012 * side, 2.0)
    edge = ~jump
    clear = matte > 0.85
    # A border of the window that is a border of the photo: nothing is known behind it.
    x0, y0, x1, y1 = box
    edge[:, 0] &= x0 > 0
    edge[0] &= y0 > 0
    edge[:, -1] &= x1 < camera.width
    edge[-1] &= y1 < camera.height
    distance = ndimage.distance_transform_edt(edge & clear)
    return (smoothstep(distance, 0.3 * reach, 1.5 * reach) * matte).astype(np.float32)


def _texels(mesh: Mesh, raster: Raster, corners: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Values float32 [n, C] at the texels at [n] (flat numbers) from corner values [F, 3, C]."""
    face = raster.face.reshape(-1)[at]
    return np.einsum("nk,nkc->nc", raster.barycentric.reshape(-1, 3)[at], corners[face])


def fill(texture: np.ndarray, known: np.ndarray, margin: int = 64) -> np.ndarray:
    """texture [T, T, C], in place, with every texel outside known [T, T] taking the nearest known
    one's colour; where none is near, the mean."""
    size = len(texture)
    step = max(BAND // size, 1)
    mean = texture[known].mean(0) if known.any() else 0
    original = texture.copy() if step < size else texture
    for top in range(0, size, step):
        bottom = min(top + step, size)
        low, high = max(top - margin, 0), min(bottom + margin, size)
        part = known[low:high]
        target = texture[top:bottom]
        unknown = ~known[top:bottom]
        if not part.any():
            target[unknown] = mean
        elif unknown.any():
            rows, columns = ndimage.distance_transform_edt(
                ~part, return_distances=False, return_indices=True
            )
            at = np.s_[top - low : bottom - low]
            target[unknown] = original[low:high][rows[at][unknown], columns[at][unknown]]
    return texture


def _field_texture(mesh: Mesh, field: Field, size: int, check: Callable[[], None]) -> np.ndarray:
    """The field's colours as a texture float32 [size, size, 3] in 0..1."""
    raster, _ = rasterize_uvs(mesh.uvs, size)
    known = raster.face >= 0
    at = np.flatnonzero(known)
    corners = mesh.vertices[mesh.faces]
    bounds = field.bounds
    out = np.zeros((size * size, 3), np.float32)
    with torch.no_grad():
        for i in range(0, len(at), CHUNK):
            check()
            points = torch.from_numpy(_texels(mesh, raster, corners, at[i : i + CHUNK]))
            # The surface's flat cut lies a little outside the box; colours are known inside.
            points = torch.minimum(torch.maximum(points.to(bounds), bounds[0]), bounds[1])
            colour = torch.nan_to_num(field.color(points).float()).clamp(0, 1)
            out[at[i : i + CHUNK]] = colour.cpu().numpy()
    return fill(out.reshape(size, size, 3), known)


def _look(
    view: _Prepared, points: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The photo's colour [n, 3] at surface points and how far to believe it [n]."""
    pixels, z = view.depth_camera.project(points)
    x, y = pixels[:, 0].astype(np.float32), pixels[:, 1].astype(np.float32)
    h, w = view.depth.shape
    inside = (x > 0) & (y > 0) & (x < w) & (y < h)
    column, row = np.clip(x.astype(int), 0, w - 1), np.clip(y.astype(int), 0, h - 1)
    to_eye = view.camera.position - points
    to_eye /= np.linalg.norm(to_eye, axis=1, keepdims=True)
    facing = np.einsum("ij,ij->i", normals, to_eye.astype(np.float32))
    weight = sample(view.trust[..., None], x, y)[:, 0] * smoothstep(facing, *GRAZING)
    weight[~inside | (z > view.depth[row, column] + view.bias)] = 0
    f = view.camera.width / w, view.camera.height / h
    return sample(view.rgb, x * f[0], y * f[1]), weight.astype(np.float32)


def _turned(normals: np.ndarray, views: list[_Prepared]) -> np.ndarray:
    """Which faces [F] any of the photos may show; normals of corners [F, 3, 3]."""
    out = np.zeros(len(normals), bool)
    for view in views:
        to_eye = (view.camera.position - view.corners).astype(np.float32)
        facing = (normals * to_eye).sum(2) / np.linalg.norm(to_eye, axis=2)
        # Between corners a normal may face the eye a little more than at them.
        out |= facing.max(1) > GRAZING[0] - 0.1
    return out


def _tone(mesh: Mesh, face: np.ndarray, ratio: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The smooth continuation float32 [V, 3] of log ratios [n, 3], known with weights [n] at texels
    on the faces [n], over the whole mesh."""
    n, count = len(mesh.vertices), len(mesh.faces)
    sums = np.stack([np.bincount(face, ratio[:, k] * weight, count) for k in range(3)], 1)
    weights = np.bincount(face, weight, count)
    texels = np.bincount(face, minlength=count)
    flat = mesh.faces.ravel()
    per_vertex = np.stack([np.bincount(flat, np.repeat(sums[:, k], 3), n) for k in range(3)], 1)
    seen = np.bincount(flat, np.repeat(weights, 3), n)
    trust = seen / np.maximum(np.bincount(flat, np.repeat(texels, 3), n), 1)
    if seen.sum() <= 0:
        return np.zeros((n, 3), np.float32)
    data = per_vertex / np.maximum(seen, 1e-9)[:, None]
    tail, head = half_edges(mesh.faces)
    beside = coo_matrix((np.ones(len(tail)), (tail, head)), (n, n)).tocsr()
    laplacian = diags(np.asarray(beside.sum(1)).ravel()) - beside
    trust = trust**2 + 1e-9
    system = csc_matrix(diags(trust) + TONE_REACH**2 / 6 * laplacian)
    factor = splu(
        system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True, "DiagPivotThresh": 0.0}
    )
    return factor.solve(trust[:, None] * data).clip(-1.2, 1.2).astype(np.float32)


def _colours(
    mesh: Mesh,
    raster: Raster,
    top: int,
    size: int,
    base: np.ndarray,
    views: list[_Prepared],
    check: Callable[[], None],
) -> tuple[np.ndarray, ...]:
    """Of the covered texels of a raster that starts at row `top`: flat numbers in the raster [n],
    the field's colours under the painted views' [n, 3], the photos' [n, 3] and how far to believe
    those [n]."""
    at = np.flatnonzero(raster.face >= 0)
    f = len(base) / size
    colour = np.empty((len(at), 3), np.float32)
    photo = np.zeros((len(at), 3), np.float32)
    weight = np.zeros(len(at), np.float32)
    painted, photos = ([v for v in views if v.painted is kind] for kind in (True, False))
    normals = mesh.vertex_normals[mesh.faces]
    turned = _turned(normals, views)
    for i in range(0, len(at), CHUNK):
        check()
        part, here = at[i : i + CHUNK], slice(i, i + CHUNK)
        colour[here] = sample(base, (part % size + 0.5) * f, (part // size + top + 0.5) * f)
        if not views:
            continue
        shown = turned[raster.face.reshape(-1)[part]]
        part, here = part[shown], i + np.flatnonzero(shown)
        n = _texels(mesh, raster, normals, part)
        n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)
        looks = [
            [_look(view, _texels(mesh, raster, view.corners, part), n) for view in group]
            for group in (painted, photos)
        ]
        seen, sure = _mixed(looks[0], len(part))
        colour[here] += (seen - colour[here]) * sure[:, None]
        photo[here], weight[here] = _mixed(looks[1], len(part))
    return at, colour, photo, weight


def _mixed(looks: list[tuple[np.ndarray, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of what views show of `count` points, colour and weight each: the mean colour [n, 3] and how
    far to believe it [n]."""
    colour, total, most = np.zeros((count, 3), np.float32), *np.zeros((2, count), np.float32)
    for seen, w in looks:
        # The best view rules; the steep power keeps two photos from doubling features.
        colour += seen * (w**4)[:, None]
        total += w**4
        most = np.maximum(most, w)
    return colour / np.maximum(total, 1e-12)[:, None], most


def bake(
    mesh: Mesh,
    field: Field,
    photos: Sequence[PhotoView],
    size: int = 2048,
    check: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The texture uint8 [size, size, 3] (row 0 at the top, display sRGB) of a mesh with uvs.

    photos: photos and painted views; without any the field's colours are all there is. The field
    is asked for colours at half the texture's resolution, which is still finer than any field.
    check: called often; raises to cancel.
    """
    base = _field_texture(mesh, field, min(max(size // 2, 64), FIELD_SIDE), check)
    views = []
    for photo in photos:
        check()
        view = _prepare(mesh, photo)
        views += [view] if view is not None else []
    tone = np.zeros((len(mesh.faces), 3, 3), np.float32)
    if views:
        side = min(size, TONE_SIDE)
        raster, _ = rasterize_uvs(mesh.uvs, side)
        check()
        at, colour, photo, weight = _colours(mesh, raster, 0, side, base, views, check)
        check()
        ratio = np.log((photo + DARK) / (colour + DARK))
        tone = _tone(mesh, raster.face.reshape(-1)[at], ratio, weight)[mesh.faces]

    out = np.zeros((size, size, 3), np.uint8)
    known = np.zeros((size, size), bool)
    step = max(BAND // size, 1)
    for top in range(0, size, step):
        check()
        bottom = min(top + step, size)
        raster, _ = rasterize_uvs(mesh.uvs, size, (top, bottom))
        check()
        at, colour, photo, weight = _colours(mesh, raster, top, size, base, views, check)
        check()
        for i in range(0, len(at) if views else 0, CHUNK):
            here = slice(i, i + CHUNK)
            gain = np.exp(_texels(mesh, raster, tone, at[here]))
            toned = (colour[here] + DARK) * gain - DARK
            colour[here] = toned + (photo[here] - toned) * weight[here, None]
        out[top:bottom].reshape(-1, 3)[at] = (colour.clip(0, 1) * 255 + 0.5).astype(np.uint8)
        known[top:bottom] = raster.face >= 0
    check()
    return fill(out, known)
