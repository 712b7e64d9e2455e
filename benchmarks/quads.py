"""The mesh of quads of a photo: how near it is to the iso-surface, what it takes, and pictures.

    .venv/bin/python benchmarks/quads.py examples/astronaut.png --preset balanced --out docs/images

Writes quad.png (textured, plain, with wires; from in front, three quarters, the side) and
shape-keys.png (eight of them at 1), and prints the figures of docs/mesh.md. Distances are from
points spread evenly over the quads' visible skin (lids, lips and ears too, but nothing under hair)
to the triangles of the iso-surface.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine import jobs  # noqa: E402
from engine.cameras import Camera, orbit  # noqa: E402
from engine.fields.io import load_field  # noqa: E402
from engine.jobs.base import Context  # noqa: E402
from engine.surface import quad, quad_bake  # noqa: E402
from engine.surface.mesh import vertex_normals  # noqa: E402
from engine.surface.rasterize import rasterize, sample  # noqa: E402

SHOWN = (
    "eyeBlinkLeft",
    "browInnerUp",
    "browDownRight",
    "jawOpen",
    "mouthSmileLeft",
    "mouthFrownRight",
    "mouthPucker",
    "mouthFunnel",
)
FINE = 3  # pixels drawn for one
BACKGROUND = 0.22


def camera(yaw: float, size: int, centre=(0.0, -0.012, 0.0), extent: float = 0.31) -> Camera:
    fov = np.radians(18)
    distance = 0.5 * extent / np.tan(fov / 2)
    return orbit(np.radians(yaw), 0.0, distance, fov, centre, size, size)


def draw(head: quad.QuadHead, view: Camera, textured: bool, wires: bool) -> np.ndarray:
    """Head and eyes, lit from the upper left: uint8 [S, S, 3]."""
    big = view.resized(view.width * FINE, view.height * FINE)
    vertices, faces, uvs, own = [], [], [], []
    for v, q, uv, picture in [
        (head.vertices, head.quads, head.uvs, 0),
        *((eye.vertices, eye.quads, eye.uvs, 1) for eye in head.eyes),
    ]:
        faces.append(quad.split(q) + sum(len(x) for x in vertices))
        vertices.append(v)
        uvs.append(quad.split_corners(uv))
        own.append(np.full(2 * len(q), picture))
    v, f, uv, own = (np.concatenate(x) for x in (vertices, faces, uvs, own))
    raster = rasterize(v, f, big)
    inside = raster.face >= 0
    face = raster.face[inside]
    n = raster.interpolate(vertex_normals(v, f)[f])[inside]
    n = n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-6) @ big.cam2world[:3, :3]
    lights = ((-0.55, -0.7, -0.6, 0.55), (0.0, 0.0, -1.0, 0.3), (0.9, 0.2, -0.25, 0.12))
    light = np.full(len(n), 0.16)
    for *d, strength in lights:
        light += strength * np.maximum(n @ (np.array(d) / np.linalg.norm(d)), 0)
    colour = np.full((len(n), 3), 0.82)
    if textured:
        place = raster.interpolate(uv)[inside]
        for k, picture in enumerate((head.texture, head.eye_texture)):
            at, side = own[face] == k, len(picture)
            x, y = place[at, 0] * side, (1 - place[at, 1]) * side
            colour[at] = sample(picture, x, y) / 255
        light = 0.45 + 0.6 * light
    shade = colour * light[:, None]
    if wires:
        p = big.project(v.astype(float))[0][f]
        e, g = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
        area = np.maximum(np.abs(e[:, 0] * g[:, 1] - e[:, 1] * g[:, 0]), 1e-9)
        weights = raster.barycentric[inside]
        near = np.full(len(face), np.inf)
        for k in range(3):  # how many pixels to the edge opposite corner k
            length = np.linalg.norm(p[:, (k + 1) % 3] - p[:, (k + 2) % 3], axis=1)
            away = weights[:, k] * (area / np.maximum(length, 1e-9))[face]
            diagonal = face % 2 == (0 if k == 1 else 1) if k else np.zeros(len(face), bool)
            near = np.minimum(near, np.where(diagonal, np.inf, away))
        shade *= (0.25 + 0.75 * np.clip(near - 0.4, 0, 1))[:, None]
    image = np.full((*raster.face.shape, 3), BACKGROUND)
    image[inside] = shade
    image = image.reshape(view.height, FINE, view.width, FINE, 3).mean((1, 3))
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def spread(v: np.ndarray, f: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points on triangles, about `spacing` apart, and whose they are."""
    rng = np.random.default_rng(0)
    a, b, c = (v[f[:, k]].astype(float) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    owner = np.repeat(np.arange(len(f)), rng.poisson(area / spacing**2))
    w = rng.random((len(owner), 2))
    w = np.where(w.sum(1, keepdims=True) > 1, 1 - w, w)
    return a[owner] + w[:, :1] * (b - a)[owner] + w[:, 1:] * (c - a)[owner], owner


def distances(head: quad.QuadHead, surface: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """From the quads' visible skin to the iso-surface, metres [N]."""
    f = quad.split(head.quads)
    part = np.repeat(head.part, 2)
    seen = (part <= quad.load_quads().parts.index("ear")) & (head.covered[f] < 0.05).all(1)
    points, _ = spread(head.vertices, f[seen], 0.001)
    v, faces = surface
    cloud, owner = spread(v, faces, 0.0005)
    near = owner[cKDTree(cloud).query(points)[1]]
    a, b, c = (v[faces[near, k]].astype(float) for k in range(3))
    n = np.cross(b - a, c - a)
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
    return np.abs(((points - a) * n).sum(1))


def timed(name: str, function, spent: dict[str, float]):
    """The function, telling the seconds of its last call in `spent`."""

    def run(*args):
        start = time.perf_counter()
        try:
            return function(*args)
        finally:
            spent[name] = time.perf_counter() - start

    return run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    job = jobs.load("reconstruct")
    given = {"photo": args.photo, "preset": args.preset, "topology": "BOTH", "texture_size": 1024}
    spent: dict[str, float] = {}
    quad.shape = timed("shape", quad.shape, spent)
    quad_bake.bake = timed("bake", quad_bake.bake, spent)
    made = job.run(job.checked(given), Context())
    for name, seconds in spent.items():
        print(f"{name} (MEDIUM, texture of 1024 pixels): {seconds:.1f} s")
    field = load_field(made.arrays["field"].tobytes())
    surface = made.arrays["vertices"], made.arrays["faces"]
    print(f"{'density':8} {'quads':>6} {'mean':>8} {'median':>8} {'99 %':>8} {'shape':>8}")
    heads = {}
    for density in quad.DENSITIES:
        heads[density] = quad.shape(field, density)
        taken = spent["shape"]
        d = distances(heads[density], surface) * 1000
        numbers = d.mean(), np.median(d), np.quantile(d, 0.99)
        print(f"{density:8} {len(heads[density].quads):6}", end=" ")
        print(" ".join(f"{x:5.2f} mm" for x in numbers), f"{taken:6.2f} s")
    pictures = {"texture": made.arrays["quad_texture"], "eye_texture": made.arrays["eye_texture"]}
    head = quad.QuadHead(**vars(heads["MEDIUM"]) | pictures)
    low = quad.QuadHead(**vars(heads["LOW"]) | pictures)
    rows = []
    for drawn, textured, wires in ((head, True, False), (heads["HIGH"], False, False),
                                   (head, False, True), (low, False, True)):  # fmt: skip
        views = [camera(yaw, 420) for yaw in (0.0, 40.0, 90.0)]
        rows.append(np.concatenate([draw(drawn, c, textured, wires) for c in views], 1))
    args.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(args.out / "quad.png")
    strip = []
    for name in SHOWN:
        move = head.shapes[head.names.index(name)]
        posed = quad.QuadHead(**vars(head) | {"vertices": head.vertices + move})
        near = camera(14.0, 300, (0.0, -0.005, 0.05), 0.21)
        strip.append(draw(posed, near, True, False))
    rows = [np.concatenate(strip[k : k + 4], 1) for k in (0, 4)]
    Image.fromarray(np.concatenate(rows)).save(args.out / "shape-keys.png")


if __name__ == "__main__":
    main()
