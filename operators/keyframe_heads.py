"""Meshes from one head to another, one after the other."""

import bpy
from bpy.props import IntProperty

from . import newhead, sampling
from .batch import BatchOperator, Task
from .build import collect, head, views
from .headlist import HeadPath


class TRIPLANE_OT_keyframe_heads(
    HeadPath,
    BatchOperator,
    sampling.Path,
    sampling.Latent,
    sampling.Held,
    sampling.Mesh,
    sampling.Kept,
    bpy.types.Operator,
):
    """Turn one head into another in meshes, each to be seen in its own frames by keyframes"""

    bl_idname = "triplane.keyframe_heads"
    bl_label = "Make Meshes"
    bl_options = {"UNDO"}

    job = "sample"
    place = "blend"

    start: IntProperty(
        name="Start",
        description="Frame of the scene from which on the first mesh is seen",
        default=1,
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        self.fill_path(context, ("hold", *sampling.MESH))
        return super().invoke(context, event)

    def tasks(self, context):
        self.take_path(context)
        whole = self.whole_name()
        self._into, self._names, self._matrix = collect.Collection(whole), {}, None
        self._x = head.free_place(context.scene)
        common = self.head_parameters() | self.mesh_parameters()
        count = (len(self.labels) - 1) * (self.steps - 1) + 1
        found = []
        for number in range(count):
            name = f"{whole}, {number + 1}"
            found.append(Task(name, common | {"at": number / (self.steps - 1), "name": name}))
        return found

    def prepare(self, result):
        # All stand as the first: each on its own lowest point would make them jump.
        prepared = head.prepare(result["meta"], result["arrays"], self._matrix)
        self._matrix = prepared.field_to_object
        return prepared

    def finish_task(self, context, index, prepared):
        kept = self.mesh_parameters()
        made = newhead.build(context, prepared, kept, self._into.get(context), self.keep_fields)
        made.location.x = self._x
        made.hide_viewport = made.hide_render = bool(self._names)  # the first stays for now
        self._names[index] = made.name

    def conclude(self, context, done):
        made = collect.still_there(context, (self._names[i] for i in done))
        index = {self._names[i]: i for i in done}
        starts = [self.start + index[one.name] * self.hold for one in made]
        for number, one in enumerate(made):
            following = starts[number + 1] if number + 1 < len(made) else None
            # The first is there from ever: before the start, and for what was left out there.
            _show(one, starts[number] if number else None, following)
        context.scene.frame_set(self.start)
        if made:
            head.select(context, made[0])
            views.frame(context, made[:1])
        last = self.start + len(self._tasks) * self.hold - 1
        return f"{len(done)} meshes, frames {self.start} to {last}"


def _show(one, start, end):
    """Keyframes that show `one` from frame `start` (None: from ever) to before `end` (None: for
    ever). Blender steps between values of this kind; no interpolation has to be set."""
    keys = []
    if start is not None:
        keys += [(start - 1, True), (start, False)]
    if end is not None:
        keys += [(end - 1, False)] if start is None or end - 1 > start else []
        keys += [(end, True)]
    for path in ("hide_viewport", "hide_render"):
        for frame, hidden in keys:
            setattr(one, path, hidden)
            one.keyframe_insert(path, frame=frame)
