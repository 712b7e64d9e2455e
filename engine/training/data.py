"""Batches of aligned synthetic portraits, augmented like photos (training only)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import from_eg3d
from engine.headspace.mirror import mirror_landmarks, mirror_pose
from engine.inversion.pose import FOCAL
from engine.portrait.align import alignment_matrix
from engine.training.degrade import apply_tone as apply_tone
from engine.training.degrade import degrade
from engine.training.heads.dataset import HELD_OUT, load_shard

SIZE = 128  # of the networks' pictures
WIDEN = 1.25  # our square against FFHQ's: holds the hair, see engine/portrait/align.py
# The five points of the alignment among the 84 landmarks, in MTCNN's order.
FIVE = {
    "right_eye": range(36, 42),
    "left_eye": range(42, 48),
    "nose": (30,),
    "right_mouth": (48,),
    "left_mouth": (54,),
}


class Shards:
    """All finished shards of a folder; training seeds or held-out ones."""

    def __init__(self, folder: Path, held_out: bool = False) -> None:
        self.folder, self.held_out = folder, held_out
        self.items: list[tuple[int, dict, dict]] = []  # (heads, shard, prep)
        self._names: set[str] = set()
        self.refresh()

    def refresh(self) -> int:
        """Takes in shards that have been finished since; returns the number of heads."""
        for prep in sorted(self.folder.glob("prep_*.npz")):
            first = int(prep.stem.split("_")[1])
            if prep.name in self._names or (first >= HELD_OUT) != self.held_out:
                continue
            shard = load_shard(prep.with_name(prep.name.replace("prep_", "heads_")))
            self.items.append((len(shard["seed"]), shard, load_shard(prep)))
            self._names.add(prep.name)
        return sum(n for n, _, _ in self.items)

    def pick(self, rng: np.random.Generator) -> tuple[dict, dict, int]:
        """(shard, prep, index) of a random head."""
        n, shard, prep = self.items[rng.integers(len(self.items))]
        return shard, prep, int(rng.integers(n))

    def at(self, k: int) -> tuple[dict, dict, int]:
        """The k-th head."""
        for n, shard, prep in self.items:
            if k < n:
                return shard, prep, k
            k -= n
        raise IndexError(k)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """The detector's five points [5, 2] of 84 landmarks [84, 2]."""
    return np.stack([landmarks[list(i)].mean(0) for i in FIVE.values()])


@dataclass
class Portraits:
    """A batch of aligned pictures with their truth.

    picture [B, 3, 128, 128] in -1..1; classes int64 [B, 128, 128] (0..4); landmarks [B, 84, 2] in
    0..1; pose [B, 6] as in Perception; tone [B, 3, 2]: gain and gamma per channel that were applied
    to the display colours; heads: (shard, prep, index); mirrored bool [B]: the picture, its
    classes, landmarks and pose are those of the head's mirror image (see engine.headspace.mirror).
    """

    picture: Tensor
    classes: Tensor
    landmarks: Tensor
    pose: Tensor
    tone: Tensor
    heads: list[tuple[dict, dict, int]]
    mirrored: Tensor


def pose_of(camera_vector: np.ndarray, matrix: np.ndarray, size_in: int) -> np.ndarray:
    """Pose numbers [6] of a camera after the crop `matrix` (see engine.inversion.pose).

    A crop is taken for a picture of a camera of its own: its axis through the crop's middle, its
    focal length the assumed one. So the numbers are those that show the head's origin at the same
    place, as large, and from the same direction, as the real camera does; off-centre crops and
    other focal lengths leave that direction as it is.
    """
    camera = from_eg3d(camera_vector, size_in, size_in)
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    c, s = matrix[0, 0] / scale, matrix[1, 0] / scale
    # The crop's turn is a turn of the camera about its axis.
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    looking = camera.cam2world[:3, :3] @ turn.T
    origin = looking.T @ -camera.cam2world[:3, 3]
    (uv,), _ = camera.project(np.zeros((1, 3)))
    place = (matrix[:2] @ [*uv, 1.0]) / SIZE
    # A pixel's height in the crop at the origin's distance; square pixels but for float32 storage.
    height = SIZE * origin[2] / (camera.intrinsics[0, 0] * size_in * scale)
    # Both cameras turned to look straight at the origin agree.
    seen = np.array([*(place - 0.5) / FOCAL, 1.0])
    rotation = looking @ _turn_to(origin) @ _turn_to(seen).T
    back = -rotation[:, 2]
    yaw, pitch = math.atan2(back[0], back[2]), math.asin(float(np.clip(back[1], -1, 1)))
    level = np.array([math.cos(yaw), 0, -math.sin(yaw)])  # x axis of an unrolled camera
    up = np.cross(back, level)
    roll = math.atan2(rotation[:, 0] @ up, rotation[:, 0] @ level)
    return np.array([yaw, pitch, roll, *place, math.log(height)], np.float32)


def _turn_to(direction: np.ndarray) -> np.ndarray:
    """The smallest rotation [3, 3] that takes +z to a direction [3] (not -z), by Rodrigues."""
    x, y, z = direction / np.linalg.norm(direction)
    k = np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])
    return np.eye(3) + k + k @ k / (1 + z)


