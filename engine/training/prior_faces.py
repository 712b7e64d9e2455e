"""Unwraps training heads' faces for the book that sampled heads take theirs from
(engine/systems/head/faces.py).

The people are those of the training seeds as material 2 has them (painted pores, lines, stubble),
sat for a portrait: nothing on the head, no expression, straight gaze, one even light. Each texel
of the unwrapped face is a place on the canonical skin; where that is on the head itself its own
mesh tells exactly, not the head space's coefficients, so a lid is at the same texel on everybody.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from engine.cameras import orbit
from engine.fields.skin import COLUMNS, ROWS, directions
from engine.headspace.lattice import sample
from engine.headspace.space import HeadSpace
from engine.systems.head.faces import FLOOR, Regions, pack, places, smooth
from engine.training.heads.build import build, person
from engine.training.heads.scene import Scene
from engine.training.heads.views import distance
from engine.training.prior_data import Sitting, natural, tidy

FOV = math.radians(18)
EXTENT, CENTRE, PIXELS = 0.27, (0.0, -0.005, 0.0), 512  # of each picture: 0.53 mm a pixel
YAWS = (0, 48, -48, 98, -98)  # degrees
FIRST = 5.0  # how much the frontal picture counts against the others
BEHIND, BEFORE = 0.004, 0.012  # metres: how far off the skin what is seen may be (brows, lashes)
NEAR = 0.0022  # metres: the template's vertices that carry a texel
FACING = 0.12, 0.5  # cosines of the slant to the axis' direction: no face below, all of it above
EDGE = 26, 50  # rows and columns over which faces fade out at the picture's edge
SHAVED = 1559  # the seed on whose face it is seen where a beard grows
LOBES = 0.6, 0.7  # of the picture's half width: beards end before the ears' lobes
MOLES, BLEMISHES, YEARS, DENSITY = 0, 0.3, (17.0, 74.0), (0.6, 1.6)  # at most; from .. to
# Brows that slant to the nose:
STERN = ("eyebrow002", "eyebrow003", "eyebrow004", "eyebrow005", "eyebrow007")
# What faces are spread over: melanin, years, density of brows, and what is one step.
STEPS = (0.13, 13.0, 0.6)
LLOYD = 4  # rounds
# Seeds, by eye: blotches, dark marks, parted lips, blue eyes in a dark face.
REJECTED = (744, 1274, 315, 1518)  # before the others are spread
UNFIT = (6, 24, 237, 334, 470, 710, 1371, 1544, 1559)  # and after
BLUE = 0.02, 0.25  # of the hue: more than the face's own by this is kept by that share only


def surface(space: HeadSpace) -> Tensor:
    """How far from the axis the canonical skin is [1, ROWS, COLUMNS], metres: its outermost."""
    radius = torch.full((ROWS, COLUMNS), 0.16)
    found = torch.zeros_like(radius, dtype=torch.bool)
    step = 0.0005
    for _ in range(round(0.14 / step)):
        points = places(radius[None])[~found]
        if not len(points):
            break
        d = sample(space.skin_distance[None], points, space.bounds)[:, 0]
        inside = torch.zeros_like(found)
        inside[~found] = d <= 0
        found |= inside
        radius = torch.where(found, radius, radius - step)
    return radius[None]


def window(space: HeadSpace, radius: Tensor) -> Tensor:
    """How much of a face is shown at each texel, 0..1 [ROWS, COLUMNS]: not at the picture's edge,
    and not where skin turns away from the axis' direction."""
    points = places(radius).reshape(-1, 3)
    offsets = torch.eye(3) * 0.002
    normal = torch.stack(
        [
            sample(space.skin_distance[None], points + o, space.bounds)[:, 0]
            - sample(space.skin_distance[None], points - o, space.bounds)[:, 0]
            for o in offsets
        ],
        1,
    )
    normal = torch.nn.functional.normalize(normal, dim=1).reshape(ROWS, COLUMNS, 3)
    around, _ = directions()
    facing = normal[..., 0] * around[:, 0] + normal[..., 2] * around[:, 1]
    square = ((facing - FACING[0]) / (FACING[1] - FACING[0])).clamp(0, 1).numpy()
    square = np.minimum(ndimage.gaussian_filter(square, 3.0), ndimage.grey_closing(square, 3))
    rows, columns = (np.arange(n) + 0.5 for n in (ROWS, COLUMNS))
    ramp = np.minimum.outer(
        np.minimum(rows, ROWS - rows) / EDGE[0], np.minimum(columns, COLUMNS - columns) / EDGE[1]
    ).clip(0, 1)
    out = torch.from_numpy((square * ramp * ramp * (3 - 2 * ramp)).astype(np.float32))
    return out * (radius[0] > 0.03)


