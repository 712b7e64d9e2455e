"""Fits the fine detail of faces (engine/systems/head/detail.py) to close-ups of training heads."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from engine.cameras import orbit
from engine.checkpoints.default import DefaultModel
from engine.headspace import lattice
from engine.networks.planes import FRONT_BACK, GATE, sample_planes
from engine.systems.head.detail import CORNER, RESOLUTION, SIDE, window
from engine.training.heads.build import build, head_rng
from engine.training.heads.parts import SKIN
from engine.training.heads.sampler import sample_params
from engine.training.heads.scene import Scene
from engine.training.heads.views import distance
from engine.training.prior_data import Sitting, tidy

RANK, VARIATIONS = 8, 5
BROAD = 20.0  # texels, standard deviation
GAIN = 1.25
POINTS = 9000  # kept of each close-up
FOV = math.radians(18)


def closeup(sitting: Sitting, seed: int, identity: np.ndarray, expression: np.ndarray):
    """Canonical places [M, 3] and colours [M, 3] of bare skin in two close-ups of a seed's face."""
    space = sitting.model.space
    head = build(sitting.pack, tidy(sample_params(sitting.pack, head_rng(seed, 0))))
    scene = Scene(sitting.studio, head, sitting.light)
    moving = space.displacement(torch.from_numpy(identity), torch.from_numpy(expression))
    forward = lattice.blur(sitting.spread(moving))
    rng = np.random.default_rng(seed)
    places, colours = [], []
    for yaw in (0, 28 if seed % 2 else -28):
        camera = orbit(math.radians(yaw), 0, distance(0.19, FOV), FOV, (0, -0.012, 0.05), 256, 256)
        view = scene.view(camera, dressed=False)
        mask = (view.rgba[..., 3] > 250) & (view.depth > 0) & (view.labels == SKIN)
        origin, directions = camera.rays()
        rows = np.flatnonzero(mask.ravel())
        rows = rng.choice(rows, min(POINTS, len(rows)), replace=False)
        d = directions.reshape(-1, 3)[rows]
        t = view.depth.ravel()[rows] / (d @ camera.cam2world[:3, 2])
        p = torch.from_numpy((origin + d * t[:, None]).astype(np.float32))
        places.append(p + lattice.settle(forward, p, space.bounds, 6))
        colours.append(torch.from_numpy(view.rgba[..., :3].reshape(-1, 3)[rows]).float() / 255)
    return torch.cat(places), torch.cat(colours)


def fine(patch: np.ndarray) -> np.ndarray:
    """A patch [1 + V, r, SIDE, SIDE] without what is broader than BROAD, which is the generator's
    to paint and would end in a line at the patch's edge, and a little stronger, since eyes that
    are not quite at the same place have blurred it."""
    reach = int(3 * BROAD)
    kernel = torch.exp(-((torch.arange(-reach, reach + 1) / BROAD) ** 2) / 2)
    kernel = kernel / kernel.sum()
    x = torch.from_numpy(patch).flatten(0, 1)[:, None]
    smooth = F.pad(x, (reach,) * 4, mode="reflect")
    smooth = F.conv2d(F.conv2d(smooth, kernel[None, None, None]), kernel[None, None, :, None])
    return GAIN * (x - smooth)[:, 0].reshape(patch.shape).numpy()


def fit_detail(
    model: DefaultModel,
    sitting: Sitting,
    data: dict[str, np.ndarray],
    heads: int,
    steps: int,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The arrays of FaceDetail. data: people as build_prior keeps them."""
    torch.manual_seed(seed)
    picked = np.random.default_rng(seed).permutation(len(data["seed"]))[:heads]
    base, place, truth, owner = [], [], [], []
    for k, i in enumerate(picked):
        q, colour = closeup(
            sitting, int(data["seed"][i]), data["identity"][i], data["expression"][i]
        )
        with torch.no_grad():
            planes = model.generator.planes(torch.from_numpy(data["ws"][i])[None])
            base.append(sample_planes(planes, q[None] / 0.2)[0].half())
        place.append(q)
        truth.append(colour.half())
        owner.append(torch.full((len(q),), k))
    base, place, truth, owner = (torch.cat(x) for x in (base, place, truth, owner))
    gate = torch.sigmoid((place[:, 2] / 0.2 - FRONT_BACK) / GATE) / 3
    low = torch.tensor(CORNER) * 2 / RESOLUTION - 1
    unit = ((place[:, :2] / 0.2 - low) / (SIDE * 2 / RESOLUTION)) * 2 - 1
    mean_w = torch.from_numpy(data["ws"].mean(1))
    centre, scale = mean_w.mean(0), mean_w.std(0)
    w = mean_w[picked] - centre
    patch = torch.zeros(1 + VARIATIONS, RANK, SIDE, SIDE)
    patch[1:] = torch.randn(VARIATIONS, RANK, SIDE, SIDE) * 0.01
    patch.requires_grad_()
    channels = (torch.linalg.qr(torch.randn(base.shape[1], RANK))[0].T).clone().requires_grad_()
    follow = torch.randn(w.shape[1], VARIATIONS) / scale[:, None] / len(scale) ** 0.5
    follow = follow.requires_grad_()
    optimiser = torch.optim.Adam(
        [{"params": [patch], "lr": 0.03}, {"params": [channels], "lr": 0.005},
         {"params": [follow], "lr": 0.003}], betas=(0.9, 0.98))  # fmt: skip
    rates = [g["lr"] for g in optimiser.param_groups]
    edge = window()
    losses = []
    order = torch.argsort(owner, stable=True)
    starts = torch.searchsorted(owner[order], torch.arange(heads + 1))
    for step in range(steps):
        for g, rate in zip(optimiser.param_groups, rates, strict=True):
            g["lr"] = rate * min(1.0, (step + 1) / 20, 1.6 * (1 - step / steps))
        group = torch.randint(heads, (6,))
        total = torch.zeros(())
        amounts = torch.cat([torch.ones(6, 1), w[group] @ follow], 1)
        even = (patch + patch.flip(-1)) / 2  # two sides of a face have twice the examples
        maps = torch.einsum("bv,vrhw,rc->bchw", amounts, even, channels) * edge
        for b, k in enumerate(group):
            rows = order[starts[k] + torch.randint(int(starts[k + 1] - starts[k]), (5000,))]
            got = F.grid_sample(maps[b : b + 1], unit[rows][None, None], align_corners=False)
            features = base[rows].float() + gate[rows, None] * got[0, :, 0].T
            colour = model.generator.decoder(features)[0]
            error = (colour - truth[rows].float()).square().sum(1)
            total = total + (error + 1e-5).sqrt().mean() / 6
        rough = sum(
            (patch.narrow(a, 1, SIDE - 1) - patch.narrow(a, 0, SIDE - 1)).abs().mean()
            for a in (2, 3)
        )
        loss = total + 0.003 * rough + 1e-4 * patch.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(total.detach()))
        if step % 100 == 0:
            print(f"detail {step}: {np.mean(losses[-50:]):.4f}", flush=True)
    tensors = {
        "patch": (patch + patch.flip(-1)) / 2,
        "channels": channels,
        "follow": follow,
        "centre": centre,
    }
    return {k: v.detach().numpy() for k, v in tensors.items()}
