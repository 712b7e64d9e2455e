"""What directions are regressed from: training people as codes, with what is known of them; and
functions that measure attributes of a code (see build_directions.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import orbit
from engine.checkpoints.default import DefaultModel
from engine.headspace.space import HeadSpace
from engine.portrait.align import align
from engine.portrait.image import Photo
from engine.systems.head.prior import Parts
from engine.training.data import SIZE, WIDEN, five_points
from engine.training.heads.build import build, head_rng
from engine.training.heads.parts import HAIR, SKIN
from engine.training.heads.sampler import sample_params
from engine.training.heads.scene import Scene
from engine.training.heads.views import TARGET_FOV, distance
from engine.training.prior_data import Sitting, natural, tidy

PIXELS = 256  # of the portraits before alignment
FACE = ("smile", "mouth open", "eyes closed")
SHAPE = ("face width", "nose size", "nose width", "jaw")
LUMA = np.array([0.299, 0.587, 0.114])
# The bare face in canonical space, metres; BEARD: what a beard covers of it.
FACE_BEFORE, FACE_BELOW = 0.055, 0.06
BROWS, CHEEKS, LIPS = 0.03, (0.022, 0.045), 0.012


def person(sitting: Sitting, seed: int) -> dict[str, np.ndarray] | None:
    """A training head: identity, expression (as sampled, gaze and neck straight), style; portrait
    uint8 [128, 128, 4], the encoder's input of the tidied person (head's colours times its mask,
    and the mask); known [9]: see KNOWN. None for dyed hair, which would bleed into other colours.
    """
    params = sample_params(sitting.pack, head_rng(seed, 0))
    if not natural(params):
        return None
    straight = {"gaze": [0.0, 0.0], "neck": [0.0, 0.0, 0.0]}
    identity, expression, style = sitting.describe(build(sitting.pack, params | straight))
    head = build(sitting.pack, tidy(params))
    scene = Scene(sitting.studio, head, sitting.light)
    radius = distance(0.42, TARGET_FOV)
    camera = orbit(0, 0, radius, TARGET_FOV, (0, -0.005, 0), PIXELS, PIXELS)
    view = scene.view(camera, dressed=False)
    points = five_points(camera.project(head.landmarks)[0])
    mask = np.isin(view.labels, (SKIN, HAIR)) * (view.rgba[..., 3:] / 255.0)[..., 0]
    shown = np.concatenate([view.rgba[..., :3] * mask[..., None], 255 * mask[..., None]], -1)
    shown = (shown + 0.5).astype(np.uint8)
    halves = [
        align(Photo(np.ascontiguousarray(x), None, ""), points, PIXELS, WIDEN).crop
        for x in (shown[..., :3], np.repeat(shown[..., 3:], 3, 2))
    ]
    crop = torch.from_numpy(np.concatenate([halves[0], halves[1][..., :1]], -1))
    small = F.interpolate(crop.permute(2, 0, 1)[None].float(), (SIZE, SIZE), mode="area")
    mix = params["ethnicity"]
    known = [
        params["years"], params["gender"], mix["african"], mix["asian"], params["weight"],
        params["muscle"], params["beard"]["stubble"], math.sqrt(params["beard"]["length"]),
        float(np.log(np.array(params["skin_gain"]) @ LUMA)),
    ]  # fmt: skip
    return {
        "seed": np.int64(seed),
        "identity": identity,
        "expression": expression,
        "style": np.int64(style),
        "portrait": (small[0].permute(1, 2, 0) + 0.5).byte().numpy(),
        "known": np.array(known, np.float32),
    }


KNOWN = ("years", "gender", "african", "asian", "weight", "muscle", "stubble", "beard", "gain")


@torch.no_grad()
def encode(model: DefaultModel, portraits: np.ndarray) -> Tensor:
    """w+ [N, n, w] of portraits uint8 [N, 128, 128, 4]."""
    out = []
    for part in np.array_split(portraits, max(1, len(portraits) // 32)):
        x = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255
        mask = x[:, 3:]
        # What is black in the portrait is grey in -1..1: the mask takes care of it.
        out.append(model.encoder(torch.cat([x[:, :3] * 2 - mask, mask], 1)).float())
    return torch.cat(out)


def lengths(space: HeadSpace) -> Tensor:
    """How far down the hair of each weight reaches, from the crown, in millimetres [styles];
    0 for bald."""
    n = space.styles
    side = space.hair_distance.shape[-1]
    y = torch.linspace(float(space.bounds[0, 1]), float(space.bounds[1, 1]), side)
    skin = F.interpolate(
        space.skin_distance[None, None], (side,) * 3, mode="trilinear", align_corners=True
    )[0, 0]
    found = torch.zeros(n)
    for style in range(n - 1):
        mass = space.hair(torch.eye(n)[style])[0]
        rows = ((mass < 0) & (skin > 0.004)).any(2).any(0)
        found[style] = (y[rows].max() - y[rows].min()) * 1e3 if rows.any() else 0
    return found


class Attributes:
    """Measures codes: numbers by name, lengths in millimetres."""

    def __init__(self, model: DefaultModel) -> None:
        self.model, space = model, model.space
        self.lengths = lengths(space)
        self.rest = space.landmarks(space.mean) * 1e3
        self.bases = [  # what a coefficient does to the landmarks [K, 84, 3]
            (basis[:, space.landmark_index] * space.landmark_weight[..., None]).sum(2) * 1e3
            for basis in (space.identity, space.expression)
        ]
        p = space.mean[(space.mean[:, 2] > FACE_BEFORE) & (space.mean[:, 1] < FACE_BELOW)]
        p = p[p[:, 1] > -0.09]
        x, y = p[:, 0].abs(), p[:, 1]
        self.cheeks = p[(x > CHEEKS[0]) & (x < CHEEKS[1]) & (y > -0.025) & (y < 0.0)]
        chin = (y < -0.058) & (x < 0.035) & (p[:, 2] > 0.07)
        lip = (y > -0.040) & (y < -0.031) & (x < 0.018)
        self.bearded = p[chin | lip]
        self._painted: dict[bytes, tuple[float, float]] = {}

    def landmarks(self, identity: Tensor, expression: Tensor | None = None) -> Tensor:
        """[..., 84, 3] of coefficients [..., K]; without an expression, the calm face's."""
        out = self.rest + torch.tensordot(identity, self.bases[0], 1)
        return out if expression is None else out + torch.tensordot(expression, self.bases[1], 1)

    def shape(self, identity: Tensor, expression: Tensor) -> dict[str, Tensor]:
        """Of coefficients [..., K]: lengths of the calm face, what the expression does."""
        rest, now = self.landmarks(identity), self.landmarks(identity, expression)
        return shape_attributes(rest) | face_attributes(now, rest)

    @torch.no_grad()
    def __call__(self, parts: Parts) -> dict[str, float]:
        """All of one code's parts."""
        tone, bearded = self._colours(parts.ws)
        found = {k: float(v) for k, v in self.shape(parts.identity, parts.expression).items()}
        return found | {
            "skin tone": tone,
            "beard": 1 - bearded / max(tone, 1e-3),
            "hair length": float(parts.hair @ self.lengths),
        }

    def _colours(self, ws: Tensor) -> tuple[float, float]:
        """Median luma of the cheeks, and of where beards grow; kept, since many codes share w+."""
        key = ws.numpy().tobytes()
        if key not in self._painted:
            planes = self.model.generator.planes(ws[None])
            points = torch.cat([self.cheeks, self.bearded])
            luma = self.model.generator(planes, points[None])[0][0] @ torch.tensor(LUMA).float()
            cheeks, bearded = luma.split([len(self.cheeks), len(self.bearded)])
            self._painted[key] = float(cheeks.median()), float(bearded.median())
        return self._painted[key]