def sitter(params: dict) -> dict:
    """A material-2 person as one sits for the book."""
    scalp = {"cover": 0.0, "crown": False}
    surface = {**params["surface"], "scalp": scalp, "beard_shade": 0.0}
    beard = {**params["beard"], "stubble": 0.0, "length": 0.0}  # beards are drawn, see Faces
    bare = dict.fromkeys(("headgear", "collar", "earrings"))
    return tidy(params) | {"expression": {}, "surface": surface, "beard": beard} | bare


def cast(sitting: Sitting, seeds: int, count: int) -> list[tuple[int, dict]]:
    """Nearly `count` of the first seeds' people, as many women as men, spread over STEPS (Lloyd's
    algorithm, from farthest points). Deterministic."""
    known = []
    for seed in range(seeds):
        p = person(sitting.pack, seed, 2)
        marks = p["surface"]
        calm = marks["moles"] <= MOLES and marks["blemishes"] <= BLEMISHES
        calm = calm and marks["mottle"] < 1.1 and marks["spots"] < 0.5 and seed not in REJECTED
        painted = p["makeup"] and p["makeup"]["shadow"][3] > 0.4
        if (
            natural(p) and calm and not painted and p["brow"] not in STERN
            and YEARS[0] < p["years"] < YEARS[1] and DENSITY[0] < p["brow_density"] < DENSITY[1]
        ):  # fmt: skip
            known.append((seed, sitter(p)))
    picked = []
    for male in (False, True):
        some = [(s, p) for s, p in known if (p["gender"] > 0.5) == male]
        at = np.array([(p["melanin"], p["years"], p["brow_density"]) for _, p in some]) / STEPS
        chosen = [int(np.square(at - np.median(at, 0)).sum(1).argmin())]
        while len(chosen) < min(count // 2, len(some)):
            away = np.square(at[:, None] - at[chosen][None]).sum(2).min(1)
            chosen.append(int(away.argmax()))
        for _ in range(LLOYD):
            owner = np.square(at[:, None] - at[chosen][None]).sum(2).argmin(1)
            means = [at[owner == k].mean(0) for k in range(len(chosen))]
            chosen = [
                int(np.where(owner == k, np.square(at - mean).sum(1), np.inf).argmin())
                for k, mean in enumerate(means)
            ]
        picked += [some[k] for k in chosen if some[k][0] not in UNFIT]
    return picked


class Book:
    """Makes faces. radius: see surface()."""

    def __init__(self, sitting: Sitting, radius: Tensor) -> None:
        self.sitting, self.places = sitting, places(radius).reshape(-1, 3).numpy()
        space = sitting.model.space
        away, self._near = cKDTree(space.mean.numpy()).query(self.places, k=8)
        share = np.exp(-((away / NEAR) ** 2)) + 1e-9
        self._share = (share / share.sum(1, keepdims=True)).astype(np.float32)

    def face(self, params: dict) -> Tensor:
        """Logarithms of a person's colours [3, ROWS, COLUMNS]."""
        sitting = self.sitting
        head = build(sitting.pack, params)
        for name in ("hair", "shirt"):
            head.parts.pop(name, None)
        moved = sitting.bind(head.skin)[self._near]
        points = self.places + (moved * self._share[..., None]).sum(1)
        scene = Scene(sitting.studio, head, sitting.light)
        normals = _normals(points.reshape(ROWS, COLUMNS, 3)).reshape(-1, 3)
        total, weight = np.zeros((ROWS * COLUMNS, 3)), np.zeros(ROWS * COLUMNS)
        for yaw in YAWS:
            radius = distance(EXTENT, FOV)
            camera = orbit(math.radians(yaw), 0, radius, FOV, CENTRE, PIXELS, PIXELS)
            view = scene.view(camera, dressed=False)
            place, depth = camera.project(points)
            layers = [*np.moveaxis(view.rgba / 255.0, 2, 0), view.depth]
            at = place.T[::-1] - 0.5
            red, green, blue, alpha, met = (
                ndimage.map_coordinates(a, at, order=1, mode="nearest") for a in layers
            )
            seen = (alpha > 0.99) & (met - depth < BEHIND) & (depth - met < BEFORE)
            towards = camera.position - points
            towards /= np.linalg.norm(towards, axis=1, keepdims=True)
            square = (normals * towards).sum(1).clip(0, 1) ** 4
            share = np.where(seen, square * (1 if yaw else FIRST) + 1e-6, 0)
            total += share[:, None] * np.stack([red, green, blue], 1)
            weight += share
        colour = (total / np.maximum(weight, 1e-12)[:, None]).reshape(ROWS, COLUMNS, 3)
        unseen = (weight < 1e-5).reshape(ROWS, COLUMNS)
        nearest = ndimage.distance_transform_edt(unseen, return_indices=True)[1]
        colour = colour[tuple(nearest)]
        return torch.from_numpy(np.log(colour + FLOOR).astype(np.float32)).permute(2, 0, 1)


def _normals(points: np.ndarray) -> np.ndarray:
    """Outward unit normals of a grid of places [R, C, 3]."""
    n = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    return n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-12)


