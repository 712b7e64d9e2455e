"""Held-out heads with all that is known of them, made anew from their seed.

Nothing is read from shards: portrait and views come from one build of the head by the code as it
is, so that neither can be of another time than the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from engine.cameras import Camera, from_eg3d
from engine.headspace import lattice
from engine.headspace.space import HeadSpace
from engine.portrait.image import Photo
from engine.training.build_headspace import Binding, bust_cut, described, vertex_weight
from engine.training.data import _background, five_points
from engine.training.heads.dataset import SKIN_UNIT, lit_head, sample
from engine.training.heads.pack import Pack
from engine.training.heads.parts import HAIR, SKIN
from engine.training.heads.scene import Studio
from engine.training.heads.textures import Atlas
from engine.training.heads.views import TARGET_EXTENT, TARGET_FOV, TARGET_SIZE, distance
from engine.training.prepare import surface_points, to_canonical

PORTRAIT = 512
DISTANCE = distance(TARGET_EXTENT, TARGET_FOV)  # of the views' cameras from the origin
# The face in canonical space, metres: in front of the ears, from under the chin to the forehead.
FACE_FRONT, FACE_LOW, FACE_HIGH = 0.03, -0.09, 0.075


@dataclass(frozen=True)
class View:
    """One target view at 128 x 128, undressed: camera in the head's frame; rgb float32 [H, W, 3]
    in 0..1, straight, and alpha [H, W] in 0..1; depth float32 [H, W] metres along the camera's z;
    head, face, beyond: bool [H, W], pixels of the head down to the bust's cut, of its bare face
    (see FACE_FRONT), and of the body beyond the cut, with
    its rim. yaw: degrees, positive to the subject's
    left."""

    camera: Camera
    rgb: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray
    head: np.ndarray
    face: np.ndarray
    beyond: np.ndarray
    yaw: float


@dataclass(frozen=True)
class Truth:
    """A head: its portrait at 512 pixels on a random background, as a photo would be; the five
    points in it; the portrait's camera; shown, uint8 [512, 512]: 255 where it shows the head;
    landmarks [84, 3] metres; views: two frontal ones, then six from anywhere round the head."""

    seed: int
    photo: Photo
    points: np.ndarray
    camera: Camera
    shown: np.ndarray
    landmarks: np.ndarray
    views: list[View]


class Truths:
    """Makes truths of seeds. mean: of prior_data.template_mean, which the template is bound to."""

    def __init__(self, space: HeadSpace, pack: Pack, mean: np.ndarray) -> None:
        self.space, self.pack, self.studio = space, pack, Studio(Atlas(pack))
        vertices = space.mean.numpy()
        self._bind = Binding(pack, mean, vertices, space.faces.numpy())
        self._weight = vertex_weight(vertices)
        self._spread = lattice.Spread(space.mean, space.bounds, 48)

    def __call__(self, seed: int) -> Truth:
        lit = lit_head(self.pack, self.studio, seed)
        head, camera = lit.head, lit.input_camera().resized(PORTRAIT, PORTRAIT)
        view = lit.scene.view(camera, dressed=True)
        rgba = view.rgba.astype(np.float32) / 255
        behind = _background(np.random.default_rng(seed), 1, PORTRAIT)[0]
        rgb = rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])
        shown = np.where(np.isin(view.labels, (SKIN, HAIR)), view.rgba[..., 3], 0)
        points = five_points(camera.project(head.landmarks)[0])
        made = sample(self.pack, self.studio, seed)
        shard = {key: np.asarray(value)[None] for key, value in made.items()}
        return Truth(
            seed,
            Photo((rgb * 255).astype(np.uint8), None, f"{seed}"),
            points,
            camera,
            shown.astype(np.uint8),
            head.landmarks.astype(np.float64),
            self._views(shard),
        )

    def canonical(self, skin: np.ndarray, neutral: np.ndarray) -> torch.Tensor:
        """The lattice that brings points of a head with these vertices (metres) to canonical
        space, see prepare.to_canonical."""
        fits = self.coefficients(skin, neutral)
        return lattice.blur(self._spread(self.space.displacement(*fits)))

    def coefficients(
        self, skin: np.ndarray, neutral: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Identity [Ki] and expression [Ke] of a head with these vertices (metres)."""
        bases = self.space.identity.numpy(), self.space.expression.numpy()
        identity, expression = described(bases, self._weight, self._bind, skin, neutral)
        return torch.from_numpy(identity), torch.from_numpy(expression)

    def _views(self, shard: dict[str, np.ndarray]) -> list[View]:
        skin, neutral = (shard[k][0] * np.float32(SKIN_UNIT) for k in ("skin", "neutral"))
        forward = self.canonical(skin, neutral)
        views = []
        for i in range(shard["target_alpha"].shape[1]):
            points, solid = surface_points(shard, 0, i)
            places = torch.from_numpy(points.astype(np.float32))
            q = to_canonical(forward, places, self.space.bounds).numpy()
            head = solid.copy()
            head[solid] = bust_cut(q) < 0.002
            face = solid.copy()
            face[solid] = (q[:, 2] > FACE_FRONT) & (q[:, 1] > FACE_LOW) & (q[:, 1] < FACE_HIGH)
            face &= head & (shard["target_class"][0, i] == SKIN)
            camera = from_eg3d(shard["target_camera"][0, i], TARGET_SIZE, TARGET_SIZE)
            back = -camera.cam2world[:3, 2]
            views.append(
                View(
                    camera,
                    shard["target_rgb"][0, i].astype(np.float32) / 255,
                    shard["target_alpha"][0, i].astype(np.float32) / 255,
                    shard["target_depth"][0, i].astype(np.float32) + np.float32(DISTANCE),
                    head,
                    face,
                    ndimage.binary_dilation(solid & ~head) & ~head,
                    float(np.degrees(np.arctan2(back[0], back[2]))),
                )
            )
        return views
