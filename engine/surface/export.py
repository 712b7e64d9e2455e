"""Files for other programs: .glb, and .obj with .mtl and .png; whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from engine.errors import OutputError
from engine.surface.mesh import Mesh

# Blender's z up, head looking along -y, to y up, looking along +z, as glTF and OBJ have it.
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def write_whole(files: dict[Path, bytes]) -> None:
    """Write all files, or change none of them. Folders are made. Raises OutputError."""
    temporary: dict[Path, Path] = {}
    current = Path()
    try:
        for current, data in files.items():
            current.parent.mkdir(parents=True, exist_ok=True)
            temporary[current] = current.with_name(f".{current.name}.{os.getpid()}.part")
            with open(temporary[current], "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        for current, part in temporary.items():
            os.replace(part, current)
    except OSError as error:
        raise output_error(current, error) from error
    finally:
        for part in temporary.values():
            with contextlib.suppress(OSError):  # a read-only disk, where there is nothing to remove
                part.unlink(missing_ok=True)


def output_error(path: Path, error: OSError) -> OutputError:
    """The artist's sentence for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(
            f"The disk is full: {path.name} could not be written to {path.parent}.",
            "Free some space or choose another folder.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(
            f"The folder {path.parent} cannot be written to.", "Choose another folder."
        )
    return OutputError(
        f"{path.name} could not be written to {path.parent}: {error.strerror or error}.",
        "Choose another folder.",
    )


def encode_png(texture: np.ndarray) -> bytes:
    """uint8 [H, W, 3 or 4] as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _welded(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One vertex for each pair of position and UV: old vertex [n], UV [n, 2], faces [F, 3]."""
    uv = np.zeros((len(mesh.faces), 3, 2), np.float32) if mesh.uvs is None else mesh.uvs
    flat = np.ascontiguousarray(uv.reshape(-1, 2), np.float32)
    key = np.stack([mesh.faces.ravel().astype(np.int64), flat.view(np.int64)[:, 0]], 1)
    _, first, index = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return key[first, 0], flat[first], index.reshape(-1, 3)


