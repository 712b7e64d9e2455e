"""The mesh again, from the field that the head keeps."""

import bpy

from . import parameters, polls
from .build import edited, head
from .remake import Remake


class TRIPLANE_OT_extract_mesh(Remake, parameters.Quads, bpy.types.Operator):
    """Replace the active head's mesh and texture by ones newly made from its field"""

    bl_idname = "triplane.extract_mesh"
    bl_label = "Extract Mesh Again"
    bl_options = {"UNDO"}

    title = "Extracting the mesh"

    faces: parameters.Parameters.__annotations__["faces"]
    texture_size: parameters.Parameters.__annotations__["texture_size"]

    @classmethod
    def poll(cls, context):
        return super().poll(context) and polls.in_object_mode(cls, context)

    def invoke(self, context, event):
        chosen = parameters.settings(context)
        parameters.fill(self, chosen, ("faces", "texture_size", *parameters.QUADS))
        return super().invoke(context, event)

    def setup(self, context):
        made = head.active(context)
        path = self.write_field(made, "field", edited.base_bytes)
        sizes = {"faces": self.faces, "texture_size": self.texture_size}
        self._sizes = sizes | self.quad_parameters()
        return self.take(made, path, edited.applied(made), self._sizes)

    def finish(self, context, prepared):
        made = self.still_there(context)
        head.rebuild(context, made, prepared)
        head.note(made, self._sizes)
        self.report({"INFO"}, f"{made.name}: {len(prepared.faces):,} faces")
