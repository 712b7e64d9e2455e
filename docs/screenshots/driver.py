"""Drives Triplane in a real Blender window and takes the pictures in docs/images.

A driver of the project's GUI runner: blender-gui.sh run EXTENSION.zip driver.py OUT, with GUI_ENV
naming TRIPLANE_PYTHON, the engine's interpreter; TRIPLANE_PHOTO; TRIPLANE_PRESET. For example

    SIZE=1280x800 LIMIT=1500
    GUI_ENV="TMPDIR=OUT/tmp OMP_WAIT_POLICY=PASSIVE TRIPLANE_PYTHON=$PWD/.venv/bin/python
    TRIPLANE_PHOTO=$PWD/examples/astronaut.png TRIPLANE_PRESET=balanced"
    blender-gui.sh run dist/triplane-<version>-linux-x64-slim.zip docs/screenshots/driver.py OUT
    .venv/bin/python docs/screenshots/shrink.py OUT docs/images

Leaves panel-before.png, panel-during.png, panel-after.png, camera.png, points.png, preferences.png,
more that show what nobody needs to see every day, and figures.json in OUT. preferences.png shows
the path of TRIPLANE_PYTHON: for a picture to keep, name one that says nothing of the machine, such
as a link in the runner's chroot.
"""

import math
import os
import sys
import tempfile
import time

import bpy

sys.path.insert(0, os.path.dirname(__file__))
from common import PACKAGE, keep, module, shoot_preferences, show_panels

figures = {}


def session():
    return module("operators.session")


def heads():
    return [o for o in bpy.context.scene.objects if "triplane_record" in o]


class Heartbeat:
    """The longest time that Blender's event loop was away: drawing and all else included."""

    def __init__(self):
        self.last, self.longest, self.on = time.perf_counter(), 0.0, True
        bpy.app.timers.register(self.beat)

    def beat(self):
        now = time.perf_counter()
        self.longest, self.last = max(self.longest, now - self.last), now
        return 0.0 if self.on else None


def census():
    """What is in the file, and what lies in the temporary folder (TMPDIR: share it with nobody)."""
    kinds = ("objects", "meshes", "materials", "images", "cameras", "collections")
    found = {kind: len(getattr(bpy.data, kind)) for kind in kinds}
    # Blender's own folder comes and goes, and PyTorch makes an empty one for its compiler.
    files = {n for n in os.listdir(tempfile.gettempdir()) if not n.startswith(("blender", "torch"))}
    return found | {"files": sorted(files)}


def start(gui):
    """Press the button as a user does."""
    xy = yield from gui.find("triplane.reconstruct_head")
    gui.click(*xy)
    yield from gui.wait(lambda: session().running() is not None, 10)
    gui.move(500, 500)


