"""Makes the linear head space from random synthetic heads.

    python -m engine.training.build_headspace --out headspace.safetensors

Needs about three minutes of one core and 4 GB. Seeds 0 .. --heads are used, the next 200 (never
used) give the reported errors. The template is our own: marching cubes of the mean head's fused
distance, cut to a bust, simplified, and bound to the pack's surface while the bases are made.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import fast_simplification
import mcubes
import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from engine.training import fuse
from engine.training.heads.build import EYE_CENTRE, METRES, head_rng
from engine.training.heads.morph import Neck, fit, morph_pair
from engine.training.heads.pack import Pack
from engine.training.heads.parts import split_quads
from engine.training.heads.sampler import sample_params

HALF = 0.2  # metres: half side of the box
BOUNDS = np.array([[-HALF] * 3, [HALF] * 3])
GRID, HAIR_GRID = 160, 64
TEMPLATE_FACES = 24_000
IDENTITY, EXPRESSION = 64, 20
NECK = -0.150  # metres: where the bust ends
HELD_OUT = 200


def sample_pair(pack: Pack, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pack's vertices [7604, 3] of a seed's head in metres, without and with expression."""
    params = sample_params(pack, head_rng(seed, 0)) | {"gaze": (0.0, 0.0)}
    raw, neutral = morph_pair(pack, params)
    neck = Neck(pack, raw, params["neck"])
    posed = neck.skin(raw)
    eyes = 0.5 * (pack.joint(posed, "eye_l") + pack.joint(posed, "eye_r"))
    return tuple(
        ((v - eyes) * METRES + EYE_CENTRE).astype(np.float32) for v in (neck.skin(neutral), posed)
    )


def outer_triangles(pack: Pack) -> np.ndarray:
    """Triangles of skin and eyeballs in the pack's mesh."""
    groups = [pack.group_names.index(g) for g in ("skin", "eye_l", "eye_r")]
    return split_quads(pack.faces[np.isin(pack.face_group, groups)]).astype(np.int32)


def bust_cut(points: np.ndarray, rim: float = 0.080) -> np.ndarray:
    """Distance-like function, positive outside the bust: below the neck plane or, low down, far
    from the neck's axis."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    radius = np.sqrt((x / 1.05) ** 2 + (z + 0.048) ** 2)
    # In front the cone opens fast: the chin stands far from the neck's axis.
    slope = 1.2 + 2.0 * np.clip((z - 0.01) / 0.05, 0, 1)
    cone = (radius - rim - slope * np.clip(y + 0.125, 0, None)) / 1.3
    return smooth_max(NECK - y, cone, 0.02)


def smooth_max(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    h = np.clip(k - np.abs(a - b), 0, None) / k
    return np.maximum(a, b) + h * h * k / 4


def template(skin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] metres and faces of the distance grid's zero level, simplified."""
    v, f = mcubes.marching_cubes(-skin.transpose(2, 1, 0), 0.0)
    v = v / (GRID - 1) * 2 * HALF - HALF
    v, f = fast_simplification.simplify(
        v.astype(np.float32), f.astype(np.int32), target_count=TEMPLATE_FACES
    )
    return v.astype(np.float32), f.astype(np.int32)


