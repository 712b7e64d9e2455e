"""How near heads from seeds come to rendered ones, on features of our own network.

Features: what the perception network's last downward block (4 x 4 places, `down[-1]`) says of a
128-pixel picture, averaged over its places. The network was trained on synthetic portraits only,
so that distances compare our own versions with each other, and with nobody else's FID.

Rendered heads are held-out people, tidied and lit as those that heads from seeds are made after
(prior_data.py: even light, straight neck and gaze, no glasses, closed lips), cut at the bust, and
seen through the sampler's own camera. Both kinds stand before mid grey, with yaws from a normal
distribution of 20 degrees' spread, 50 at most, and pitches of 8, as portraits are.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from engine.cameras import Camera
from engine.headspace import lattice
from engine.portrait.perception import PerceptionNet
from engine.sampling.builtin import BuiltInSampler
from engine.training.build_headspace import bust_cut
from engine.training.heads.build import build, head_rng
from engine.training.heads.dataset import HELD_OUT
from engine.training.heads.sampler import sample_params
from engine.training.heads.scene import Scene
from engine.training.metrics import frechet, precision_recall
from engine.training.prior_data import even_light, tidy
from engine.training.truth import Truths

SIZE = 128
GREY = 0.5
PSIS = {"psi 1": 1.0, "psi 0.7": 0.7}
REAL = {"held-out": HELD_OUT, "training": 0}  # rendered heads' first seeds
SETS = (*REAL, *PSIS)


def view_of(seed: int, sampler: BuiltInSampler) -> Camera:
    """The camera that a head of this number is seen through, whatever set it is of."""
    rng = np.random.default_rng([7, seed])
    yaw = float(np.clip(rng.normal() * 20, -50, 50))
    return sampler.camera(yaw, float(np.clip(rng.normal() * 8, -25, 25)), SIZE)


def rendered(truths: Truths, seed: int, camera: Camera) -> np.ndarray:
    """A person of the sampler before grey, float32 [128, 128, 3] in 0..1."""
    head = build(truths.pack, tidy(sample_params(truths.pack, head_rng(seed, 0))))
    view = Scene(truths.studio, head, even_light()).view(camera, dressed=False)
    alpha = view.rgba[..., 3] / 255.0
    solid = (alpha > 0.5) & (view.depth > 0)
    origin, directions = camera.rays()
    d = directions[solid]
    points = origin + d * (view.depth[solid] / (d @ camera.cam2world[:3, 2]))[:, None]
    points = torch.from_numpy(points.astype(np.float32))
    bounds = truths.space.bounds
    q = points + lattice.settle(truths.canonical(head.skin, head.neutral), points, bounds, 6)
    cut = np.zeros_like(solid)
    cut[solid] = bust_cut(q.numpy()).ravel() >= 0.002
    alpha[cut | (ndimage.binary_dilation(cut, iterations=2) & ~solid)] = 0  # and its soft rim
    rgb = view.rgba[..., :3] / 255.0
    return (rgb * alpha[..., None] + GREY * (1 - alpha[..., None])).astype(np.float32)


@torch.no_grad()
def sampled(sampler: BuiltInSampler, seed: int, psi: float, camera: Camera) -> np.ndarray:
    """A head from a seed before grey, float32 [128, 128, 3] in 0..1."""
    picture = sampler.picture(sampler.map(sampler.z(seed), psi), camera)
    alpha = picture.alpha[..., None] / 255.0
    return (picture.image / 255.0 * alpha + GREY * (1 - alpha)).astype(np.float32)


@torch.no_grad()
def pooled(net: PerceptionNet, pictures: np.ndarray) -> np.ndarray:
    """Features float32 [N, D] of pictures [N, 128, 128, 3] in 0..1, see the top of this file."""
    found: list[Tensor] = []
    hook = net.down[-1].register_forward_hook(lambda _, __, out: found.append(out.mean((2, 3))))
    try:
        net(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() * 2 - 1)
    finally:
        hook.remove()
    return found[0].float().numpy()


def head_features(kind: str, seeds: range, truths: Truths, sampler: BuiltInSampler) -> np.ndarray:
    """Features [N, D] of some heads of one of SETS, by their numbers 0, 1, 2, ..."""
    pictures = []
    for seed in seeds:
        camera = view_of(seed, sampler)
        if kind in REAL:
            pictures.append(rendered(truths, REAL[kind] + seed, camera))
        else:
            pictures.append(sampled(sampler, seed, PSIS[kind], camera))
    return pooled(sampler.model.perception, np.stack(pictures))


def distances(found: dict[str, np.ndarray]) -> dict[str, dict]:
    """Of the features [N, D] of each of SETS: frechet, precision and recall against the held-out
    heads. Those of `training`, rendered like them, are what a perfect sampler would reach."""
    out, real = {}, found["held-out"]
    for kind in SETS[1:]:
        precision, recall = precision_recall(real, found[kind])
        out[kind] = {
            "heads": len(found[kind]),
            "frechet": round(frechet(found[kind], real), 4),
            "precision": round(precision, 3),
            "recall": round(recall, 3),
        }
    return out
