"""The extension's preferences."""

import os

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, StringProperty

from ..operators import preflight, session, shelf
from . import models, text

DEVICES = (
    ("auto", "Automatic", "The fastest that the engine finds"),
    ("cuda", "CUDA", "An NVIDIA graphics card"),
    ("mps", "MPS", "Apple's graphics"),
    ("xpu", "XPU", "Intel graphics"),
    ("cpu", "Processor", "The computer's own cores"),
)
PRECISIONS = (
    ("auto", "Automatic", "Half precision where the device is faster with it"),
    ("float32", "Full", "32-bit numbers throughout"),
    ("bfloat16", "Half", "16-bit numbers where they do no harm: less memory"),
)
KEEP = (
    ("PACKED", "In the .blend", "The file alone is enough, wherever it is moved"),
    ("BESIDE", "Beside the .blend", "A smaller .blend; packed where it has not been saved yet"),
)


def _engine_changed(self, context):
    session.engine_facts = ""
    session.forget_failure()
    preflight.forget()


def _models_changed(self, context):
    session.forget_failure()
    shelf.forget()


class TRIPLANE_AP_preferences(bpy.types.AddonPreferences):
    bl_idname = session.PACKAGE

    python: StringProperty(
        name="Python",
        description=(
            "The interpreter that runs the engine, for instance of an environment with PyTorch "
            "for your graphics card; empty: Blender's own"
        ),
        subtype="FILE_PATH",
        update=_engine_changed,
    )
    device: EnumProperty(
        name="Device",
        description=(
            "What added models compute on; one that this computer lacks is refused. "
            "The built-in head model is so small that it always uses the processor"
        ),
        items=DEVICES,
        update=_engine_changed,
    )
    precision: EnumProperty(
        name="Precision",
        description=("How exactly networks keep their numbers; geometry is always 32 bits"),
        items=PRECISIONS,
    )
    memory_limit: FloatProperty(
        name="Memory Limit",
        description="Memory in gigabytes that the engine may use; 0: no limit",
        default=0.0,
        min=0.0,
        max=1024.0,
        precision=1,
    )
    idle_minutes: IntProperty(
        name="Idle Time",
        description="Minutes without work after which the engine gives its memory back; 0: never",
        default=5,
        min=0,
        max=1440,
    )
    models_folder: StringProperty(
        name="Models Folder",
        description="Where added models are kept; empty: the extension's own folder",
        subtype="DIR_PATH",
        update=_models_changed,
    )
    folder: StringProperty(
        name="Folder",
        description="Where the engine's log goes; empty: the extension's own folder",
        subtype="DIR_PATH",
    )
    keep_field: EnumProperty(
        name="Keep the Field",
        description="Where a head's radiance field is kept, from which it can be extracted anew",
        items=KEEP,
    )

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False

        column = layout.column(heading="Engine")
        column.prop(self, "python", placeholder="Blender's own")
        column.prop(self, "device")
        column.prop(self, "precision")
        column.prop(self, "memory_limit", text="Memory Limit (GB)")
        column.prop(self, "idle_minutes", text="Idle Time (minutes)")
        self._draw_check(context, layout)

        models.draw(context, layout, self)

        column = layout.column(heading="Files")
        column.prop(self, "folder")
        column.prop(self, "keep_field")
        if os.path.isfile(session.log_path()):
            row = layout.row()
            row.alignment = "RIGHT"
            text.log_button(row, session.log_path())

    def _draw_check(self, context, layout):
        box = layout.box()
        running, missing = session.running(), preflight.missing()
        if running is not None and running.place != "models":
            text.wrapped(context, box, f"{running.title}: {running.step}", "TIME")
            return
        if missing is not None:
            text.wrapped(context, box, missing.sentence, "ERROR")
        elif session.failure is not None and session.failure_place != "models":
            text.wrapped(context, box, session.failure.sentence, "ERROR")
            if session.failure.remedy:
                text.wrapped(context, box, session.failure.remedy, "BLANK1")
        elif session.engine_facts:
            text.wrapped(context, box, f"The engine works: {session.engine_facts}.", "CHECKMARK")
        box.operator("triplane.check_engine", icon="FILE_REFRESH")


def register():
    bpy.utils.register_class(TRIPLANE_AP_preferences)


def unregister():
    bpy.utils.unregister_class(TRIPLANE_AP_preferences)
