"""Cameras around the head."""

import os
from dataclasses import replace

import bpy

from ..engine.errors import TriplaneError
from ..engine.views import rigs
from . import polls, viewing
from .build import head, rig

LABELS = {kind: label for kind, label, _ in viewing.RIGS}


class TRIPLANE_OT_camera_rig(viewing.Rig, bpy.types.Operator):
    """Put cameras around the active head: for a turntable, a character sheet, a data set"""

    bl_idname = "triplane.camera_rig"
    bl_label = "Add Cameras"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        return polls.has_head(cls, context)

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the panel says."""
        viewing.fill(self, context, viewing.Rig)
        return self.execute(context)

    def execute(self, context):
        made, scene = head.active(context), context.scene
        context.view_layer.update()
        try:
            found, to_world = self._cameras(made, scene)
        except TriplaneError as error:
            self.report({"ERROR"}, f"{error.sentence} {error.remedy}".strip())
            return {"CANCELLED"}
        title = f"{made.name} {LABELS[self.rig].lower()}"
        objects = rig.build(context, title, self.rig, found, to_world)
        head.select(context, made)  # stays the one to work on, with its new cameras selected
        for camera in objects:
            camera.select_set(True)
        scene.camera = objects[0]
        if self.markers:
            rig.bind(scene, objects, scene.frame_start)
            scene.frame_set(scene.frame_start)
        text = f"{len(objects)} cameras" if len(objects) > 1 else "One camera"
        sizes = {(c.width, c.height) for c in found}
        if self.rig == "FILE" and len(sizes) == 1:
            rig.take_resolution(scene, found[0])  # elsewhere, cameras have one
            text += ", and the scene's resolution is theirs"
        elif self.rig == "FILE":
            text += " for pictures of different sizes: each is seen right at its own size only"
        self.report({"INFO"}, text)
        return {"FINISHED"}

    def _cameras(self, made, scene):
        """The cameras, and [4, 4] from their space to the world."""
        if self.rig == "FILE":
            path = os.path.normpath(bpy.path.abspath(self.filepath))
            found = rig.read(path)
            return found, rig.UNMOVED
        stage, to_world = rig.around(made, scene)
        stage = replace(stage, orthographic=self.orthographic)
        if self.rig == "CIRCLE":
            return rigs.circle(stage, self.count, self.pitch), to_world
        if self.rig == "SPHERE":
            low, high = sorted((self.lowest, self.highest))
            return rigs.sphere(stage, self.count, low, high), to_world
        return rigs.named(stage), to_world
