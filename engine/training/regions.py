"""What one portrait shows of a head from other sides, and what it leaves to be invented.

A case is a held-out synthetic head, a portrait of it from a given yaw, and views from all round
with, for every pixel, whether the portrait shows that point of the surface: its place there, by
both depth maps, is not behind anything (garment, glasses, another part of the head).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from engine.cameras import Camera, orbit
from engine.headspace.space import HeadSpace
from engine.inversion.shape import Shape
from engine.portrait.image import Photo
from engine.portrait.perception import PerceptionNet
from engine.surface.metrics import iou, psnr
from engine.training.data import _background, five_points
from engine.training.heads.dataset import _packed, lit_head
from engine.training.heads.parts import HAIR, SKIN
from engine.training.heads.scene import View as Drawn
from engine.training.heads.views import INPUT_TARGET, TARGET_FOV, TARGET_SIZE, distance
from engine.training.metrics import similarity, ssim_map
from engine.training.truth import DISTANCE, PORTRAIT, Truth, Truths, View

YAWS = (0, 30, -30, 60, -60, 90, -90, 180)  # degrees, of the views; positive: the subject's left
EXTENT, PITCH = 0.41, 3.0  # metres in the portrait's height at the head's origin; degrees
BEHIND = 0.008  # metres behind what the portrait shows: hidden
GREY = 0.5
REGIONS = ("all", "visible", "hidden")
LEAST = 60  # pixels of a region in a view for it to count


@dataclass(frozen=True)
class Case:
    """A head, its portrait (in `truth`) from `yaw` degrees, views at YAWS, and for each of those
    the pixels of the head that the portrait shows, bool [128, 128]."""

    yaw: float
    truth: Truth
    visible: list[np.ndarray]


def case(truths: Truths, seed: int, yaw: float, material: int | None = None) -> Case:
    """A head from a yaw, in the light of its seed, before a random background. material: of the
    head, None for the seed's own."""
    lit = lit_head(truths.pack, truths.studio, seed, material)
    head, scene = lit.head, lit.scene
    radius = distance(EXTENT, TARGET_FOV)
    turn, pitch = np.radians([yaw, PITCH])
    camera = orbit(turn, pitch, radius, TARGET_FOV, INPUT_TARGET, PORTRAIT, PORTRAIT)
    portrait = scene.view(camera, dressed=True)
    rgba = portrait.rgba.astype(np.float32) / 255
    behind = _background(np.random.default_rng(seed), 1, PORTRAIT)[0]
    rgb = rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])
    shown = np.where(np.isin(portrait.labels, (SKIN, HAIR)), portrait.rgba[..., 3], 0)
    size = TARGET_SIZE
    around = [orbit(np.radians(y), 0.0, DISTANCE, TARGET_FOV, (0, 0, 0), size, size) for y in YAWS]
    drawn = [scene.view(c, dressed=False) for c in around]
    depth = np.stack([v.depth for v in drawn])
    shard = {
        "target_rgb": np.stack([v.rgba[..., :3] for v in drawn]),
        "target_alpha": np.stack([v.rgba[..., 3] for v in drawn]),
        "target_class": np.stack([v.labels for v in drawn]),
        "target_depth": np.where(depth > 0, depth - DISTANCE, 0),
        "target_camera": np.stack([c.to_eg3d() for c in around]),
        "skin": _packed(head.skin),
        "neutral": _packed(head.neutral),
    }
    truth = Truth(
        seed,
        Photo((rgb * 255).astype(np.uint8), None, f"{seed}"),
        five_points(camera.project(head.landmarks)[0]),
        camera,
        shown.astype(np.uint8),
        head.landmarks.astype(np.float64),
        truths._views({key: value[None] for key, value in shard.items()}),
    )
    return Case(yaw, truth, [seen_by(view, camera, portrait) for view in truth.views])


def to_true(space: HeadSpace, shape: Shape, truth: Truth) -> np.ndarray:
    """One portrait leaves size, distance and origin open: the similarity [4, 4], by the landmarks,
    that brings a made head of a shape to the true one."""
    return similarity(shape.landmarks(space).numpy().astype(float), truth.landmarks)


def on_grey(true: View) -> np.ndarray:
    """A true view before GREY, which the body beyond the head is, too: [H, W, 3]."""
    solid = true.alpha[..., None]
    return np.where(true.beyond[..., None], GREY, true.rgb * solid + GREY * (1 - solid))


def seen_by(view: View, camera: Camera, portrait: Drawn) -> np.ndarray:
    """Pixels of a view's head that the portrait's camera sees, bool [H, W]."""
    origin, directions = view.camera.rays()
    along = directions[view.head]
    far = view.depth[view.head] / (along @ view.camera.cam2world[:3, 2])
    points = origin + far[:, None] * along
    places, depth = camera.project(points)
    column, row = np.floor(places).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
    nearest = np.where(portrait.depth > 0, portrait.depth, -np.inf)
    # The farthest of a few pixels, as outlines are uncertain by one of the view's own pixels.
    nearest = ndimage.maximum_filter(nearest, 5)
    clear = np.zeros(len(points), bool)
    clear[inside] = depth[inside] < nearest[row[inside], column[inside]] + BEHIND
    out = np.zeros_like(view.head)
    out[view.head] = clear
    return out


@torch.no_grad()
def feature_map(net: PerceptionNet, made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """How different two pictures [128, 128, 3] in 0..1 look to our perception network, float32
    [128, 128]: squared distances of its features at 64, 32 and 16 pixels, each normalised to
    length 1, enlarged and averaged over the three.

    Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric",
    equation 1, with all weights 1, and with a network that has seen synthetic heads only.
    """
    x = torch.from_numpy(np.stack([made, true])).permute(0, 3, 1, 2).float() * 2 - 1
    total = torch.zeros(1, 1, *made.shape[:2])
    for level in net.encode(x)[0][1:4]:
        level = F.normalize(level.float(), dim=1)
        off = (level[:1] - level[1:]).square().sum(1, keepdim=True)
        total += F.interpolate(off, made.shape[:2], mode="bilinear") / 3
    return total[0, 0].numpy()


def compare_regions(
    net: PerceptionNet, true: View, visible: np.ndarray, image: np.ndarray, alpha: np.ndarray,
    depth: np.ndarray,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """One view's figures by region (of REGIONS) of the true head's pixels; regions with fewer than
    LEAST pixels are left out.

    image [128, 128, 3] in 0..1: the made head before GREY; alpha, depth (metres, in the true
    head's scale) [128, 128]. psnr (dB); ssim; features (see feature_map); depth (mm, mean absolute
    difference where both are); iou (of `all` only): of the outlines.
    """
    picture = on_grey(true)
    mine = (alpha > 0.5) & ~true.beyond
    hushed = np.where(true.beyond[..., None], GREY, image)
    alike = ssim_map(hushed, picture).mean(-1)
    different = feature_map(net, hushed, picture)
    off = np.abs(depth - true.depth) * 1e3
    out = {}
    for name, region in zip(REGIONS, (true.head, true.head & visible, true.head & ~visible)):
        if region.sum() < LEAST:
            continue
        both = region & mine
        out[name] = {
            "psnr": psnr(hushed.astype(float), picture.astype(float), region),
            "ssim": float(alike[region].mean()),
            "features": float(different[region].mean()),
            "depth": float(off[both].mean()) if both.any() else float("nan"),
        }
    if "all" in out:
        out["all"]["iou"] = iou(mine, true.head)
    return out
