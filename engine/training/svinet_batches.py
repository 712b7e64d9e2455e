"""Batches of svinet_data.py's pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.training.heads.dataset import FinishedShards


@dataclass
class Pairs:
    """B views, all in 0..1, [B, 3, S, S] or [B, 1, S, S].

    warped, mirror: the photo and the mirrored one there, holes filled with render; visible,
    mirror_visible: how far they are seen; render, alpha: the field's own view, premultiplied on
    black; truth and where it is known; ws [B, n, w]; yaw [B] degrees; back bool [B]: the photo's
    own view, see svinet_data; fitted bool [B]: by the fast preset, not by the networks alone.
    """

    warped: Tensor
    visible: Tensor
    mirror: Tensor
    mirror_visible: Tensor
    render: Tensor
    alpha: Tensor
    truth: Tensor
    known: Tensor
    ws: Tensor
    yaw: Tensor
    back: Tensor
    fitted: Tensor

    @property
    def asked(self) -> Tensor:
        """How far each pixel is to be invented and its truth is known [B, 1, S, S]."""
        return self.known * (1 - self.visible)


class PairShards(FinishedShards):
    """Those of a folder's pairs, of all kinds."""

    def __init__(self, folder: Path, held_out: bool = False) -> None:
        super().__init__(folder, "svinet_*.npz", held_out)

    def places(self) -> list[tuple[int, int, int]]:
        """All views: (shard, head, view)."""
        return [
            (k, i, v)
            for k, shard in enumerate(self.items)
            for i in range(len(shard["seed"]))
            for v in range(shard["yaw"].shape[1])
        ]

    def batch(self, places: list[tuple[int, int, int]]) -> Pairs:
        """The views at some places."""
        maps: dict[str, Tensor] = {}
        for key in ("warped", "mirror", "render", "truth"):
            rows = np.stack([self.items[k][key][i, v] for k, i, v in places])
            maps[key] = torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255
        parts = {
            name: part
            for key, names in (
                ("warped", ("warped", "visible")),
                ("mirror", ("mirror", "mirror_visible")),
                ("render", ("render", "alpha")),
                ("truth", ("truth", "known")),
            )
            for name, part in zip(names, maps[key].split([3, 1], 1), strict=True)
        }
        ws = np.stack([self.items[k]["ws"][i] for k, i, _ in places])
        yaw = np.array([self.items[k]["yaw"][i, v] for k, i, v in places])
        last = [v == self.items[k]["yaw"].shape[1] - 1 for k, _, v in places]
        fitted = [bool(self.items[k]["fitted"][i]) for k, i, _ in places]
        return Pairs(
            **parts,
            ws=torch.from_numpy(ws),
            yaw=torch.from_numpy(yaw),
            back=torch.tensor(last),
            fitted=torch.tensor(fitted),
        )

    def random(self, count: int, rng: np.random.Generator) -> Pairs:
        """Random views of random heads, levelled() and varied: half of them mirrored, half in
        another tone. Fitted heads, which recipes have, are drawn five times as often as they are
        many."""
        places = []
        while len(places) < count:
            shard = int(rng.integers(len(self.items)))
            heads, views = self.items[shard]["yaw"].shape
            head, view = int(rng.integers(heads)), int(rng.integers(views))
            if self.items[shard]["fitted"][head] or rng.random() < 1 / 5:
                places.append((shard, head, view))
        return _toned(_flipped(levelled(self.batch(places)), rng), rng)


def levelled(pairs: Pairs) -> Pairs:
    """The pairs with the truth in the first fill's light: brought to its local mean over some seven
    centimetres, per colour. What lamp stands behind a head no photo tells; asked for it, a network
    learns nothing else. Of the photo's own views nothing is changed."""
    f, t = (F.avg_pool2d(x * pairs.asked, 8) for x in (pairs.warped, pairs.truth))
    for _ in range(2):
        f, t = (F.avg_pool2d(x, 7, 1, 3) for x in (f, t))
    gain = ((f + 1e-3) / (t + 1e-3)).clamp(0.4, 2.5)
    gain = F.interpolate(gain, pairs.truth.shape[-2:], mode="bilinear", align_corners=False)
    gain = torch.where(pairs.back[:, None, None, None], 1.0, gain)
    return replace(pairs, truth=(pairs.truth * gain).clamp(0, 1))


def _flipped(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """A head's mirror image is a head, too."""
    chosen = torch.from_numpy(rng.random(len(pairs.ws)) < 0.5)
    for name, value in vars(pairs).items():
        if value.ndim == 4:
            setattr(pairs, name, torch.where(chosen[:, None, None, None], value.flip(3), value))
    return pairs


def _toned(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """Photos, and with them the truth, in another exposure and white balance: than the render's
    where that has the generator's colours, together with it where it has been fitted."""
    count = len(pairs.ws)
    amount = (rng.random((count, 1)) < 0.5).astype(np.float32)
    gain = rng.normal(size=(count, 1)) * 0.12 + rng.normal(size=(count, 3)) * 0.05
    gain = torch.from_numpy(np.exp(amount * gain)).float()[:, :, None, None]
    gamma = torch.from_numpy(np.exp(amount * rng.normal(size=(count, 1)) * 0.12)).float()
    gamma = gamma[:, :, None, None]

    def tone(x: Tensor) -> Tensor:
        return (x.clamp(1e-4, 1) ** gamma * gain).clamp(0, 1)

    fitted = pairs.fitted[:, None, None, None]
    below = torch.where(fitted, tone(pairs.render) * (pairs.render > 0), pairs.render)
    for name in ("warped", "mirror"):
        seen = pairs.visible if name == "warped" else pairs.mirror_visible
        mixed = getattr(pairs, name)
        photo = pairs.render + (mixed - pairs.render) / seen.clamp_min(0.02)
        setattr(pairs, name, below + seen * (tone(photo.clamp(0, 1)) - below))
    pairs.render = below
    pairs.truth = tone(pairs.truth) * pairs.known
    return pairs