class Binding:
    """Carries displacements of the pack's vertices over to the template's."""

    def __init__(self, pack: Pack, mean: np.ndarray, v: np.ndarray, f: np.ndarray) -> None:
        self.mean = mean
        tri = outer_triangles(pack)
        corners = mean[tri]
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        rng = np.random.default_rng(0)
        count = rng.poisson(np.linalg.norm(cross, axis=1) / 2 / 0.0007**2)
        owner = np.repeat(np.arange(len(tri)), count)
        uv = rng.random((len(owner), 2))
        uv = np.where(uv.sum(1, keepdims=True) > 1, 1 - uv, uv)
        weight = np.stack([1 - uv.sum(1), uv[:, 0], uv[:, 1]], 1).astype(np.float32)
        distance, i = cKDTree((corners[owner] * weight[..., None]).sum(1)).query(v)
        self.tri, self.weight = tri[owner[i]], weight[i]
        self.far = distance > 0.003  # the bust's underside: follows its neighbours
        # Eyeballs move as wholes: their spin is gaze, not shape.
        owner_of = np.zeros(len(mean), int)
        self.eyes = [pack.group_vertices[g] for g in ("eye_l", "eye_r")]
        for k, vertices in enumerate(self.eyes, 1):
            owner_of[vertices] = k
        self.eye = owner_of[self.tri[:, 0]]
        e = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
        e = np.concatenate([e, e[:, ::-1]])
        ring = sparse.coo_matrix((np.ones(len(e)), (e[:, 0], e[:, 1])), (len(v), len(v))).tocsr()
        ring.data[:] = 1
        self.ring = (sparse.diags(1 / np.asarray(ring.sum(1)).ravel()) @ ring)[self.far]

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        d = vertices - self.mean
        out = (d[self.tri] * self.weight[..., None]).sum(1)
        for k, eye in enumerate(self.eyes, 1):
            out[self.eye == k] = d[eye].mean(0)
        for _ in range(30):
            out[self.far] = self.ring @ out
        return out.astype(np.float32)