def steps(gui):
    settings = bpy.context.window_manager.triplane
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    view = gui.area().spaces.active
    view.overlay.show_extras = view.overlay.show_relationship_lines = False
    show_panels("sidebar", {"reconstruct", "head"})
    gui.sidebar("Triplane")
    yield 1
    yield from gui.widen(110)
    gui.shot("missing")

    bpy.context.preferences.addons[PACKAGE].preferences.python = os.environ["TRIPLANE_PYTHON"]
    session().redraw()
    yield 1
    gui.shot("empty")
    settings.photo = os.environ["TRIPLANE_PHOTO"]
    settings.preset = os.environ.get("TRIPLANE_PRESET", "balanced")
    bpy.ops.ed.undo_push(message="Before the head")
    yield 3
    gui.move(500, 500)
    yield 1
    gui.shot("panel-before")

    # Cancelled in mid-job: within 2 s, and nothing remains.
    before = census()
    yield from start(gui)
    cancel = yield from gui.find("triplane.cancel")
    # By a step, not a fraction: fractions pass quickly over what takes long.
    yield from gui.wait(lambda: (r := session().running()) is None or r.fraction > 0.15, 300, 0.05)
    figures["cancelled_at"] = session().running().step
    begun = time.perf_counter()
    gui.click(*cancel)
    yield from gui.wait(lambda: session().running() is None, 10, 0.02)
    figures["cancel_seconds"] = round(time.perf_counter() - begun, 2)
    yield 1
    gui.shot("cancelled")
    figures["left_by_cancelled"] = {k: v for k, v in census().items() if v != before[k]}
    assert figures["cancel_seconds"] < 2 and not figures["left_by_cancelled"], figures

    # To its end. During: the progress, while the viewport follows.
    yield from start(gui)
    begun, running, heart = time.perf_counter(), session().running(), Heartbeat()
    yield from gui.wait(lambda: session().running() is None or running.fraction > 0.65, 900, 0.1)
    assert session().running(), session().failure
    turned = view.region_3d.view_rotation.copy()
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_orbit(angle=math.radians(25), type="ORBITLEFT")
    yield 0.5
    turned = view.region_3d.view_rotation.rotation_difference(turned).angle
    figures["viewport_alive"] = turned > 0.1
    gui.shot("panel-during")
    heart.last = time.perf_counter()  # the picture itself held Blender
    yield from gui.wait(lambda: session().running() is None, 900, 0.1)
    heart.on = False
    assert heads(), session().failure
    figures["job_seconds"] = round(time.perf_counter() - begun, 1)
    figures["longest_tick_ms"] = round(running.longest_tick * 1000, 1)
    figures["longest_gap_ms_with_drawing_and_import"] = round(heart.longest * 1000)
    # As it appears, only turned, in a brighter light of Blender's. Not in material preview: without
    # a graphics card its shaders take minutes to compile.
    view.shading.studio_light = "paint.sl"
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_orbit(angle=math.radians(25), type="ORBITLEFT")
        bpy.ops.view3d.view_orbit(angle=math.radians(8), type="ORBITUP")
    yield 1
    view.region_3d.view_perspective = "PERSP"
    yield 1
    view.overlay.show_outline_selected = view.overlay.show_object_origins = False
    view.overlay.show_cursor = False
    module("operators.build.views").frame(bpy.context, heads()[:1])
    yield 2
    gui.shot("panel-after")

    # Through the photo's camera, without Blender's light: the photo's own is in the texture.
    xy = yield from gui.find("triplane.view_photo")
    gui.click(*xy)
    yield 1
    gui.move(500, 500)
    view.overlay.show_floor = view.overlay.show_axis_x = view.overlay.show_axis_y = False
    view.overlay.show_outline_selected = True
    view.shading.light = "FLAT"
    yield 2
    gui.shot("camera")
    view.shading.light = "STUDIO"

    region = gui.region("WINDOW")
    # One undo removes the view's change, the next the whole head; redo brings it back.
    x, y = region.x + 300, gui.HEIGHT - region.y - 300
    count = len(bpy.data.images)
    gui.move(x, y)
    gui.key("ctrl+z")
    yield 1
    gui.key("ctrl+z")
    yield 2
    figures["heads_after_undo"] = len(heads())
    figures["images_undone"] = count - len(bpy.data.images)
    gui.key("ctrl+shift+z")
    yield 2
    figures["heads_after_redo"] = len(heads())

    # The points by hand: clicked into the photo.
    with gui.override("UI"):
        bpy.ops.triplane.place_points("INVOKE_DEFAULT")
    yield 2
    region = gui.region("WINDOW", "IMAGE_EDITOR")
    clicked = [(203, 100), (249, 107), (220, 133), (205, 144), (239, 145)]
    for number, (x, y) in enumerate(clicked):
        u, v = region.view2d.view_to_region(x / 512, 1 - y / 512, clip=False)
        gui.click(region.x + u, gui.HEIGHT - 1 - (region.y + v))
        yield 0.5
        if number == 3:
            gui.shot("points")
    yield 1
    off = [abs(a - b) for a, b in zip(settings.points, sum(clicked, ()))]
    figures["points_off"] = round(max(off), 2)
    assert settings.points_by_hand and gui.area().type == "VIEW_3D"

    # A failure says what is wrong, and offers the button that mends it.
    settings.photo = os.path.join(os.environ["GUI_OUT"], "nobody.jpg")
    with open(settings.photo, "w") as file:
        file.write("no picture")
    yield 1
    with gui.override("UI"):
        bpy.ops.triplane.reconstruct_head("INVOKE_DEFAULT")
    yield from gui.wait(lambda: session().running() is None, 120)
    yield 1
    gui.move(500, 500)
    yield 0.5
    gui.shot("failure")

    settings.photo = os.environ["TRIPLANE_PHOTO"]
    bpy.ops.triplane.open_preferences()
    yield 1
    with gui.override("UI"):
        bpy.ops.triplane.check_engine("INVOKE_DEFAULT")
    yield from gui.wait(lambda: session().running() is None, 120)
    assert session().failure is None, session().failure
    yield 2
    yield from shoot_preferences(gui, "preferences")
    keep(gui, figures)
