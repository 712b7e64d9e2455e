"""The head data pack: arrays of one folder, read once per process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

DEFAULT_PACK = Path(__file__).resolve().parents[4] / "shared" / "heads"
IGNORED_SHAPES = ("pointed", "triangle")  # fantasy ears
PARTS = ("mesh", "targets", "proxies", "landmarks", "masks")


@dataclass(frozen=True)
class Proxy:
    """A part that follows the skin: vertex i = sum(weight * skin[ref]) + offset * scale.

    ref int32 [P, 3], weight and offset float32 [P, 3], scale_ref int32 [3, 2], scale_div [3],
    faces and face_uv int32 [F, 4] (quads), uv float32 [M, 2].
    """

    ref: np.ndarray
    weight: np.ndarray
    offset: np.ndarray
    scale_ref: np.ndarray
    scale_div: np.ndarray
    faces: np.ndarray
    face_uv: np.ndarray
    uv: np.ndarray


class Pack:
    """All shapes of the pack, in the pack's own units (decimetres, see its README).

    path: the pack's folder; default: $HEADS_PACK, else ../shared/heads beside the repository.
    Raises FileNotFoundError when the folder or one of its arrays is missing.
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self.path = Path(path or os.environ.get("HEADS_PACK") or DEFAULT_PACK)
        data = {name: self._load(name) for name in PARTS}
        mesh, targets, marks = data["mesh"], data["targets"], data["landmarks"]
        self.rest = mesh["verts"].astype(np.float32)
        self.faces, self.face_uv = mesh["faces"], mesh["face_uv"]
        self.uv = mesh["uv"].astype(np.float32)
        self.group_names = mesh["group_names"].tolist()
        self.face_group = mesh["face_group"]
        self.bone_weights = mesh["bone_weights"].astype(np.float32)
        ptr = mesh["joint_ptr"]
        self.joints = {
            name: mesh["joint_idx"][ptr[i] : ptr[i + 1]]
            for i, name in enumerate(mesh["joint_names"].tolist())
        }
        names = targets["names"].tolist()
        self._target_index = {name: i for i, name in enumerate(names)}
        self._ptr = targets["ptr"]
        self._vert = targets["vert"].astype(np.int32)
        self._delta = targets["delta"].astype(np.float32) * float(targets["unit"])
        self.sliders: dict[str, tuple[str | None, str]] = {
            key: (names[low] if low >= 0 else None, names[high])
            for key, low, high in zip(
                targets["modifier_names"].tolist(),
                targets["modifier_neg"],
                targets["modifier_pos"],
                strict=True,
            )
            if not any(word in key for word in IGNORED_SHAPES)
        }
        self._proxies = data["proxies"]
        self._proxy_cache: dict[str, Proxy] = {}
        self.landmark_names: list[str] = marks["names"].tolist()
        self._mark_index, self._mark_weight = marks["idx"], marks["weight"]
        self.beard_mask = data["masks"]["beard"].astype(np.float32)
        self.lip_mask = data["masks"]["lips"].astype(np.float32)
        self.skins = self._textures("skin")
        self.eye_colours = self._textures("eye")
        self.hairs = sorted({k.split("/")[1] for k in self._proxies if k.startswith("hair/")})

    def _load(self, name: str) -> dict[str, np.ndarray]:
        file = self.path / f"{name}.npz"
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: set HEADS_PACK to the head data pack")
        with np.load(file) as archive:
            return {key: archive[key] for key in archive.files}

    def _textures(self, kind: str) -> list[str]:
        return sorted(f.stem for f in (self.path / "textures" / kind).iterdir())

    @cached_property
    def group_vertices(self) -> dict[str, np.ndarray]:
        """Vertex indices of every face group."""
        return {
            name: np.unique(self.faces[self.face_group == i])
            for i, name in enumerate(self.group_names)
        }

    @cached_property
    def cornea_faces(self) -> np.ndarray:
        """bool [F]: faces of the transparent outer shell of the 'eye/high_poly' proxy."""
        eye = self.proxy("eye/high_poly")
        centre = eye.uv[eye.face_uv].mean(1)
        return (centre[:, 0] > 0.85) & (centre[:, 1] < 0.15)

    @cached_property
    def eye_surface(self) -> np.ndarray:
        """int [512]: vertices of the eyes' outer shells in the 'eye/high_poly' proxy."""
        return np.unique(self.proxy("eye/high_poly").faces[self.cornea_faces])

    def add_target(self, out: np.ndarray, name: str, weight: float) -> None:
        """out[V, 3] += weight * target; a target the pack leaves out moves nothing."""
        i = self._target_index.get(name)
        if i is None or weight == 0:
            return
        a, b = self._ptr[i], self._ptr[i + 1]
        out[self._vert[a:b]] += np.float32(weight) * self._delta[a:b]  # unique indices

    def joint(self, vertices: np.ndarray, name: str) -> np.ndarray:
        """Position [3] of a joint of morphed vertices [V, 3]."""
        return vertices[self.joints[name]].mean(0)

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """The 84 landmarks [84, 3] of morphed vertices [V, 3]; order: `landmark_names`."""
        return (vertices[self._mark_index] * self._mark_weight[..., None]).sum(1)

    def proxy(self, key: str) -> Proxy:
        """The fitted part '<kind>/<name>'. Raises KeyError for an unknown one."""
        if key not in self._proxy_cache:
            self._proxy_cache[key] = Proxy(
                **{f: self._proxies[f"{key}/{f}"] for f in Proxy.__dataclass_fields__}
            )
        return self._proxy_cache[key]
