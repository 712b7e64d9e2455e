"""Pseudo-views: what a head would look like from cameras that nobody photographed it from.

Each is put together from what is known best: the photo, warped there by the field's depth, where
the new camera sees what the photo saw; then the photo's mirror image; then a fill, the field's own
render or what a network inpaints (HFGI3D, Xie et al. 2023, section 3.2, has the first and the
third; SPI, Yin et al. 2023, section 3.3, the second; WarpGAN, arXiv 2511.08178, section 3.2, all).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import Camera, orbit
from engine.fields.base import Field, Render
from engine.inversion.warp import facing, forward_warp, mirrored, visibility

SIZE = 256  # pixels a side
FOV = math.radians(18)  # a portrait lens
EXTENT = 0.385  # metres that a view shows at the head's middle: 1.5 mm a pixel
MIDDLE = (0.0, -0.008, 0.0)  # of a head with its neck, metres
# Yaw and pitch in degrees of cameras round a head: together they see all of it squarely.
AROUND = (60, 0), (-60, 0), (110, 0), (-110, 0), (180, 20)
NEAR_PHOTO = 15.0  # degrees: a camera this near to the photo's shows nothing new
SOLID = 0.9  # alpha from which a pixel is the head's alone
# Confidence of what is not the photo's own: its mirror image, an inpainted pixel, the render.
MIRRORED, INPAINTED, RENDERED = 0.5, 0.4, 0.1


@dataclass
class Source:
    """A photo as warps take it: picture [H, W, 3] in 0..1, depth [h, w] (0 off the head), weight
    [h, w] in 0..1, and its camera."""

    picture: Tensor
    depth: Tensor
    weight: Tensor
    camera: Camera

    def to(self, camera: Camera, depth: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """The photo [S, S, 3] as a camera sees it, where the field has that depth [S, S] (0 where
        it is empty) and alpha [S, S], and how far to believe it [S, S]."""
        got = forward_warp(self.picture, self.depth, self.weight, self.camera, camera)
        return got.picture, visibility(got, depth, alpha, camera)


@dataclass
class PseudoView:
    """One camera's view, everything [S, S] or [S, S, 3].

    render, depth, alpha: the field's own (image premultiplied on black; depth 0 where it is empty);
    photo, mirror: the warped photo and its warped mirror image, straight colours, black where they
    show nothing; visible, mirror_visible: how far to believe each, 0..1. picture: what all of it
    comes to, premultiplied on black, and its confidence in 0..1 (see compose()).
    """

    camera: Camera
    render: Tensor
    depth: Tensor
    alpha: Tensor
    photo: Tensor
    visible: Tensor
    mirror: Tensor
    mirror_visible: Tensor
    picture: Tensor
    confidence: Tensor

    def filled(self) -> Tensor:
        """The warped photo with its holes filled by the render [S, S, 3], premultiplied: what an
        inpainting network starts from."""
        return self._over(self.render, self.photo, self.visible)

    def _over(self, below: Tensor, colour: Tensor, share: Tensor) -> Tensor:
        return torch.lerp(below, colour * self.alpha[..., None], share[..., None])

    def compose(self, fill: Tensor | None = None, mirror: float = 0.0) -> None:
        """Puts picture and confidence together anew: the photo over its mirror image, believed by
        `mirror` of its visibility, over `fill` [S, S, 3] (premultiplied), an inpainted view, or the
        render without one."""
        believed = mirror * self.mirror_visible
        picture = self._over(self.render if fill is None else fill, self.mirror, believed)
        self.picture = self._over(picture, self.photo, self.visible)
        trust = RENDERED if fill is None else INPAINTED
        sure = trust + believed * (MIRRORED - trust)
        sure = sure + self.visible * (1 - sure)
        self.confidence = sure * (self.alpha > SOLID)


def cameras_around(
    angles: Sequence[tuple[float, float]] = AROUND,
    size: int = SIZE,
    metres_per_unit: float = 1.0,
    centre: Sequence[float] = MIDDLE,
    without: Camera | None = None,
) -> list[Camera]:
    """Cameras at (yaw, pitch) in degrees round a head's middle (field units), EXTENT metres wide
    there; those within NEAR_PHOTO degrees of the camera `without` are left out."""
    distance = EXTENT / metres_per_unit / (2 * math.tan(FOV / 2))
    made = []
    for yaw, pitch in angles:
        camera = orbit(
            math.radians(yaw), math.radians(pitch), distance, FOV, tuple(centre), size, size
        )
        if without is None or _apart(camera, without, np.asarray(centre, float)) > NEAR_PHOTO:
            made.append(camera)
    return made


def _apart(a: Camera, b: Camera, centre: np.ndarray) -> float:
    """Degrees between the directions in which two cameras lie from a point."""
    u, v = (c.position - centre for c in (a, b))
    return math.degrees(math.acos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1)))


def solid_depth(seen: Render) -> Tensor:
    """The depth map [H, W] of a render, 0 where it is mostly empty."""
    return seen.depth * (seen.alpha > 0.5)


def sources_of(
    field: Field,
    picture: Tensor,
    trust: Tensor,
    camera: Camera,
    size: int = SIZE,
    check: Callable[[], None] = lambda: None,
) -> tuple[Source, Source]:
    """A photo [H, W, 3] (0..1) and its mirror image, as warps take them: on the surface that the
    field has through their cameras, at size x size and half of that. trust [H, W]: how far each
    pixel may be believed (the head's matte)."""

    def on_surface(picture: Tensor, trust: Tensor, camera: Camera, size: int) -> Source:
        seen = field.render(camera.resized(size, size), check)
        depth, alpha = solid_depth(seen).cpu(), seen.alpha.cpu()
        trust = F.interpolate(trust[None, None].float(), depth.shape, mode="area")[0, 0]
        return Source(picture, depth, trust * facing(depth, alpha, camera), camera)

    other, turned = mirrored(picture, camera)
    return (
        on_surface(picture, trust, camera, size),
        on_surface(other, trust.flip(1), turned, size // 2),
    )


def pseudo_view(
    field: Field,
    sources: tuple[Source, Source],
    camera: Camera,
    check: Callable[[], None] = lambda: None,
) -> PseudoView:
    """What is known of the view of a camera (sources: of sources_of()); its picture is composed of
    the photo and the render."""
    seen = field.render(camera, check)
    image, depth, alpha = seen.image.cpu(), solid_depth(seen).cpu(), seen.alpha.cpu()
    carried = [source.to(camera, depth, alpha) for source in sources]
    view = PseudoView(camera, image, depth, alpha, *carried[0], *carried[1], image, alpha)
    view.compose()
    return view
