"""A picture of the field itself, through Blender's camera."""

import json

import bpy
import numpy as np
from bpy.props import IntProperty

from .build import camera, head, images, png
from .fieldjob import FieldOperator


class TRIPLANE_OT_render_field(FieldOperator, bpy.types.Operator):
    """Render the active head's radiance field through the scene's camera into an image"""

    bl_idname = "triplane.render_field"
    bl_label = "Render Field"
    bl_options = {"UNDO"}

    job = "render"
    title = "Rendering the field"

    size: IntProperty(
        name="Size",
        description="Longest side of the image; its shape is the scene's",
        subtype="PIXEL",
        default=512,
        min=16,
        max=4096,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context):
        if not super().poll(context):
            return False
        chosen = context.scene.camera
        if chosen is None or chosen.type != "CAMERA" or chosen.data.type != "PERSP":
            cls.poll_message_set("The scene needs an active perspective camera")
            return False
        return True

    def setup(self, context):
        made, render = head.active(context), context.scene.render
        width, height = render.resolution_x, render.resolution_y
        scale = self.size / max(width, height)
        seen = camera.from_blender(
            context.scene.camera,
            context.evaluated_depsgraph_get(),
            max(1, round(width * scale)),
            max(1, round(height * scale)),
            (render.pixel_aspect_x, render.pixel_aspect_y),
            head.field_to_world(made),
        )
        self._name = f"{made.name} field render"
        return {"field": self.write_field(made), "camera": json.dumps(seen.to_json())}

    def prepare(self, result):
        return png.encode(np.ascontiguousarray(result["arrays"]["image"]))

    def finish(self, context, prepared):
        image = images.packed(self._name, prepared, f"{self._name}.png")
        image.use_fake_user = False
        shown = False
        for window in context.window_manager.windows:
            for area in window.screen.areas:
                if area.type == "IMAGE_EDITOR":
                    area.spaces.active.image = image
                    shown = True
        where = "" if shown else "; open it in an Image Editor"
        self.report({"INFO"}, f"Rendered to the image {image.name}{where}")
