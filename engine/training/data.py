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
from engine.portrait.align import alignment_matrix
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
    to the display colours; heads: (shard, prep, index).
    """

    picture: Tensor
    classes: Tensor
    landmarks: Tensor
    pose: Tensor
    tone: Tensor
    heads: list[tuple[dict, dict, int]]


def pose_of(camera_vector: np.ndarray, matrix: np.ndarray, size_in: int) -> np.ndarray:
    """Pose numbers [6] of a camera after the crop `matrix` (see Perception.pose)."""
    camera = from_eg3d(camera_vector, size_in, size_in)
    # float32 storage: make square again before the exact check in transformed_image
    k = camera.intrinsics.copy()
    k[1, 1] = k[0, 0]
    camera = type(camera)(camera.cam2world, k, size_in, size_in).transformed_image(
        matrix, SIZE, SIZE
    )
    back = -camera.cam2world[:3, 2]
    yaw, pitch = math.atan2(back[0], back[2]), math.asin(float(np.clip(back[1], -1, 1)))
    level = np.array([math.cos(yaw), 0, -math.sin(yaw)])  # x axis of an unrolled camera
    up = np.cross(back, level)
    roll = math.atan2(camera.cam2world[:3, 0] @ up, camera.cam2world[:3, 0] @ level)
    (uv,), (z,) = camera.project(np.zeros((1, 3)))
    return np.array(
        [yaw, pitch, roll, uv[0] / SIZE, uv[1] / SIZE, math.log(z / camera.intrinsics[1, 1])],
        np.float32,
    )


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
) -> Portraits:
    """A batch of aligned input pictures with their truth. `indices`: these heads, view 1, instead
    of random ones."""
    heads = [
        shards.pick(rng) if indices is None else shards.at(i) for i in (indices or range(count))
    ]
    views = [int(rng.integers(3)) if indices is None else 1 for _ in heads]
    size = heads[0][0]["input_rgba"].shape[2]
    rgba = np.stack([s["input_rgba"][i, v] for (s, _, i), v in zip(heads, views)])
    rgba = rgba.astype(np.float32) / 255
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
    inverse = np.linalg.inv(np.stack(matrices))
    alpha = rgba[..., 3:]
    scene = rgba[..., :3] * alpha + _background(rng, len(heads), size) * (1 - alpha)
    centres = np.arange(SIZE, dtype=np.float32) + 0.5
    grid = np.stack([*np.meshgrid(centres, centres), np.ones((SIZE, SIZE), np.float32)], -1)
    grid = np.einsum("bij,hwj->bhwi", inverse[:, :2], grid) / size * 2 - 1
    grid = torch.from_numpy(grid.astype(np.float32))
    source = torch.from_numpy(np.concatenate([scene, labels[..., None]], -1)).permute(0, 3, 1, 2)
    picture = F.grid_sample(
        source[:, :3].contiguous(), grid, padding_mode="reflection", align_corners=False
    )
    classes = F.grid_sample(
        source[:, 3:].contiguous().float(),
        grid,
        mode="nearest",
        padding_mode="reflection",
        align_corners=False,
    )[:, 0].long()
    one = np.ones((*marks.shape[:2], 1))
    moved = np.einsum("bij,bkj->bki", np.stack(matrices), np.concatenate([marks, one], -1))
    pose = np.stack(
        [
            pose_of(s["input_camera"][i, v], m, size)
            for (s, _, i), v, m in zip(heads, views, matrices)
        ]
    )
    tone = torch.ones(len(heads), 3, 2)
    if augment:
        picture, tone = _photograph(picture, rng)
    return Portraits(
        picture * 2 - 1,
        classes,
        torch.from_numpy(moved[..., :2]).float() / SIZE,
        torch.from_numpy(pose),
        tone,
        heads,
    )


def _jitter(rng: np.random.Generator) -> np.ndarray:
    """A small similarity about the crop's centre."""
    angle, scale = rng.normal() * 0.05, math.exp(rng.normal() * 0.05)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    shift = rng.normal(size=2) * 0.02 * SIZE + SIZE / 2
    m = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    m[:2, 2] = shift - m[:2, :2] @ [SIZE / 2, SIZE / 2]
    return m


def apply_tone(rgb: Tensor, tone: Tensor) -> Tensor:
    """Display colours [B, 3, ...] through the gain and gamma of tone [B, 3, 2]."""
    shape = (*tone.shape[:2], *(1,) * (rgb.ndim - 2))
    return (rgb.clamp(0, 1) ** tone[..., 1].reshape(shape) * tone[..., 0].reshape(shape)).clamp(
        0, 1
    )


def _photograph(x: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """What cameras do to a picture [B, 3, H, W] in 0..1: exposure, white balance, contrast, blur,
    noise, block artefacts, occluders, grey. Returns it and the tone curve used."""
    b = len(x)
    gain = np.exp(rng.normal(size=(b, 1)) * 0.14 + rng.normal(size=(b, 3)) * 0.05)
    gamma = np.exp(rng.normal(size=(b, 1)) * 0.14) * np.ones((1, 3))
    tone = torch.from_numpy(np.stack([gain, gamma], -1).astype(np.float32))
    x = apply_tone(x, tone)
    out = []
    for p in x:
        if rng.random() < 0.5:  # soft focus or a small original
            small = int(SIZE * rng.uniform(0.3, 1))
            p = F.interpolate(p[None], (small, small), mode="area")
            p = F.interpolate(p, (SIZE, SIZE), mode="bilinear", align_corners=False)[0]
        if rng.random() < 0.15:
            p = p.mean(0, keepdim=True).expand(3, -1, -1)
        if rng.random() < 0.12:
            w, h = (int(SIZE * v) for v in rng.uniform(0.08, 0.35, 2))
            x0, y0 = (int(v) for v in rng.integers(0, SIZE - 10, 2))
            p = p.clone()
            p[:, y0 : y0 + h, x0 : x0 + w] = torch.from_numpy(
                rng.random((3, 1, 1), dtype=np.float32)
            )
        if rng.random() < 0.6:
            noise = rng.normal(size=(3, SIZE, SIZE)).astype(np.float32) * rng.uniform(0, 0.05)
            p = p + torch.from_numpy(noise)
        out.append(p)
    return torch.stack(out).clamp(0, 1), tone