def _placed(mesh: Mesh, field_to_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and unit normals [V, 3], y up, in metres."""
    m = Z_UP_TO_Y_UP @ np.asarray(field_to_world, np.float64).reshape(4, 4)
    position = mesh.vertices @ m[:3, :3].T + m[:3, 3]
    normal = mesh.vertex_normals @ m[:3, :3].T  # a similarity: normals turn as points do
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    return position.astype(np.float32), normal.astype(np.float32)


def glb_bytes(mesh: Mesh, field_to_world: np.ndarray, name: str = "head") -> bytes:
    """The mesh as binary glTF 2.0 with its texture inside.

    field_to_world: [4, 4], field space to Blender's world (z up, metres), a similarity.
    """
    old, uv, faces = _welded(mesh)
    position, normal = (a[old] for a in _placed(mesh, field_to_world))
    uv = np.stack([uv[:, 0], 1 - uv[:, 1]], 1).astype(np.float32)  # glTF's v points down
    views, blob = [], bytearray()

    def add(data: bytes, target: int | None) -> int:
        blob.extend(b"\0" * (-len(blob) % 4))
        view = {"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)}
        views.append(view if target is None else {**view, "target": target})
        blob.extend(data)
        return len(views) - 1

    def accessor(array: np.ndarray, kind: str, component: int, target: int) -> dict:
        view = add(np.ascontiguousarray(array).tobytes(), target)
        count = array.size if kind == "SCALAR" else len(array)
        return {"bufferView": view, "componentType": component, "count": count, "type": kind}

    accessors = [
        accessor(position, "VEC3", 5126, 34962)
        | {"min": position.min(0).tolist(), "max": position.max(0).tolist()},
        accessor(normal, "VEC3", 5126, 34962),
        accessor(uv, "VEC2", 5126, 34962),
        accessor(faces.astype(np.uint32).ravel(), "SCALAR", 5125, 34963),
    ]
    material: dict = {"name": name, "pbrMetallicRoughness": {"metallicFactor": 0.0,
                                                             "roughnessFactor": 0.6}}  # fmt: skip
    document = {
        "asset": {"version": "2.0", "generator": "Triplane"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"name": name, "primitives": [{
            "attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2},
            "indices": 3, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
    }  # fmt: skip
    if mesh.texture is not None:
        view = add(encode_png(mesh.texture), None)
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
        document["images"] = [{"bufferView": view, "mimeType": "image/png", "name": name}]
        document["samplers"] = [{"magFilter": 9729, "minFilter": 9987}]
        document["textures"] = [{"source": 0, "sampler": 0}]
    blob.extend(b"\0" * (-len(blob) % 4))
    document["bufferViews"] = views
    document["buffers"] = [{"byteLength": len(blob)}]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(blob)
    return b"".join([
        struct.pack("<III", 0x46546C67, 2, total),
        struct.pack("<II", len(text), 0x4E4F534A), text,
        struct.pack("<II", len(blob), 0x004E4942), bytes(blob),
    ])  # fmt: skip


def write_glb(mesh: Mesh, path: str | Path, field_to_world: np.ndarray) -> Path:
    """Write a .glb (see glb_bytes). Raises OutputError."""
    path = Path(path)
    write_whole({path: glb_bytes(mesh, field_to_world, path.stem)})
    return path


def obj_files(mesh: Mesh, path: Path, field_to_world: np.ndarray) -> dict[Path, bytes]:
    """The contents of path (.obj), its .mtl and, if the mesh has a texture, its .png; y up, in
    metres."""
    material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
    position, normal = _placed(mesh, field_to_world)
    lines = [f"mtllib {material.name}", "o head"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in position.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normal.tolist()]
    lines.append("usemtl head")
    f = mesh.faces.astype(np.int64) + 1
    if mesh.uvs is None:
        lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in f.tolist()]
    else:
        _, uv, corner = _welded(mesh)
        lines[-1:-1] = [f"vt {u:.6f} {v:.6f}" for u, v in uv.tolist()]
        rows = np.concatenate([f, corner + 1], 1).tolist()
        lines += [f"f {a}/{r}/{a} {b}/{s}/{b} {c}/{t}/{c}" for a, b, c, r, s, t in rows]
    mtl = ["newmtl head", "Ka 0 0 0", "Kd 1 1 1", "Ks 0.04 0.04 0.04", "Ns 30", "illum 2"]
    files = {}
    if mesh.texture is not None:
        files[picture] = encode_png(mesh.texture)
        mtl.append(f"map_Kd {picture.name}")
    files[material] = ("\n".join(mtl) + "\n").encode()
    files[path] = ("\n".join(lines) + "\n").encode()
    return files


def quad_obj_files(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, str]],
    pictures: dict[str, np.ndarray],
    path: Path,
    field_to_world: np.ndarray,
) -> dict[Path, bytes]:
    """The contents of path (.obj) with quads as they are, its .mtl and its pictures; y up, metres.

    parts: vertices [V, 3], quads [F, 4], UVs [F, 4, 2] and the name of each object, whose material
    is the one of `pictures` (uint8 [T, T, 3]) that its name starts with.
    """
    m = Z_UP_TO_Y_UP @ np.asarray(field_to_world, np.float64).reshape(4, 4)
    lines, first, corner = [f"mtllib {path.stem}.mtl"], 1, 1
    for vertices, quads, uvs, name in parts:
        material = next(key for key in pictures if name.startswith(key))
        position = vertices @ m[:3, :3].T + m[:3, 3]
        flat, index = np.unique(uvs.reshape(-1, 2), axis=0, return_inverse=True)
        lines.append(f"o {name}")
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in position.tolist()]
        lines += [f"vt {u:.6f} {v:.6f}" for u, v in flat.tolist()]
        lines += [f"usemtl {material}", "s 1"]
        rows = np.stack([quads.astype(np.int64) + first, index.reshape(-1, 4) + corner], -1)
        lines += ["f " + " ".join(f"{v}/{t}" for v, t in row) for row in rows.tolist()]
        first, corner = first + len(vertices), corner + len(flat)
    files, mtl = {}, []
    for name, texture in pictures.items():
        picture = path.with_name(f"{path.stem}_{name}.png")
        files[picture] = encode_png(texture)
        mtl += [f"newmtl {name}", "Ka 0 0 0", "Kd 1 1 1", "illum 2", f"map_Kd {picture.name}"]
    files[path.with_suffix(".mtl")] = ("\n".join(mtl) + "\n").encode()
    files[path] = ("\n".join(lines) + "\n").encode()
    return files


def write_obj(mesh: Mesh, path: str | Path, field_to_world: np.ndarray) -> list[Path]:
    """Write path (.obj) with a .mtl and, if the mesh has a texture, a .png beside it (see
    obj_files). Returns the files. Raises OutputError."""
    files = obj_files(mesh, Path(path), field_to_world)
    write_whole(files)
    return list(files)
