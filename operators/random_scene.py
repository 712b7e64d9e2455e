"""Many heads at once, in a scene."""

import bpy
from bpy.props import FloatVectorProperty

from . import newhead, sampling
from .batch import BatchOperator, Task
from .build import collect, head, layout, views


class TRIPLANE_OT_random_scene(
    BatchOperator,
    sampling.Crowd,
    sampling.Latent,
    sampling.Mesh,
    sampling.Kept,
    bpy.types.Operator,
):
    """Make many heads, each from its own seed, and place them in the scene"""

    bl_idname = "triplane.random_scene"
    bl_label = "Make Heads"
    bl_options = {"UNDO"}

    job = "sample"
    title = "Making heads"
    place = "scene"

    seed: sampling.seed("First Seed", "Seed of the first head; the others have the next numbers")
    location: FloatVectorProperty(
        name="Location",
        description="The middle of them all, on the floor",
        subtype="TRANSLATION",
        default=(0.0, 0.0, 0.0),
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says; at the 3D cursor."""
        names = ("seed", "count", "layout", "spacing", *sampling.NAMES, *sampling.MESH)
        sampling.fill(self, context, names)
        if not self.properties.is_property_set("location"):
            self.location = context.scene.cursor.location
        return super().invoke(context, event)

    def tasks(self, context):
        self._places = layout.places(self.layout, self.count, self.spacing)
        self._into = collect.Collection("heads")
        self._names = {}
        common = self.latent() | self.mesh_parameters()
        found = []
        for number in range(self.seed, min(self.seed + self.count, sampling.LAST_SEED + 1)):
            name = f"head {number}"
            found.append(Task(name, common | {"heads": str(number), "name": name}))
        return found

    def prepare(self, result):
        return head.prepare(result["meta"], result["arrays"])

    def finish_task(self, context, index, prepared):
        kept = self.mesh_parameters()
        made = newhead.build(context, prepared, kept, self._into.get(context), self.keep_fields)
        x, y, turn = self._places[index]
        made.location = (self.location[0] + x, self.location[1] + y, self.location[2])
        made.rotation_euler.z = turn
        self._names[index] = made.name

    def conclude(self, context, done):
        made = collect.still_there(context, (self._names[i] for i in done))
        collect.select(context, made)
        views.frame(context, made)
        return f"{len(done)} heads are ready" if len(done) > 1 else "One head is ready"
