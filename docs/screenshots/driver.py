"""Drives Triplane in a real Blender window and takes the pictures in docs/images.

A driver of the project's GUI runner (blender-gui.sh run EXTENSION.zip driver.py OUT). Variables:
TRIPLANE_PYTHON, the engine's interpreter; TRIPLANE_PHOTO; TRIPLANE_PRESET. Leaves before.png,
during.png, after.png, camera.png, failure.png, preferences.png and figures.json in OUT.
"""

import json
import math
import os
import time

import bpy

PACKAGE = "bl_ext.user_default.triplane"
figures = {}


def session():
    import importlib

    return importlib.import_module(f"{PACKAGE}.operators.session")


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


def steps(gui):
    context = bpy.context
    settings = context.window_manager.triplane
    for item in list(bpy.data.objects):
        if item.type == "MESH":
            bpy.data.objects.remove(item)
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
    gui.shot("before")

    # During: the progress, while the viewport follows.
    xy = yield from gui.find("triplane.reconstruct_head")
    gui.click(*xy)
    yield from gui.wait(lambda: session().running() is not None, 10)
    cancel = yield from gui.find("triplane.cancel")
    yield from gui.wait(lambda: (r := session().running()) is None or r.fraction > 0.5, 300)
    view = gui.area().spaces.active.region_3d
    before = view.view_rotation.copy()
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_orbit(angle=math.radians(25), type="ORBITLEFT")
    yield 0.5
    gui.move(500, 700)
    yield 0.5
    figures["viewport_alive"] = view.view_rotation.rotation_difference(before).angle > 0.1
    gui.shot("during")

    # Cancelled: within 2 s, and nothing remains.
    start = time.perf_counter()
    gui.click(*cancel)
    yield from gui.wait(lambda: session().running() is None, 10, 0.02)
    figures["cancel_seconds"] = round(time.perf_counter() - start, 2)
    assert not heads(), "the head came although it was cancelled"
    assert figures["cancel_seconds"] < 2, figures
    yield 1
    gui.shot("cancelled")

    # Again, to its end.
    xy = yield from gui.find("triplane.reconstruct_head")
    gui.click(*xy)
    yield from gui.wait(lambda: session().running() is not None, 10)
    running, heart = session().running(), Heartbeat()
    yield from gui.wait(lambda: session().running() is None, 600)
    heart.on = False
    assert heads(), session().failure
    figures["longest_tick_ms"] = round(running.longest_tick * 1000, 1)
    figures["longest_gap_ms_with_drawing_and_import"] = round(heart.longest * 1000)
    yield 3
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_axis(type="FRONT")
        bpy.ops.view3d.view_orbit(angle=math.radians(25), type="ORBITRIGHT")
        bpy.ops.view3d.view_selected()
    yield 2
    gui.shot("after")

    # Through the photo's camera.
    xy = yield from gui.find("triplane.view_photo")
    gui.click(*xy)
    yield 3
    gui.shot("camera")

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

    # A failure says what is wrong, and offers the button that mends it.
    settings.photo = os.path.join(os.environ["GUI_OUT"], "nobody.jpg")
    with open(settings.photo, "w") as file:
        file.write("no picture")
    yield 1
    with gui.override("UI"):
        bpy.ops.triplane.reconstruct_head("INVOKE_DEFAULT")
    yield from gui.wait(lambda: session().running() is None, 60)
    yield 1
    gui.move(x, y)
    yield 0.5
    gui.shot("failure")

    # The points by hand: clicked into the photo.
    settings.photo = os.environ["TRIPLANE_PHOTO"]
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

    bpy.ops.triplane.open_preferences()
    yield 1
    with gui.override("UI"):
        bpy.ops.triplane.check_engine("INVOKE_DEFAULT")
    yield from gui.wait(lambda: session().running() is None, 120)
    assert session().failure is None, session().failure
    yield 2
    gui.shot("preferences")
    with open(os.path.join(os.environ["GUI_OUT"], "figures.json"), "w") as file:
        json.dump(figures, file, indent=1)
    gui.log(figures)