def _background(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Gradients, blurred shapes and noise [count, size, size, 3] in 0..1: anything but people."""
    out = rng.random((count, 1, 1, 3), dtype=np.float32).repeat(size, 1).repeat(size, 2)
    for cells in (2, 4, 9, 22):
        amount = (rng.random((count, 1, 1, 1)) < 0.6) * rng.random((count, 1, 1, 1)) * 0.5
        noise = torch.from_numpy(rng.normal(size=(count, 3, cells, cells)).astype(np.float32))
        mode = "bilinear" if rng.random() < 0.6 else "nearest"
        noise = F.interpolate(noise, (size, size), mode=mode)
        out = out + amount.astype(np.float32) * noise.permute(0, 2, 3, 1).numpy()
    return out.clip(0, 1)


def portraits(
    shards: Shards,
    count: int,
    rng: np.random.Generator,
    augment: bool = True,
    indices: list[int] | None = None,
    mirror: bool = False,
) -> Portraits:
    """A batch of aligned input pictures with their truth.

    augment: crops off by the detector's error, and degrade(); indices: these heads, view 1, instead
    of random ones; mirror: every other one, by chance, is mirrored.
    """
    heads = [
        shards.pick(rng) if indices is None else shards.at(i) for i in (indices or range(count))
    ]
    views = [int(rng.integers(3)) if indices is None else 1 for _ in heads]
    size = heads[0][0]["input_rgba"].shape[2]
    rgba = torch.from_numpy(np.stack([s["input_rgba"][i, v] for (s, _, i), v in zip(heads, views)]))
    rgba = rgba.permute(0, 3, 1, 2).float() / 255
    rgba[:, :3] *= rgba[:, 3:]
    labels = np.stack([s["input_class"][i, v] for (s, _, i), v in zip(heads, views)])
    marks = np.stack([s["input_landmarks"][i, v] for (s, _, i), v in zip(heads, views)])
    matrices = []
    for k in range(len(heads)):
        points = five_points(marks[k])
        if augment:  # the detector's error, and crops a little off
            eyes = np.linalg.norm(points[0] - points[1])
            points = points + rng.normal(size=(5, 2)) * 0.035 * eyes
        m = alignment_matrix(points, SIZE, WIDEN)
        if augment:
            m = _jitter(rng) @ m
        matrices.append(m)
    mirrored = rng.random(len(heads)) < 0.5 if mirror else np.zeros(len(heads), bool)
    grid = _grid(np.linalg.inv(np.stack(matrices)), mirrored, size)
    seen = F.grid_sample(rgba, grid, padding_mode="reflection", align_corners=False)
    behind = torch.from_numpy(_background(rng, len(heads), SIZE)).permute(0, 3, 1, 2)
    if augment:
        behind = _paler(behind, rng)
    picture = seen[:, :3] + behind * (1 - seen[:, 3:])
    classes = F.grid_sample(
        torch.from_numpy(labels)[:, None].float(),
        grid,
        mode="nearest",
        padding_mode="reflection",
        align_corners=False,
    )[:, 0].long()
    one = np.ones((*marks.shape[:2], 1))
    moved = np.einsum("bij,bkj->bki", np.stack(matrices), np.concatenate([marks, one], -1))
    landmarks = torch.from_numpy(moved[..., :2]).float() / SIZE
    pose = torch.from_numpy(
        np.stack(
            [
                pose_of(s["input_camera"][i, v], m, size)
                for (s, _, i), v, m in zip(heads, views, matrices)
            ]
        )
    )
    flipped = torch.from_numpy(mirrored)
    landmarks[flipped] = mirror_landmarks(landmarks[flipped])
    pose[flipped] = mirror_pose(pose[flipped])
    tone = torch.ones(len(heads), 3, 2)
    if augment:
        picture, tone = degrade(picture, rng)
    return Portraits(picture * 2 - 1, classes, landmarks, pose, tone, heads, flipped)


def _paler(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Two in three of the pictures [B, 3, H, W] with less colour and contrast, as rooms have."""
    b = len(x)
    keep = np.where(rng.random((b, 1, 1, 1)) < 0.33, 1.0, rng.uniform(0, 1, (2, b, 1, 1, 1)))
    colour, contrast = torch.from_numpy(keep.astype(np.float32))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * colour
    middle = x.mean((2, 3), keepdim=True)
    return middle + (x - middle) * contrast


def _grid(inverse: np.ndarray, mirrored: np.ndarray, size: int) -> Tensor:
    """Where in a size x size picture the crops' pixels lie, as grid_sample takes them: inverse
    [B, 3, 3] crop pixels -> picture pixels, mirrored bool [B]."""
    to_pixels = np.array([[SIZE / 2, 0, SIZE / 2], [0, SIZE / 2, SIZE / 2], [0, 0, 1]])
    to_unit = np.array([[2 / size, 0, -1], [0, 2 / size, -1], [0, 0, 1]])
    theta = to_unit @ inverse @ to_pixels
    theta[mirrored, :, 0] *= -1
    theta = torch.from_numpy(theta[:, :2].astype(np.float32))
    return F.affine_grid(theta, [len(theta), 1, SIZE, SIZE], align_corners=False)


def _jitter(rng: np.random.Generator) -> np.ndarray:
    """A small similarity about the crop's centre."""
    angle, scale = rng.normal() * 0.05, math.exp(rng.normal() * 0.05)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    shift = rng.normal(size=2) * 0.02 * SIZE + SIZE / 2
    m = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    m[:2, 2] = shift - m[:2, :2] @ [SIZE / 2, SIZE / 2]
    return m