def make_faces(sitting: Sitting, seeds: int, count: int) -> dict[str, np.ndarray]:
    """The arrays of Faces without `follow`, of the training seeds 0 .. seeds."""
    space = sitting.model.space
    radius = surface(space)
    shown = window(space, radius)
    regions, book = Regions(places(radius)), Book(sitting, radius)
    faces, traits, taken = [], [], cast(sitting, seeds, count)
    for _, params in taken:
        log = tidied(book.face(params), regions)
        known = torch.tensor([params["gender"] > 0.5, params["years"]]).float()
        traits.append(torch.cat([known, regions.traits(log, shown)]))
        faces.append(pack(log))
    light, hue = (torch.stack(x).numpy() for x in zip(*faces, strict=True))
    area = beard_area(book, sitter(person(sitting.pack, SHAVED, 2)))
    return {
        "light": light, "hue": hue, "traits": torch.stack(traits).numpy(),
        "radius": radius.half().numpy(), "shown": (shown * 255 + 0.5).byte().numpy(),
        "beard": (area * 255 + 0.5).byte().numpy(),
        "seeds": np.array([seed for seed, _ in taken]),
    }  # fmt: skip


def tidied(log: Tensor, regions: Regions) -> Tensor:
    """A face [3, ROWS, COLUMNS] without the hairline that pictures of skin have at the temples, and
    without blue patches and lips (which dark-skinned ones have where beards were taken out)."""
    plain = smooth(log, regions.plain[None])
    log = torch.lerp(log, plain, regions.temples)
    light = log.mean(0)
    mean = (log * regions.plain).sum((1, 2)) / regions.plain.sum()
    own = mean - mean.mean()
    red, blue = log[0] - light - own[0], log[2] - light - own[2]
    most, share = BLUE
    kept = torch.where(blue > most, most + share * (blue - most), blue)
    kept = torch.lerp(kept, kept.clamp_max(0.02), regions.lips)
    red = torch.lerp(red, red.clamp_min(0.03), regions.lips)
    blue = torch.lerp(kept, blue, regions.eyes)
    red, blue = red + own[0] + light, blue + own[2] + light
    return torch.stack([red, 3 * light - red - blue, blue])


def beard_area(book: Book, params: dict) -> Tensor:
    """How much hair grows at each texel of a full beard, 0..1 [ROWS, COLUMNS]: where stubble makes
    a person darker."""
    thick = {"stubble": 1.0, "length": 0.0, "style": "full"}
    black = params | {"beard": thick, "hair_colour": [0.01, 0.01, 0.01]}
    darker = (book.face(params) - book.face(black)).mean(0).clamp_min(0).numpy()
    area = ndimage.gaussian_filter(darker, 1.8)
    area = 0.5 * (area + area[:, ::-1]) * (book.places[:, 1] < -0.012).reshape(area.shape)
    area = (area / np.percentile(area[area > 0.05], 60)).clip(0, 1)
    across = np.abs((np.arange(COLUMNS) + 0.5) * (2 / COLUMNS) - 1)
    area = area * area * (3 - 2 * area) * ((LOBES[1] - across) / (LOBES[1] - LOBES[0])).clip(0, 1)
    return torch.from_numpy(area.astype(np.float32))


def follow(identity: np.ndarray, male: np.ndarray, years: np.ndarray) -> np.ndarray:
    """[1 + Ki, 2]: male (0 or 1) and years from 1 and the identity's coefficients [N, Ki]: ridge
    regression."""
    x = np.concatenate([np.ones((len(identity), 1)), identity], 1).astype(np.float64)
    y = np.stack([male, years], 1).astype(np.float64)
    return np.linalg.solve(x.T @ x + 5 * np.eye(x.shape[1]), x.T @ y).astype(np.float32)
