"""Drives Triplane in a real Blender window: a head's sliders, dragged, and the head edited.

As driver.py, which see; GUI_ENV names TRIPLANE_PYTHON, TRIPLANE_PHOTO and TRIPLANE_PRESET, or in
their place TRIPLANE_FIELD, the field of a head. Leaves edit-panel.png and edit-drag.png in OUT.
"""

import os
import subprocess
import sys

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from common import PACKAGE, module, running, show_panels

WANTED = {"age": 1.5, "smile": 1.0, "jaw": -1.0}


def live():
    return module("operators.edit_live").state()


def made():
    return next((o for o in bpy.context.scene.objects if "triplane_record" in o), None)


def steps(gui):
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    bpy.context.preferences.addons[PACKAGE].preferences.python = os.environ["TRIPLANE_PYTHON"]
    bpy.context.preferences.inputs.use_mouse_continuous = False
    bpy.context.preferences.view.smooth_view = 0
    view = gui.area().spaces.active
    view.overlay.show_floor = view.overlay.show_axis_x = view.overlay.show_axis_y = False
    view.overlay.show_cursor = view.overlay.show_extras = False
    view.overlay.show_relationship_lines = view.overlay.show_outline_selected = False
    view.overlay.show_object_origins = False
    view.shading.light = "FLAT"
    show_panels("edit", {"edit"})
    gui.sidebar("Triplane")
    yield 1
    yield from gui.widen(110)
    if os.environ.get("TRIPLANE_FIELD"):
        module("api").load(os.environ["TRIPLANE_FIELD"], faces=12000, texture_size=1024)
    else:
        settings = bpy.context.window_manager.triplane
        settings.photo = os.environ["TRIPLANE_PHOTO"]
        settings.preset = os.environ.get("TRIPLANE_PRESET", "balanced")
        with gui.override("UI"):
            bpy.ops.triplane.reconstruct_head("INVOKE_DEFAULT")
        yield from gui.wait(lambda: running() is None and made() is not None, 1500)
    yield 1
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_orbit(angle=0.35, type="ORBITLEFT")
    yield 1
    view.region_3d.view_perspective = "PERSP"
    yield from gui.wait(lambda: abs(view.region_3d.window_matrix[3][3]) < 0.5, 60)
    module("operators.build.views").frame(bpy.context, [made()])
    yield 1
    gui.sidebar("Triplane")
    yield 1
    gui.shot("edit-before")

    # With the mouse down on a slider
    module("operators.sliders").settings(bpy.context).automatic = False
    own = module("operators.sliders").of(made())
    x, y = yield from gui.find("triplane_sliders.age")
    own.smile = 0.01  # the head is opened
    yield from gui.wait(lambda: live().pictures, 600)
    own.smile = 0.0
    gui.move(x, y)
    yield 0.3
    subprocess.run(["xdotool", "mousedown", "1"], check=True)
    for step in range(1, 31):
        gui.move(x + 2 * step, y)
        yield 0.05
    yield from gui.wait(
        lambda: live().shown and live().shown[0] == module("operators.edits").wanted(made()), 60
    )
    yield 0.5
    gui.shot("edit-drag")
    subprocess.run(["xdotool", "mouseup", "1"], check=True)
    yield 0.5
    for name, value in WANTED.items():
        setattr(own, name, value)
    module("operators.sliders").settings(bpy.context).automatic = True
    yield from gui.wait(lambda: running() is not None, 600, 0.02)
    yield from gui.wait(lambda: running() is None, 1500)
    gui.move(300, 500)
    yield 1
    gui.shot("edit-panel")
