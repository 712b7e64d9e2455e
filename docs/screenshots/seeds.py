"""Drives Triplane in a real Blender window: heads from seeds, and the list of models.

As driver.py, which see; GUI_ENV names TRIPLANE_PYTHON and, for the list, TRIPLANE_CHECKPOINT: any
file that the preferences can add. Leaves gallery.png, seed-head.png, between.png, meshes.png,
many.png, models.png and figures.json in OUT.
"""

import os
import sys
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from common import PACKAGE, keep, module, running, shoot_preferences, show_panels

SEEDS = int(os.environ.get("TRIPLANE_SEED", "0"))
figures = {}


def clear():
    """Nothing in the scene, nor the collections of what was."""
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    for item in list(bpy.context.scene.collection.children)[1:]:
        bpy.data.collections.remove(item)


def done(gui, limit=900):
    """Wait for the end of the job; the longest that our timer held Blender goes to the figures."""
    yield from gui.wait(lambda: running() is not None, 20)
    job, begun = running(), time.perf_counter()
    yield from gui.wait(lambda: running() is None, limit, 0.1)
    assert module("operators.session").failure is None, module("operators.session").failure
    seconds = round(time.perf_counter() - begun, 1)
    figures[job.title] = {"seconds": seconds, "tick_ms": round(job.longest_tick * 1000, 1)}
    yield 1


def press(gui, xy):
    gui.click(*xy)
    yield from gui.wait(lambda: running() is not None, 20, 0.02)
    gui.move(400, 500)


def steps(gui):
    clear()
    preferences = bpy.context.preferences.addons[PACKAGE].preferences
    preferences.python = os.environ["TRIPLANE_PYTHON"]
    view = gui.area().spaces.active
    view.overlay.show_extras = view.overlay.show_relationship_lines = False
    view.overlay.show_outline_selected = view.overlay.show_object_origins = False
    view.overlay.show_cursor = False
    view.shading.studio_light = "paint.sl"
    chosen = bpy.context.window_manager.triplane_sampling
    chosen.faces, chosen.texture_size = 20000, 1024
    chosen.seed = chosen.first = SEEDS
    shelf, frame = module("operators.shelf"), module("operators.build.views").frame
    show_panels("seed", {"seed", "gallery"})
    gui.sidebar("Triplane")
    yield 1
    yield from gui.widen(110)
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_orbit(angle=0.3, type="ORBITRIGHT")
        bpy.ops.view3d.view_orbit(angle=0.12, type="ORBITUP")
    view.region_3d.view_perspective = "PERSP"
    bpy.ops.ed.undo_push(message="Before the heads")

    # The gallery, while it fills
    xy = yield from gui.find("triplane.gallery")
    yield from press(gui, xy)
    half = shelf.PAGE - 5
    yield from gui.wait(
        lambda: len(shelf.missing(shelf.key(chosen), SEEDS, shelf.PAGE)) <= half, 300, 0.02
    )
    gui.shot("gallery")
    yield from done(gui)

    # One of them becomes a head, by the button below its picture
    xy = yield from gui.find(f"seed={SEEDS + 1}", columns=(0.36,))
    yield from press(gui, xy)
    yield from done(gui)
    frame(bpy.context, list(bpy.context.selected_objects))
    yield 2
    gui.shot("seed-head")
    count = len(bpy.data.objects)
    region = gui.region("WINDOW")
    gui.move(region.x + 300, gui.HEIGHT - region.y - 300)
    gui.key("ctrl+z")
    yield 1
    figures["objects_undone"] = count - len(bpy.data.objects)
    gui.key("ctrl+shift+z")
    yield 1
    figures["objects_redone"] = len(bpy.data.objects)

    # Two heads, five steps between them: pictures, beside the .blend
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(os.environ["GUI_OUT"], "heads.blend"))
    clear()
    show_panels("blend", {"blend"})
    chosen.heads = f"{SEEDS + 1}, {SEEDS + 5}"
    chosen.steps = 5
    yield 2
    xy = yield from gui.find("triplane.interpolate")
    yield from press(gui, xy)
    yield from done(gui)
    bpy.context.scene.frame_set(3)
    frame(bpy.context, list(bpy.context.selected_objects))
    yield 2
    gui.shot("between")

    # The same as meshes
    chosen.result = "MESHES"
    chosen.faces, chosen.texture_size, chosen.steps = 5000, 512, 3
    bpy.context.scene.frame_set(1)
    yield 1
    xy = yield from gui.find("triplane.keyframe_heads")
    yield from press(gui, xy)
    yield from gui.wait(lambda: running() is not None and running().fraction > 0.5, 900, 0.1)
    yield 0.5
    gui.shot("meshes")
    yield from done(gui)

    # Many at once
    clear()
    bpy.context.scene.frame_set(1)
    show_panels("sidebar", {"head"})
    chosen.count, chosen.seed, chosen.spacing = 6, SEEDS + 3, 0.36
    chosen.faces, chosen.texture_size = 12000, 1024
    yield 1
    with gui.override("UI"):
        bpy.ops.triplane.random_scene("INVOKE_DEFAULT")
    yield from done(gui)
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_orbit(angle=0.2, type="ORBITRIGHT")  # the back row in the gaps
        bpy.ops.view3d.view_orbit(angle=0.15, type="ORBITUP")
    view.region_3d.view_perspective = "PERSP"
    yield 1
    frame(bpy.context, list(bpy.context.selected_objects))
    yield 2
    gui.shot("many")
    yield from models(gui, preferences)
    keep(gui, figures)


def models(gui, preferences):
    """The list of models, one added and checked."""
    bpy.ops.triplane.open_preferences()
    yield 1
    with gui.override("UI"):
        bpy.ops.triplane.model_add(
            "INVOKE_DEFAULT", filepath=os.environ["TRIPLANE_CHECKPOINT"], name="cars"
        )
    yield from done(gui)
    with gui.override("UI"):
        bpy.ops.triplane.model_verify("INVOKE_DEFAULT", name="cars")
    yield from gui.wait(lambda: running() is None, 60)
    yield 1
    yield from shoot_preferences(gui, "models", top=420)
