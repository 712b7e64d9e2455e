"""What the job `dataset` does. Imports torch: only from inside a job's run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.cameras import Camera
from engine.errors import ParameterError
from engine.jobs import result_stages
from engine.jobs.base import Context, Result
from engine.jobs.views_stages import Subject, make_folder, open_subject, read_views, write_views
from engine.surface import isosurface
from engine.surface.export import write_whole
from engine.views import scenes
from engine.views.frame import Frame
from engine.views.images import png_bytes
from engine.views.points import Cloud, colmap_text, ply_bytes, scatter
from engine.views.sequence import Style

DEPTH_UNIT = 1e-4  # scene units per step of a depth picture
GRID = 112  # cells along the box: points need no finer surface
CUBE = 0.9  # of instant-ngp's unit cube is filled by the head
FIRST = 0.85  # of the work is pictures


@dataclass(frozen=True)
class DataStyle(Style):
    """A picture with its mask and its depth, each in a folder of its own."""

    def write(self, path: Path, frame: Frame, camera: Camera) -> None:
        unit = self.scene_unit(camera)
        steps = np.where(np.isfinite(frame.depth), frame.depth * unit / DEPTH_UNIT + 0.5, 0)
        depth = steps.clip(0, 65535).astype(np.uint16)
        mask = (frame.alpha >= 0.5).astype(np.uint8) * 255
        root, name = path.parent.parent, path.name
        # The picture last: where it is, the others are.
        write_whole({
            root / "masks" / name: png_bytes(mask),
            root / "depth" / name: png_bytes(depth),
            path: png_bytes(frame.rgba),
        })  # fmt: skip


def make_dataset(params: dict[str, Any], context: Context) -> Result:
    """The job `dataset`."""
    context.progress(0.0, "loading the field")
    subject = open_subject(params, context)
    world = subject.field_to_world
    views = read_views(params | {"orthographic": False}, subject.field, world)
    if any(view.camera.orthographic for view in views):
        raise ParameterError("A data set's cameras cannot be orthographic.")
    folder = make_folder(params["folder"])
    style = DataStyle(field_to_world=tuple(float(x) for x in world.ravel()))
    frames = write_views(subject, views, folder, "view", style, context, FIRST, "images")
    context.progress(FIRST, "placing points on the surface")
    cloud = _points(subject, params["points"], context)
    context.progress(0.97, "writing the list of files")
    cameras = [view.camera for view in views]
    names = [Path(frame["path"]).name for frame in frames]
    extra = [{"mask_path": f"masks/{name}", "depth_file_path": f"depth/{name}"} for name in names]
    transforms = scenes.to_transforms(cameras, [f"images/{n}" for n in names], world, extra)
    transforms = _scene_keys(cloud) | transforms
    texts = scenes.to_colmap(cameras, names, world) | {"points3D.txt": colmap_text(cloud)}
    files = {folder / "sparse" / "0" / name: text.encode() for name, text in texts.items()}
    files[folder / "points3d.ply"] = ply_bytes(cloud)
    files[folder / "transforms.json"] = json.dumps(transforms, indent=1).encode()
    write_whole(files)
    meta = {
        "folder": str(folder),
        "frames": frames,
        "made": sum(frame["made"] for frame in frames),
        "points": len(cloud.positions),
        "versions": result_stages.versions(),
    }
    return context.result(meta)


def _points(subject: Subject, count: int, context: Context) -> Cloud:
    mesh = isosurface.extract(subject.field, GRID, context.check)
    return scatter(mesh, subject.field, count, subject.field_to_world)


def _scene_keys(cloud: Cloud) -> dict[str, Any]:
    """What transforms.json says of the scene: where instant-ngp's unit cube lies, what nerfstudio
    has done to the world (nothing), the unit of depth pictures."""
    low, high = cloud.low, cloud.high
    scale = CUBE / float(np.max(high - low))
    return {
        "aabb_scale": 1,
        "scale": scale,
        "offset": (0.5 - scale * (low + high) / 2).tolist(),
        "applied_transform": np.eye(4)[:3].tolist(),
        "applied_scale": 1.0,
        "ply_file_path": "points3d.ply",
        "enable_depth_loading": True,
        "integer_depth_scale": DEPTH_UNIT,
    }
