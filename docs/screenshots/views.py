"""Drives Triplane in a real Blender window: a turntable of cameras, its views baked and played.

As driver.py, which see; GUI_ENV names TRIPLANE_PYTHON. Leaves views-during.png, views.png,
turntable.png (a strip), more that show what nobody needs to see every day, and figures.json in OUT.
"""

import os
import subprocess
import sys
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from common import PACKAGE, keep, module, running, show_panels

COUNT = int(os.environ.get("TRIPLANE_VIEWS", "48"))
figures = {}


def done(gui, limit=900):
    """Wait for the end of the job; the longest that our timer held Blender goes to the figures."""
    job, begun = running(), time.perf_counter()
    yield from gui.wait(lambda: running() is None, limit, 0.1)
    assert module("operators.session").failure is None, module("operators.session").failure
    seconds = round(time.perf_counter() - begun, 1)
    figures[f"{job.title} {len(figures)}"] = [seconds, round(job.longest_tick * 1000, 1)]
    yield 1


def press(gui, name):
    xy = yield from gui.find(name)
    gui.click(*xy)
    yield from gui.wait(lambda: running() is not None, 20, 0.02)
    gui.move(400, 500)


def strip(tiles, looks, gui):
    """The camera's frame of each screenshot, side by side in turntable.png."""
    region = gui.region("WINDOW")
    low, high = looks._free(gui.area(), region)
    side = int((high - low).min() * looks.PHOTO)
    left, up = (low + high) / 2 + (region.x, region.y)
    crop = f"{side}x{side}+{int(left - side / 2)}+{int(gui.HEIGHT - up - side / 2)}"
    out = os.path.join(os.environ["GUI_OUT"], "turntable.png")
    cut = ["-crop", crop, "+repage", "-resize", "160x160", "+append"]
    subprocess.run(["convert", *tiles, *cut, out], check=True)


def steps(gui):
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    bpy.context.preferences.addons[PACKAGE].preferences.python = os.environ["TRIPLANE_PYTHON"]
    view, scene = gui.area().spaces.active, bpy.context.scene
    view.overlay.show_floor = view.overlay.show_axis_x = view.overlay.show_axis_y = False
    view.overlay.show_cursor = False
    scene.render.resolution_x = scene.render.resolution_y = 256
    show_panels("views", {"views", "rig"})
    gui.sidebar("Triplane")
    yield 1
    yield from gui.widen(110)
    with gui.override("UI"):
        bpy.ops.triplane.sample_head("INVOKE_DEFAULT", seed=13, faces=12000, texture_size=1024)
    yield from done(gui)
    made = bpy.context.active_object
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(os.environ["GUI_OUT"], "views.blend"))

    # Cameras all around
    chosen = bpy.context.window_manager.triplane_views
    chosen.count, chosen.size = COUNT, 256
    gui.sidebar("Triplane")  # there only now that there is a head
    yield 2
    xy = yield from gui.find("triplane.camera_rig")
    gui.click(*xy)
    yield from gui.wait(lambda: len(bpy.data.cameras) > COUNT, 20)
    gui.move(400, 500)
    yield 1
    gui.shot("rig")

    # Cancelled half-way, and gone on with
    where = os.path.join(os.environ["GUI_OUT"], "views", scene.name)
    yield from press(gui, "triplane.bake_views")
    yield from gui.wait(lambda: running().fraction > 0.4, 900, 0.1)
    yield 0.5
    gui.shot("views-during")
    xy = yield from gui.find("triplane.cancel")
    begun = time.perf_counter()
    gui.click(*xy)
    yield from gui.wait(lambda: running() is None, 10, 0.02)
    figures["cancel_seconds"] = round(time.perf_counter() - begun, 2)
    pictures = {p for p in os.listdir(where) if p.endswith(".png")}
    figures["kept"] = len(pictures)
    times = {p: os.stat(os.path.join(where, p)).st_mtime_ns for p in pictures}
    assert 0 < len(pictures) < COUNT and figures["cancel_seconds"] < 2.5, figures
    yield 1
    gui.shot("cancelled")
    yield from press(gui, "triplane.bake_views")
    yield from done(gui)
    again = [p for p in times if os.stat(os.path.join(where, p)).st_mtime_ns != times[p]]
    assert not again, again
    assert len([p for p in os.listdir(where) if p.endswith(".png")]) == COUNT

    # Seen and played through the cameras; the mesh out of the way
    for item in bpy.context.selected_objects:
        item.select_set(False)
    made.hide_viewport, view.show_gizmo = True, False
    view.overlay.show_relationship_lines = view.overlay.show_extras = False
    looks = module("operators.build.views")
    with gui.override("WINDOW"):
        looks.look_through(bpy.context)
    yield 1
    tiles = []
    for number in range(1, COUNT + 1, max(COUNT // 8, 1)):
        scene.frame_set(number)
        yield 1.5
        gui.shot(f"turntable_{number:04d}")
        tiles.append(os.path.join(os.environ["GUI_OUT"], f"turntable_{number:04d}.png"))
    strip(tiles, looks, gui)
    scene.frame_set(1 + COUNT // 8)
    yield 1.5
    gui.shot("views")
    seen = []
    bpy.app.handlers.frame_change_post.append(lambda scene, _: seen.append(scene.frame_current))
    with gui.override("WINDOW"):
        bpy.ops.screen.animation_play()
    yield 6
    with gui.override("WINDOW"):
        bpy.ops.screen.animation_cancel(restore_frame=False)
    bpy.app.handlers.frame_change_post.clear()
    figures["frames_played_in_6_s"] = len(seen)
    assert len(set(seen)) > 5, seen
    keep(gui, figures)
