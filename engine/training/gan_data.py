"""Batches of studio pictures (studio.py), and pictures painted at the places they show."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.systems.head.mapping import shape_vector
from engine.training.heads.dataset import SKIN_UNIT, FinishedShards


@dataclass(frozen=True)
class Sittings:
    """Heads and views of them. input [B, 4, 128, 128] as the encoder takes it; shape [B, D] as the
    mapping takes it; style [B], of hair; picture [B, V, 3, P, P] in -1..1, 0 where no head is;
    known bool [B, V, P, P]; place [B, V, P, P, 3] canonical metres; direction [B, V, 3] to the
    camera."""

    input: Tensor
    shape: Tensor
    style: Tensor
    picture: Tensor
    known: Tensor
    place: Tensor
    direction: Tensor

    def to(self, device: torch.device) -> Sittings:
        """The same on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class StudioShards(FinishedShards):
    """Those of a folder's sittings. styles: of hair."""

    def __init__(self, folder: Path, styles: int, held_out: bool = False) -> None:
        super().__init__(folder, "studio_*.npz", held_out)
        self.styles = styles

    def shapes(self) -> Tensor:
        """Shape vectors of all heads [N, D]."""
        return torch.cat([self._shape(s, np.arange(len(s["seed"]))) for s in self.items])

    def _shape(self, shard: dict, rows: np.ndarray) -> Tensor:
        hair = F.one_hot(torch.from_numpy(shard["hair"][rows].astype(np.int64)), self.styles)
        parts = (torch.from_numpy(np.array(shard[k][rows])) for k in ("identity", "expression"))
        return shape_vector(*parts, hair.float())

    def batch(self, heads: list[tuple[int, int]], views: list[list[int]]) -> Sittings:
        """heads: (shard, row); views: of each head, equally many."""
        out: dict[str, list] = {f.name: [] for f in fields(Sittings)}
        for (k, row), seen in zip(heads, views, strict=True):
            shard = self.items[k]
            place = shard["place"][row][seen]
            known = (place != 0).any(-1)
            rgb = np.where(known[..., None], shard["rgb"][row][seen] / np.float32(127.5) - 1, 0)
            source = shard["input"][row] / np.float32(255)
            source[..., :3] = source[..., :3] * 2 - source[..., 3:]  # -1..1 times the mask
            out["input"].append(source.transpose(2, 0, 1))
            out["shape"].append(self._shape(shard, np.array([row]))[0].numpy())
            out["style"].append(np.int64(shard["hair"][row]))
            out["picture"].append(rgb.transpose(0, 3, 1, 2).astype(np.float32))
            out["known"].append(known)
            out["place"].append(place.astype(np.float32) * np.float32(SKIN_UNIT))
            out["direction"].append(shard["direction"][row][seen])
        return Sittings(**{k: torch.from_numpy(np.stack(v)) for k, v in out.items()})

    def random(self, count: int, views: int, rng: np.random.Generator) -> Sittings:
        """Random heads, each from near the front and, for views > 1, from elsewhere."""
        heads, seen = [], []
        for _ in range(count):
            k = int(rng.integers(len(self.items)))
            heads.append((k, int(rng.integers(len(self.items[k]["seed"])))))
            rest = self.items[k]["rgb"].shape[1] - 1
            seen.append([0, *(1 + rng.permutation(rest)[: views - 1]).tolist()])
        return self.batch(heads, seen)

    def first(self, count: int) -> Sittings:
        """The first heads, all their views."""
        heads = [(k, i) for k, s in enumerate(self.items) for i in range(len(s["seed"]))][:count]
        return self.batch(heads, [list(range(self.items[0]["rgb"].shape[1]))] * len(heads))


class Canvas:
    """Where the pixels of some views are on heads: their points, and pictures made of colours.

    points [B, M, 3]: canonical, of all known pixels of a head's views, padded with zeros.
    """

    def __init__(self, known: Tensor, place: Tensor) -> None:
        """known bool [B, V, H, W]; place [B, V, H, W, 3]."""
        self.known = known
        flat = known.flatten(1)
        most, (b, n) = int(flat.sum(1).max()), flat.shape
        # Known pixels first, in their order; what pads a row is painted beside the picture.
        order = flat.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        real = flat.gather(1, order)
        self.index = torch.where(real, order, n)
        self.points = place.reshape(b, n, 3).gather(1, order[..., None].expand(-1, -1, 3))
        self.points = self.points * real[..., None]

    def paint(self, colour: Tensor) -> Tensor:
        """Colours [B, M, 3] in 0..1 of the points -> pictures [B, V, 3, H, W] in -1..1."""
        b, v, h, w = self.known.shape
        canvas = colour.new_zeros(b, v * h * w + 1, 3)
        canvas = canvas.scatter(1, self.index[..., None].expand(-1, -1, 3), colour * 2 - 1)
        return canvas[:, :-1].reshape(b, v, h, w, 3).permute(0, 1, 4, 2, 3)


def softened(picture: Tensor, known: Tensor) -> Tensor:
    """What the raw planes should show at every second pixel: pictures [B, 3, P, P] smoothed with
    [1, 2, 1] where known [B, P, P] -> [B, 3, P / 2, P / 2]."""
    taps = torch.tensor([1.0, 2.0, 1.0], device=picture.device)
    kernel = torch.outer(taps, taps)[None, None]
    mask = known[:, None].float()
    weight = F.conv2d(mask, kernel, stride=2, padding=1)
    total = F.conv2d((picture * mask).flatten(0, 1)[:, None], kernel, stride=2, padding=1)
    total = total.unflatten(0, picture.shape[:2])[:, :, 0]
    return total / weight.clamp_min(1) * mask[:, :, ::2, ::2]
