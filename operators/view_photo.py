"""Look at the head as its photo does."""

import bpy

from .build import head, views


class TRIPLANE_OT_view_photo(bpy.types.Operator):
    """Look through the photo's camera, with the scene's image as large as the photo"""

    bl_idname = "triplane.view_photo"
    bl_label = "View Through Photo Camera"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        made = head.active(context)
        if made is None or head.photo_camera(made) is None:
            cls.poll_message_set("Select a head whose photo camera still exists")
            return False
        return True

    def execute(self, context):
        camera, scene = head.photo_camera(head.active(context)), context.scene
        scene.camera = camera
        scene.render.resolution_x, scene.render.resolution_y = camera["triplane_resolution"]
        scene.render.resolution_percentage = 100
        scene.render.pixel_aspect_x = scene.render.pixel_aspect_y = 1.0
        views.look_through(context)
        return {"FINISHED"}
