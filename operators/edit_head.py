"""A head along semantic directions: older, a smile, more hair."""

import bpy
from bpy.props import StringProperty

from ..engine.errors import ParameterError, TriplaneError
from . import edit_live, edits, parameters, polls, sliders
from .build import edited, head
from .remake import Remake


class TRIPLANE_OT_edit_head(Remake, bpy.types.Operator):
    """Make mesh, texture and field of the active head as its sliders say. One step to undo"""

    bl_idname = "triplane.edit_head"
    bl_label = "Apply Edits"
    bl_options = {"UNDO"}

    title = "Editing the head"
    place = "edit"

    edits: StringProperty(
        name="Edits",
        description=(
            "Amounts by direction, such as age=1, smile=0.5, of the head as it was before any "
            "edit; 'none' for that head itself. Not given: as its sliders say"
        ),
        options={"SKIP_SAVE"},
    )
    head: StringProperty(
        name="Head", description="Its name; empty: the active one", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        return super().poll(context) and polls.editable(cls, context)

    def setup(self, context):
        made = context.scene.objects.get(self.head) if self.head else head.active(context)
        if made is None or head.RECORD not in made:
            raise ParameterError(f"There is no head named {self.head}.")
        reason = edits.refusal(made)
        if reason:
            raise ParameterError(f"{reason}.")
        sliders.prepare(made)
        if self.properties.is_property_set("edits"):
            plain = "" if self.edits.strip().lower() == "none" else self.edits
            try:
                amounts = edits.parse(plain, sliders.known(made))
            except ValueError as error:
                raise ParameterError(str(error)) from error
        else:
            amounts = edits.amounts(made)
        self._amounts, self._text = amounts, edits.text(amounts)
        kept = head.record(made).get("parameters") or {}
        names = ("faces", "texture_size", *parameters.QUADS)
        sizes = {name: kept[name] for name in names if name in kept}
        edit_live.begun(made.name)
        self._begun = True
        return self.take(made, edit_live.field_file(made), self._text, sizes)

    def finish(self, context, prepared):
        made = self.still_there(context)
        if made.mode != "OBJECT":
            raise TriplaneError(f"{made.name} is being edited by hand.", "Leave that mode first.")
        if self._text and not prepared.field:
            raise TriplaneError("The engine gave no edited field.")
        lost = edited.replace(made, prepared, self._text)
        if not edit_live.state().dirty and not edits.animated(made):
            edits.put(made, self._amounts)
        edit_live.ended(made, refined=True)
        self._begun = False
        what = f"{made.name}: {self._text}" if self._text else f"{made.name} is as it was made"
        if lost:
            self.report({"WARNING"}, f"{what}. Lost with the old mesh: {', '.join(lost)}")
        else:
            self.report({"INFO"}, what)

    def cleanup(self):
        super().cleanup()
        if getattr(self, "_begun", False):  # cancelled, or it failed
            self._begun = False
            edit_live.ended(bpy.data.objects.get(self._name), refined=False)

    def modal(self, context, event):
        if event.type == "ESC" and event.value == "PRESS" and bpy.ops.triplane.cancel.poll():
            bpy.ops.triplane.cancel()
            return {"RUNNING_MODAL"}
        return super().modal(context, event)
