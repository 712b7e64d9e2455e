"""Drives Triplane in a real Blender window: an object from a picture, and the published models.

As driver.py, which see; GUI_ENV names TRIPLANE_PYTHON, TRIPLANE_PICTURE and TRIPLANE_MODELS, a
folder with a model for objects. Leaves object-panel.png, object-during.png, object-download.png,
object-models.png and figures.json in OUT.
"""

import os
import sys
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from common import PACKAGE, keep, module, running, shoot_preferences

figures = {}


def only_objects():
    """Of the panels those for objects, open. (Blender keeps for good what was open or closed when
    it was first drawn.)"""
    for name in ("sidebar", "seed", "blend", "views", "object"):
        for cls in reversed(module(f"panels.{name}").CLASSES):
            if issubclass(cls, bpy.types.Panel) and cls.is_registered:
                bpy.utils.unregister_class(cls)
    made = module("panels.sidebar").TRIPLANE_PT_made_object
    for cls in (*module("panels.object").CLASSES, made):
        cls.bl_options = set()
        bpy.utils.register_class(cls)


def steps(gui):
    preferences = bpy.context.preferences.addons[PACKAGE].preferences
    preferences.python = os.environ["TRIPLANE_PYTHON"]
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    view = gui.area().spaces.active
    view.overlay.show_extras = view.overlay.show_relationship_lines = False
    only_objects()
    gui.sidebar("Triplane")
    yield 1
    yield from gui.widen(130)
    gui.shot("object-no-model")
    preferences.models_folder = os.environ["TRIPLANE_MODELS"]
    settings = bpy.context.window_manager.triplane_objects
    settings.photo = os.environ["TRIPLANE_PICTURE"]
    settings.faces, settings.texture_size = 8000, 1024
    yield 3
    gui.move(500, 500)
    yield 1
    gui.shot("object-before")
    xy = yield from gui.find("triplane.reconstruct_object")
    gui.click(*xy)
    yield from gui.wait(lambda: running() is not None, 20, 0.02)
    gui.move(500, 500)
    begun, job = time.perf_counter(), running()
    yield from gui.wait(lambda: running() is None or running().fraction > 0.1, 300, 0.1)
    yield 1
    gui.shot("object-during")
    yield from gui.wait(lambda: running() is None, 500, 0.1)
    figures["seconds"] = round(time.perf_counter() - begun, 1)
    figures["longest_tick_ms"] = round(job.longest_tick * 1000, 1)
    assert module("operators.session").failure is None, module("operators.session").failure
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_orbit(angle=0.5, type="ORBITRIGHT")
        bpy.ops.view3d.view_orbit(angle=0.25, type="ORBITUP")
    yield 1
    module("operators.build.views").frame(bpy.context, [bpy.context.view_layer.objects.active])
    view.overlay.show_outline_selected = view.overlay.show_object_origins = False
    yield 2
    gui.shot("object-panel")

    # The question before a download: it opens under the mouse.
    preferences.models_folder = ""
    bpy.context.preferences.system.use_online_access = True
    gui.move(430, 330)
    yield 1
    with gui.override("WINDOW"):
        bpy.ops.triplane.model_download("INVOKE_DEFAULT", key="triposr")
    yield 2
    gui.shot("object-download")
    gui.key("Escape")
    yield 1
    bpy.context.preferences.system.use_online_access = False
    bpy.ops.triplane.open_preferences()
    yield 2
    yield from shoot_preferences(gui, "object-models")
    keep(gui, figures)
