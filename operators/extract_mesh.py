"""The mesh again, from the field that the head keeps."""

import bpy

from ..engine.errors import TriplaneError
from . import models, parameters, polls
from .build import head
from .fieldjob import FieldOperator


class TRIPLANE_OT_extract_mesh(FieldOperator, parameters.Quads, bpy.types.Operator):
    """Replace the active head's mesh and texture by ones newly made from its field"""

    bl_idname = "triplane.extract_mesh"
    bl_label = "Extract Mesh Again"
    bl_options = {"UNDO"}

    job = "extract"
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
        self._name = made.name
        self._field_to_object = list(made["triplane_field_to_object"])
        parameters = {
            "field": self.write_field(made),
            "faces": self.faces,
            "texture_size": self.texture_size,
            **self.quad_parameters(),
        }
        # Visible skin comes from the photo, as it did the first time; the built-in model's pictures
        # show no more than its fields, and objects' pictures fit their fields loosely.
        fields_only = head.recipe(made).get("model") == models.BUILT_IN or head.is_object(made)
        photo = "" if fields_only else self.write_photo(made)
        if photo:
            parameters |= {"photo": photo, "camera": made["triplane_camera"]}
        return parameters

    def prepare(self, result):
        return head.prepare(
            result["meta"] | {"name": self._name}, result["arrays"], self._field_to_object
        )

    def finish(self, context, prepared):
        made = context.scene.objects.get(self._name)
        if made is None:
            raise TriplaneError("The head was removed or renamed meanwhile.")
        head.rebuild(context, made, prepared)
        self.report({"INFO"}, f"{made.name}: {len(prepared.faces):,} faces")
