"""Views of a head as data for training: pictures, masks, depth, cameras, points."""

import json
import os

import bpy
import numpy as np
from bpy.props import FloatProperty

from ..engine.errors import ParameterError
from . import viewing
from .build import field, head, seen
from .fieldjob import FieldOperator


class TRIPLANE_OT_export_dataset(
    viewing.Size, viewing.Dataset, viewing.Folder, FieldOperator, bpy.types.Operator
):
    """Render a data set for training from the active head: pictures with transparency, masks and
    depth, transforms.json for nerfstudio and instant-ngp, text files of COLMAP, and points of the
    surface. Pictures that are there already are not made again"""

    bl_idname = "triplane.export_dataset"
    bl_label = "Export Data Set"

    job = "dataset"
    title = "Rendering the data set"
    place = "views"

    lowest: FloatProperty(
        name="Lowest",
        description="Pitch in degrees of the lowest cameras",
        default=-30.0,
        min=-90.0,
        max=89.0,
        options={"SKIP_SAVE"},
    )
    highest: FloatProperty(
        name="Highest",
        description="Pitch in degrees of the highest cameras",
        default=60.0,
        min=-89.0,
        max=90.0,
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the panel says."""
        viewing.fill(self, context, viewing.Size, viewing.Dataset, viewing.Folder)
        return super().invoke(context, event)

    def setup(self, context):
        made = head.active(context)
        context.view_layer.update()
        world = head.field_to_world(made)
        turned = world[:3, :3] / np.cbrt(abs(np.linalg.det(world[:3, :3])))
        if not np.allclose(turned @ turned.T, np.eye(3), atol=1e-5) or np.linalg.det(turned) < 0:
            raise ParameterError(
                f"{made.name} is stretched or mirrored, which a data set's cameras cannot be.",
                "Scale it equally along all axes.",
            )
        path, cameras = self.write_field(made), self._sphere()
        if self.chosen:
            cameras = os.path.join(self._folder, "cameras.json")
            field.write_whole(cameras, self._selected(context, made))
        name = viewing.file_name(made.name)
        into = viewing.folder(self.folder)
        return {
            "field": path,
            "cameras": cameras,
            "size": max(16, self.size or 512),
            "points": self.points,
            "field_to_world": [float(x) for x in world.ravel()],
            "folder": into if self.folder else os.path.join(into, f"{name}_data"),
        }

    def prepare(self, result):
        return result["meta"]

    def finish(self, context, prepared):
        count = len(prepared["frames"])
        text = f"{count} views in {prepared['folder']}"
        if prepared["made"] < count:
            text += f", {count - prepared['made']} of {count} were there already"
        self.report({"INFO"}, text + viewing.warning(self.folder))

    def _sphere(self):
        low, high = sorted((self.lowest, self.highest))
        if low < high:
            return f"sphere:{self.views}:{low:.6g}:{high:.6g}"
        return f"circle:{self.views}:{low:.6g}"

    def _selected(self, context, made):
        chosen = sorted(
            (o for o in context.selected_objects if o.type == "CAMERA"), key=lambda o: o.name
        )
        if not chosen:
            raise ParameterError("No camera is selected.", "Select the data set's cameras.")
        now = [context.scene.frame_current]
        views = seen.through(context, made, lambda scene: chosen, now, self.size)
        return json.dumps([camera.to_json() for _, _, camera, _ in views]).encode()