def linear_basis(data: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """Basis [count, V, 3] of displacements [N, V, 3] (not centred), scaled so that the samples'
    coefficients have unit mean square. weight [V] says where accuracy matters."""
    flat = (data * weight[:, None]).reshape(len(data), -1)
    values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    coefficients = (vectors[:, ::-1][:, :count] * np.sqrt(len(data))).astype(np.float32)
    return (coefficients.T @ data.reshape(len(data), -1) / len(data)).reshape(count, -1, 3)


def coefficients(basis: np.ndarray, weight: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Least squares coefficients [N, K] of displacements [N, V, 3]."""
    b = (basis * weight[:, None]).reshape(len(basis), -1)
    return np.linalg.solve(b @ b.T, b @ (data * weight[:, None]).reshape(len(data), -1).T).T


def described(
    bases: tuple[np.ndarray, np.ndarray], weight: np.ndarray, bind: Binding,
    skin: np.ndarray, neutral: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Identity [Ki] and expression [Ke] of a head with these vertices of the pack (metres), by the
    head space's bases of both."""
    still = bind(neutral)
    shapes = still, bind(skin) - still
    identity, expression = (
        coefficients(basis, weight, d[None])[0].astype(np.float32)
        for basis, d in zip(bases, shapes, strict=True)
    )
    return identity, expression


def vertex_weight(v: np.ndarray) -> np.ndarray:
    """The face counts most, the bust least."""
    weight = np.ones(len(v), np.float32)
    weight[(v[:, 2] > 0.03) & (v[:, 1] > -0.1)] = 1.8
    weight[v[:, 1] < -0.1] = 0.35
    return weight


def hair_masses(pack: Pack, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances [styles + 1, d, d, d] of every style's mass on the mean head (the last is bald,
    just inside the skin), and how far a residual may move the surface [d, d, d], both metres."""
    tri = outer_triangles(pack)
    points = fuse.grid_points(BOUNDS, HAIR_GRID)
    low = points[..., 1] < -0.10
    bald = fuse.signed_distance(mean, tri, BOUNDS, HAIR_GRID, views=120, spacing=0.0015)
    masses, presence = [], np.zeros(bald.shape)
    for name in pack.hairs:
        proxy = pack.proxy(f"hair/{name}")
        picture = Image.open(pack.path / "textures" / "hair" / f"{name}.png").convert("RGBA")
        alpha = np.asarray(picture)[..., 3] / 255.0
        faces, face_uv = split_quads(proxy.faces), split_quads(proxy.face_uv)
        centre = proxy.uv[face_uv].mean(1) % 1
        h, w = alpha.shape
        opaque = (
            alpha[((1 - centre[:, 1]) * (h - 1)).astype(int), (centre[:, 0] * (w - 1)).astype(int)]
            > 0.35
        )
        faces = faces[opaque]
        vertices = np.concatenate([mean, fit(proxy, mean).astype(np.float32)])
        triangles = np.concatenate([tri, faces + len(mean)]).astype(np.int32)
        two_sided = np.arange(len(triangles)) >= len(tri)
        d = fuse.signed_distance(
            vertices, triangles, BOUNDS, HAIR_GRID, two_sided, views=120, spacing=0.0012, closing=2
        )
        hidden = np.clip((bald - d) / 0.003, 0, 1)  # 1 under hair, 0 on bare skin
        presence = np.maximum(
            presence, ndimage.binary_dilation((bald - d > 0.003) & (d < 0.004), iterations=2)
        )
        # Bare skin steps back, so that the finer skin distance speaks there.
        d = ndimage.gaussian_filter(d + 0.005 * (1 - hidden), 0.7)
        d = np.where((bald < 0.004) & low, np.maximum(d, bust_cut(points)), d)
        masses.append(smooth_max(d, bust_cut(points, rim=0.13), 0.008))
    masses.append(smooth_max(bald + 0.012, bust_cut(points), 0.01))
    bound = 0.0025 + 0.03 * ndimage.gaussian_filter(presence.astype(float), 1.2)
    return np.stack(masses), bound


def build(pack: Pack, heads: int) -> dict[str, np.ndarray]:
    """All tensors of engine.headspace.space.HeadSpace; prints the errors on held-out heads."""
    pairs = [sample_pair(pack, seed) for seed in range(heads + HELD_OUT)]
    mean = np.mean([p[0] for p in pairs[:heads]], 0)
    skin = fuse.signed_distance(mean, outer_triangles(pack), BOUNDS, GRID, views=260)
    skin = ndimage.gaussian_filter(skin, 0.5)
    skin = smooth_max(skin, bust_cut(fuse.grid_points(BOUNDS, GRID)), 0.010)
    v, f = template(skin)
    bind, weight = Binding(pack, mean, v, f), vertex_weight(v)
    neutral = np.stack([bind(n) for n, _ in pairs])
    moved = np.stack([bind(x) for _, x in pairs]) - neutral
    identity = linear_basis(neutral[:heads], weight, IDENTITY)
    expression = linear_basis(moved[:heads], weight, EXPRESSION)
    above = v[:, 1] > -0.1
    for name, basis, data in (("identity", identity, neutral), ("expression", expression, moved)):
        rest = data[heads:] - np.tensordot(coefficients(basis, weight, data[heads:]), basis, 1)
        before, after = (
            np.linalg.norm(d, axis=-1)[:, above].mean() * 1e3 for d in (data[heads:], rest)
        )
        print(f"{name}: held-out heads {before:.2f} mm from the mean, {after:.2f} mm left")
    marks = pack.landmarks(mean)
    distance, near = cKDTree(v).query(marks, k=3)
    near_weight = 1 / (distance + 1e-4)
    near_weight /= near_weight.sum(1, keepdims=True)
    hair, bound = hair_masses(pack, mean)
    return {
        "mean": v,
        "identity": identity.astype(np.float16),
        "expression": expression.astype(np.float16),
        "faces": f,
        "landmark_index": near.astype(np.int32),
        "landmark_weight": near_weight.astype(np.float32),
        "landmark_offset": (marks - (v[near] * near_weight[..., None]).sum(1)).astype(np.float32),
        "skin_distance": skin.astype(np.float16),
        "hair_distance": hair.astype(np.float16),
        "residual_bound": bound.astype(np.float16),
        "bounds": BOUNDS.astype(np.float32),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", type=int, default=2000)
    parser.add_argument("--pack", default=None, help="folder of the head data pack")
    args = parser.parse_args(argv)
    start = time.monotonic()
    tensors = build(Pack(args.pack), args.heads)
    temporary = args.out.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.replace(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