def _apart(p: Tensor, a: int, b: int) -> Tensor:
    return (p[..., a, :] - p[..., b, :]).norm(dim=-1)


def shape_attributes(rest: Tensor) -> dict[str, Tensor]:
    """Of the landmarks [..., 84, 3] without expression."""
    return {
        "face width": _apart(rest, 1, 15),
        "nose size": _apart(rest, 27, 30) + _apart(rest, 30, 33),
        "nose width": _apart(rest, 31, 35),
        "jaw": _apart(rest, 4, 12),
    }


def _lids(p: Tensor) -> Tensor:
    return _above(p, ((37, 41), (38, 40), (43, 47), (44, 46)))


def _above(p: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """How far, on average, the first of each pair lies over the second."""
    first, second = zip(*pairs)
    return (p[..., first, 1] - p[..., second, 1]).mean(-1)


def _corners(p: Tensor) -> Tensor:
    lift = p[..., [48, 54], 1].mean(-1) - p[..., [51, 57], 1].mean(-1)
    return lift + _apart(p, 48, 54) / 2


def face_attributes(now: Tensor, rest: Tensor) -> dict[str, Tensor]:
    """What the expression does to the landmarks [..., 84, 3]: smile: how far the mouth's corners
    rise over its middle and go outwards; mouth open: how much further the inner lips are apart,
    upright; eyes closed: the share of the lids' upright gap that is gone."""
    return {
        "smile": _corners(now) - _corners(rest),
        "mouth open": _above(now, ((62, 66),)) - _above(rest, ((62, 66),)),
        "eyes closed": 1 - _lids(now) / _lids(rest).clamp_min(1e-6),
    }


def skin_tones(portraits: np.ndarray) -> np.ndarray:
    """Luma of the cheeks in portraits uint8 [N, 128, 128, 4], 0..1: where the alignment has them
    (upper corners of two boxes, rows and columns)."""
    boxes = [portraits[:, 74:82, x : x + 7, :3] for x in (47, 74)]
    return np.median(np.concatenate(boxes, 2) @ LUMA / 255, (1, 2))
