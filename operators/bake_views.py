"""A head's field through the scene's cameras, as image sequences that the cameras show."""

import json
import os

import bpy
import numpy as np
from mathutils import Vector

from ..engine.errors import ParameterError
from . import edits, models, viewing
from .batch import BatchOperator, Task
from .build import edited, field, head, linked, seen
from .fieldjob import FieldOperator


class TRIPLANE_OT_bake_views(
    viewing.Size,
    viewing.Format,
    viewing.Through,
    viewing.Linking,
    viewing.Folder,
    FieldOperator,
    BatchOperator,
    bpy.types.Operator,
):
    """Render the active head's field through Blender's cameras, frame by frame, into an image
    sequence that each camera shows. Pictures that are there already are not made again"""

    bl_idname = "triplane.bake_views"
    bl_label = "Bake Views to Camera"
    bl_options = {"UNDO"}

    job = "views"
    title = "Baking views"
    place = "views"

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the panel says."""
        parts = (viewing.Size, viewing.Format, viewing.Through, viewing.Linking, viewing.Folder)
        viewing.fill(self, context, *parts)
        return super().invoke(context, event)

    def tasks(self, context):
        made = head.active(context)
        context.view_layer.update()
        self._head, self._stem = made.name, viewing.file_name(made.name)
        self._kept = 0
        sequences = self._sequences(context, made)
        self._where = viewing.folder(self.folder)
        common = {"name": self._stem, "format": self.format}
        common |= self._field_parameters(context, made, sequences)
        self._plans, found = [], []
        for name, views in sequences.items():
            into = self._where
            if len(sequences) > 1 or not self.folder:
                into = os.path.join(into, viewing.file_name(name))
            plan = _Plan(name, views, into, made, context.scene)
            self._plans.append(plan)
            listed = [
                {"frame": f, "camera": c.to_json(), "field_to_world": w.ravel().tolist()}
                | ({"edits": self._edits[f]} if self._edits else {})
                for f, _, c, w in views
            ]
            path = os.path.join(self._folder, f"cameras-{len(found)}.json")
            field.write_whole(path, json.dumps(listed).encode())
            world = [float(x) for x in views[0][3].ravel()]
            task = {"cameras": path, "folder": into, "field_to_world": world}
            found.append(Task(name, common | task))
        return found

    def _field_parameters(self, context, made, sequences):
        """Where the head's sliders are animated every frame has its own edits of the unedited
        field."""
        self._edits, self._applied = {}, edited.applied(made)
        if not edits.animated(made) or edits.refusal(made):
            return {"field": self.write_field(made)}
        frames = sorted({view[0] for views in sequences.values() for view in views})
        self._edits = edits.at_frames(context, made, frames)
        path = self.write_field(made, "field", edited.base_bytes)
        return {"field": path, "models": models.folder()}

    def overall(self, event):
        """Of one camera there is nothing to count, and the engine knows best how long it takes."""
        if len(self._tasks) == 1:
            return event["step"], event["fraction"], event["seconds_left"]
        return super().overall(event)

    def item(self, context, event):
        self._kept += 1
        super().item(context, event)

    def finish_task(self, context, index, prepared):
        plan, frames = self._plans[index], prepared["meta"]["frames"]
        plan.made = sum(frame["made"] for frame in frames)
        facts = {
            "head": self._head,
            "camera": plan.name,
            "frames": [plan.first, plan.count],
            "edits": edits.ANIMATED if self._edits else self._applied,
            "versions": prepared["meta"]["versions"],
        }
        shown = linked.image(frames[0]["path"], f"{self._head} {plan.name}", facts)
        for name, distance in plan.cameras.items():
            camera = context.scene.objects.get(name)
            if camera is None or camera.type != "CAMERA" or camera.data.library is not None:
                continue  # deleted or renamed meanwhile, or another file's
            if self.background:
                linked.background(camera, shown, plan.first, plan.count)
            if self.plane:
                linked.plane(camera, shown, plan.first, plan.count, distance, plan.shape)
        if self.compositor:
            linked.compositor(context.scene, shown, plan.first, plan.count)

    def conclude(self, context, done):
        plans = [self._plans[i] for i in done]
        count, made = sum(p.count for p in plans), sum(p.made for p in plans)
        where = plans[0].folder if len(plans) == 1 else self._where
        text = f"{count} pictures in {where}" if count > 1 else f"One picture in {where}"
        if made < count:
            text += f", {count - made} of {count} were there already"
        return text + viewing.warning(self.folder)

    def _outcome(self, context):
        if self._cancelled and not self._done and self._kept:
            text = f"Cancelled: {self._kept} finished pictures stay in {self._where}"
            self.report({"INFO"}, f"{text}; bake again to go on")
            return {"CANCELLED"}
        return super()._outcome(context)

    def _sequences(self, context, made):
        """What to render, by the name of the sequence: see seen.through."""
        given = self.properties.is_property_set
        frames = self.frames
        if not given("frames") and (given("frame_start") or given("frame_end")):
            frames = "RANGE"
        scene = context.scene
        if frames == "CURRENT":
            numbers = [scene.frame_current]
        elif frames == "SCENE":
            numbers = range(scene.frame_start, scene.frame_end + 1)
        else:
            numbers = range(self.frame_start, max(self.frame_start, self.frame_end) + 1)
        if numbers[0] < 0:
            raise ParameterError("Frames before 0 cannot be baked.", "Choose frames from 0 on.")
        if self.camera:
            camera = scene.objects.get(self.camera)
            if camera is None or camera.type != "CAMERA":
                raise ParameterError(f"There is no camera named {self.camera} in the scene.")
            views = seen.through(context, made, lambda scene: [camera], numbers, self.size)
        elif self.which == "SELECTED":
            chosen = sorted(
                (o for o in context.selected_objects if o.type == "CAMERA"), key=lambda o: o.name
            )
            if not chosen:
                raise ParameterError("No camera is selected.", "Select the cameras to bake.")
            views = seen.through(context, made, lambda scene: chosen, numbers, self.size)
        else:
            views = seen.through(context, made, _of_scene, numbers, self.size)
        found = {}
        alone = self.which == "SCENE" and not self.camera
        names = {camera.name for _, camera, _, _ in views}
        for view in views:
            # Where markers change the camera, all that the scene shows is one sequence.
            name = scene.name if alone and len(names) > 1 else view[1].name
            found.setdefault(name, []).append(view)
        return found


def _of_scene(scene):
    if scene.camera is None or scene.camera.type != "CAMERA":
        raise ParameterError("The scene has no camera.", "Add one, or select those to bake.")
    return [scene.camera]


class _Plan:
    """What becomes of one sequence: its frames, folder and cameras (by name, with the distance at
    which the head is seen first)."""

    def __init__(self, name, views, folder, made, scene):
        self.name, self.folder, self.made = name, folder, 0
        self.first, self.count = views[0][0], len(views)
        seen_camera = views[0][2]
        self.shape = (seen_camera.width * seen_camera.pixel_aspect, float(seen_camera.height))
        middle = np.mean([made.matrix_world @ Vector(c) for c in made.bound_box], 0)
        self.cameras = {}
        for _, camera, _, _ in views:
            if camera.name not in self.cameras:
                inverse = np.linalg.inv(np.array(camera.matrix_world.normalized()))
                depth = -float((inverse @ [*middle, 1.0])[2])
                low, high = camera.data.clip_start * 1.01, camera.data.clip_end * 0.99
                self.cameras[camera.name] = min(max(depth, low), high)
