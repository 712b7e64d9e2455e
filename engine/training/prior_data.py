"""Training heads as the head model's own numbers, for the prior.

Each training seed's person is built again from the head data pack, tidied as a portrait should be
(looking straight ahead on a straight neck, no glasses, mouth closed, even light), and turned into
what the head model speaks: identity and expression by least squares, the hair style, and the w+
that paints the head best from all round: the shipped encoder's, moved by gradient descent at the
head's true geometry. The shards' own portraits would not do: their casts and shadows, turned necks
and open mouths are right for teaching a network, but nobody wants them in a new head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.cameras import orbit
from engine.checkpoints.default import DefaultModel
from engine.headspace import lattice
from engine.portrait.align import alignment_matrix
from engine.training.build_headspace import (
    Binding,
    bust_cut,
    described,
    sample_pair,
    vertex_weight,
)
from engine.training.data import SIZE, five_points
from engine.training.heads.build import Head, build, head_rng
from engine.training.heads.dataset import hair_index
from engine.training.heads.lighting import (
    DIRECTIONS,
    SOLID_ANGLE,
    Light,
    _key,
    _spherical_harmonics,
)
from engine.training.heads.pack import Pack
from engine.training.heads.parts import HAIR, SKIN
from engine.training.heads.sampler import sample_params
from engine.training.heads.scene import Scene, Studio
from engine.training.heads.textures import Atlas
from engine.training.heads.views import TARGET_EXTENT, TARGET_FOV, distance

# Expressions of closed lips and open eyes, and how much of each is kept.
CLOSED = {"neutral": 1.0, "smile": 0.7, "angry": 0.5, "sad": 0.5, "smirk": 0.6}
YAWS = (0, 35, -35, 80, -80, 130, -130, 180)  # degrees: the views that w+ is fitted to
VIEW = 128


def natural(params: dict) -> bool:
    """Whether the hair's colour grows on people: dyed ones would bleed into everybody's."""
    r, g, b = params["hair_colour"]
    return r >= 0.9 * g and g >= 0.85 * b


@dataclass
class Person:
    """One training head: identity [64], expression [20], style (hair weight), male, encoded w+
    [n, w]; canonical places [M, 3] and display colours [M, 3] in 0..1 of its views' pixels, front
    views first, and how many of them each view has."""

    identity: np.ndarray
    expression: np.ndarray
    style: int
    male: bool
    ws: Tensor
    place: Tensor
    colour: Tensor
    counts: list[int]


def even_light() -> Light:
    """A bright overcast sky with a broad soft lamp in front: no hard shadow, some modelling."""
    d = DIRECTIONS
    lamp = np.array([0.0, 0.5, 0.866])
    env = np.ones(3) * (0.62 + 0.2 * d[..., 1:2]) + 0.75 * np.exp(2.5 * (d @ lamp - 1))[..., None]
    w = np.clip(d[..., 2] * 0.8 + d[..., 1] * 0.4 + 0.3, 0, None) * SOLID_ANGLE
    env = (env / ((env * w[..., None]).sum((0, 1)) / w.sum()).mean()).astype(np.float32)
    return Light(env, _spherical_harmonics(env), _key(env))


def tidy(params: dict) -> dict:
    """A sampled person as one would sit for a portrait."""
    keep = CLOSED.get(params["expression_name"], 0.0)
    return params | {
        "expression": {k: v * keep for k, v in params["expression"].items()},
        "gaze": [0.0, 0.0],
        "neck": [0.0, 0.0, 0.0],
        "glasses": None,
    }


class Sitting:
    """Makes persons of seeds. mean_heads: as --heads of build_headspace (the template's mean)."""

    def __init__(self, model: DefaultModel, pack: Pack, mean: np.ndarray) -> None:
        self.model, self.pack, self.studio = model, pack, Studio(Atlas(pack))
        space = model.space
        vertices, faces = space.mean.numpy(), space.faces.numpy()
        self.bind = Binding(pack, mean, vertices, faces)
        self.weight = vertex_weight(vertices)
        self.spread = lattice.Spread(space.mean, space.bounds, 48)
        self.light = even_light()

    def person(self, seed: int) -> Person:
        """The head of a seed, tidied, with its w+ as the encoder reads its portrait."""
        params = tidy(sample_params(self.pack, head_rng(seed, 0)))
        head = build(self.pack, params)
        identity, expression, style = self.describe(head)
        scene = Scene(self.studio, head, self.light)
        place, colour = self._surface(scene, identity, expression)
        return Person(
            identity,
            expression,
            style,
            params["gender"] > 0.5,
            self._encode(scene, head.landmarks),
            torch.cat(place),
            torch.cat(colour),
            [len(p) for p in place],
        )

    def describe(self, head: Head) -> tuple[np.ndarray, np.ndarray, int]:
        """Identity, expression (coefficients) and hair (index of its weight) of a head."""
        bases = self.model.space.identity.numpy(), self.model.space.expression.numpy()
        fits = described(bases, self.weight, self.bind, head.skin, head.neutral)
        return *fits, hair_index(head.params, self.pack.hairs)

    def _encode(self, scene: Scene, landmarks: np.ndarray) -> Tensor:
        """w+ [n, w] of the frontal portrait."""
        camera = orbit(0, 0, distance(0.42, TARGET_FOV), TARGET_FOV, (0, -0.005, 0), 176, 176)
        view = scene.view(camera, dressed=False)
        m = alignment_matrix(five_points(camera.project(landmarks)[0]), SIZE, 1.25)
        back = np.linalg.inv(m)
        centres = np.arange(SIZE, dtype=np.float32) + 0.5
        grid = np.stack([*np.meshgrid(centres, centres), np.ones((SIZE, SIZE))], -1)
        grid = torch.from_numpy((grid @ back[:2].T / 176 * 2 - 1).astype(np.float32))
        mask = np.isin(view.labels, (SKIN, HAIR)) * (view.rgba[..., 3] / 255.0)
        rgb = view.rgba[..., :3] / 127.5 - 1
        source = np.concatenate([rgb * mask[..., None], mask[..., None]], -1).astype(np.float32)
        source = torch.from_numpy(source).permute(2, 0, 1)[None]
        with torch.no_grad():
            return self.model.encoder(F.grid_sample(source, grid[None], align_corners=False))[0]

    def _surface(
        self, scene: Scene, identity: np.ndarray, expression: np.ndarray
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of each view the canonical places and colours of the pixels that show the head."""
        space, places, colours = self.model.space, [], []
        moving = space.displacement(torch.from_numpy(identity), torch.from_numpy(expression))
        forward = lattice.blur(self.spread(moving))
        for yaw in YAWS:
            radius = distance(TARGET_EXTENT, TARGET_FOV)
            camera = orbit(math.radians(yaw), 0, radius, TARGET_FOV, width=VIEW, height=VIEW)
            view = scene.view(camera, dressed=False)
            mask = (view.rgba[..., 3] > 127) & (view.depth > 0)
            origin, directions = camera.rays()
            d = directions[mask]
            t = view.depth[mask] / (d @ camera.cam2world[:3, 2])
            p = torch.from_numpy((origin + d * t[:, None]).astype(np.float32))
            q = p + lattice.settle(forward, p, space.bounds, 6)
            inside = torch.from_numpy(bust_cut(q.numpy()) < 0.002)
            places.append(q[inside])
            colours.append(torch.from_numpy(view.rgba[..., :3][mask]).float()[inside] / 255)
        return places, colours


def template_mean(pack: Pack, heads: int) -> np.ndarray:
    """The mean of the pack's vertices that the head space's template is bound to."""
    return np.mean([sample_pair(pack, seed)[0] for seed in range(heads)], 0)


def kept_mean(path: Path, pack: str | None, heads: int) -> np.ndarray:
    """template_mean(), from a file, or made and put there. pack: its folder, None for the usual."""
    if not path.exists():
        print("the template's mean (a minute or two, once)", flush=True)
        np.save(path, template_mean(Pack(pack), heads))
    return np.load(path)


def refine(model: DefaultModel, people: list[Person], steps: int, rng: torch.Generator) -> float:
    """Moves the w+ of some people towards their true colours, all at once; the loss at the end.

    Adam on w+ with a hold on the encoder's, so that they stay where the generator was taught.
    """
    start = torch.stack([p.ws for p in people])
    ws = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([ws], 0.03, betas=(0.9, 0.95))
    loss = torch.zeros(())
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.03 * min(1.0, 2 * (1 - step / steps))
        planes = model.generator.planes(ws)
        picked = [torch.randint(len(p.place), (5000,), generator=rng) for p in people]
        points = torch.stack([p.place[i] for p, i in zip(people, picked, strict=True)])
        truth = torch.stack([p.colour[i] for p, i in zip(people, picked, strict=True)])
        colour, _ = model.generator(planes, points)
        error = ((colour - truth).square().sum(-1) + 1e-5).sqrt().mean(1).sum()
        hold = (ws - start).square().mean((1, 2)).sum()
        loss = error + 0.02 * hold
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for p, w in zip(people, ws.detach(), strict=True):
        p.ws = w
    return float(loss.detach()) / len(people)
