"""Points of a head's surface, with normals and colours: what splats start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.fields.base import Field
from engine.surface.mesh import Mesh

SEED = 0


@dataclass(frozen=True)
class Cloud:
    """positions, unit normals: float32 [N, 3], in the scene's space; colours: uint8 [N, 3];
    low, high [3]: the box of the whole surface."""

    positions: np.ndarray
    normals: np.ndarray
    colours: np.ndarray
    low: np.ndarray
    high: np.ndarray


@torch.no_grad()
def scatter(mesh: Mesh, field: Field, count: int, field_to_world: np.ndarray) -> Cloud:
    """`count` points spread evenly over the mesh (field space) of a field, the same at every call,
    with the field's colours."""
    rng = np.random.default_rng(SEED)
    normals = mesh.face_normals()
    areas = np.linalg.norm(normals, axis=1)
    face = rng.choice(len(areas), count, p=areas / areas.sum())
    # Uniform in a triangle: Osada et al. 2002, "Shape distributions", section 4.2.
    root, v = np.sqrt(rng.random(count)), rng.random(count)
    shares = np.stack([1 - root, root * (1 - v), root * v], 1)
    places = np.einsum("nk,nkc->nc", shares, mesh.vertices[mesh.faces[face]])
    colours = field.color(torch.tensor(places, dtype=torch.float32).to(field.bounds)).cpu().numpy()
    world = np.asarray(field_to_world, float).reshape(4, 4)
    turned = normals[face] @ np.linalg.inv(world[:3, :3])
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-30)
    corners = mesh.vertices @ world[:3, :3].T + world[:3, 3]
    return Cloud(
        (places @ world[:3, :3].T + world[:3, 3]).astype(np.float32),
        turned.astype(np.float32),
        (colours.clip(0, 1) * 255 + 0.5).astype(np.uint8),
        corners.min(0),
        corners.max(0),
    )


def ply_bytes(cloud: Cloud) -> bytes:
    """A binary .ply with the properties that 3D Gaussian splatting's own loader asks for."""
    names = [(n, "<f4") for n in ("x", "y", "z", "nx", "ny", "nz")]
    names += [(n, "u1") for n in ("red", "green", "blue")]
    table = np.empty(len(cloud.positions), names)
    for columns, values in (
        ("x y z", cloud.positions),
        ("nx ny nz", cloud.normals),
        ("red green blue", cloud.colours),
    ):
        for i, name in enumerate(columns.split()):
            table[name] = values[:, i]
    kinds = {"<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    lines += [f"property {kinds[kind]} {name}" for name, kind in names] + ["end_header", ""]
    return "\n".join(lines).encode() + table.tobytes()


def colmap_text(cloud: Cloud) -> str:
    """The contents of COLMAP's points3D.txt: points without tracks."""
    rows = [
        f"{i} {x!r} {y!r} {z!r} {r} {g} {b} 0.0\n"
        for i, ((x, y, z), (r, g, b)) in enumerate(
            zip(cloud.positions.astype(float).tolist(), cloud.colours.tolist()), 1
        )
    ]
    return "# POINT3D_ID X Y Z R G B ERROR TRACK[]\n" + "".join(rows)
