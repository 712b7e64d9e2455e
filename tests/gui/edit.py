"""A driver of the GUI runner (see docs/screenshots/driver.py): a head's sliders, dragged with the
mouse in a real window, undone, cancelled, left in the middle.

GUI_ENV names TRIPLANE_PYTHON, and may name TRIPLANE_PART: drag or leave, for one half of it. Leaves
facts.json and pictures in OUT.
"""

import importlib
import json
import os
import signal
import subprocess
import time

import bpy

PACKAGE = "bl_ext.user_default.triplane"
HEAD = "head 7"
PATIENCE = 600  # seconds: a busy machine takes a minute for what takes seconds
facts = {}


def module(name):
    return importlib.import_module(f"{PACKAGE}.{name}")


def running():
    return module("operators.session").running()


def live():
    return module("operators.edit_live").state()


def overlay():
    return module("operators.edit_live")._overlay


def now():
    """What shall come and go together, of the head."""
    made = bpy.data.objects[HEAD]
    points = [v.co.y for v in made.data.vertices]
    return {
        "slider": round(made.triplane_edit.age, 3),
        "edits": made.get("triplane_edits", ""),
        "mesh": [len(points), round(sum(points), 3)],
        "field": made["triplane_field"].packed_file.size,
        "base": "triplane_base_field" in made,
    }


def consistent(state):
    """Whether slider and head say the same."""
    return state["edits"] == (f"age={state['slider']:g}" if state["slider"] else "")


def cpu(pid=None):
    """Seconds of processor time of the engine's process, or of ours."""
    if pid is None:
        return time.process_time()
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def worker():
    return module("operators.session")._client._process._popen.pid


def census():
    kinds = ("objects", "meshes", "materials", "images", "cameras", "collections")
    return {kind: len(getattr(bpy.data, kind)) for kind in kinds}


def drag(gui, xy, pixels, seconds, shots=()):
    """Drag a slider as a hand does; the pictures that come meanwhile are counted."""
    x, y = xy
    gui.move(x, y)
    yield 0.2
    subprocess.run(["xdotool", "mousedown", "1"], check=True)
    begun, count, taken = time.monotonic(), int(seconds / 0.04), 0
    used = (cpu(), cpu(worker())) if live().pictures else None
    for step in range(1, count + 1):
        gui.move(x + pixels * step / count, y)
        yield max(0.0, begun + step * 0.04 - time.monotonic())
        if taken < len(shots) and step >= count * (taken + 1) / (len(shots) + 1):
            gui.shot(shots[taken])
            taken += 1
    came = [t for t in live().pictures if t >= begun]
    told = {"seconds": round(time.monotonic() - begun, 1), "pictures": len(came)}
    if len(came) > 2:
        gaps = sorted(b - a for a, b in zip(came, came[1:]))
        told |= {"median_per_second": round(1 / gaps[len(gaps) // 2], 1)}
    if used and came:  # on a busy machine the clock says little
        told["engine_cpu_per_picture"] = round((cpu(worker()) - used[1]) / len(came), 3)
        told["blender_cpu_per_picture"] = round((cpu() - used[0]) / len(came), 3)
    facts.setdefault("drags", []).append(told)
    subprocess.run(["xdotool", "mouseup", "1"], check=True)
    yield 0.1


def refined(gui):
    yield from gui.wait(lambda: running() is not None, PATIENCE, 0.02)
    yield from gui.wait(lambda: running() is None, PATIENCE, 0.1)
    assert module("operators.session").failure is None, module("operators.session").failure
    yield 1


def steps(gui):
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    bpy.context.preferences.addons[PACKAGE].preferences.python = os.environ["TRIPLANE_PYTHON"]
    # Without a window manager the mouse that Blender puts back would run away.
    bpy.context.preferences.inputs.use_mouse_continuous = False
    gui.sidebar("Triplane")
    yield 1
    yield from gui.widen(110)
    with gui.override("UI"):
        bpy.ops.triplane.sample_head("INVOKE_DEFAULT", seed=7, faces=2000, texture_size=256)
    yield from gui.wait(lambda: running() is None and HEAD in bpy.data.objects, PATIENCE)
    yield 1
    parts = {"drag": dragging, "leave": leaving}
    chosen = os.environ.get("TRIPLANE_PART")
    for name, part in parts.items():
        if chosen in (None, "", name):
            try:
                yield from part(gui)
            finally:
                with open(os.path.join(os.environ["GUI_OUT"], "facts.json"), "w") as file:
                    json.dump(facts, file, indent=1)
    gui.log(facts)


def dragging(gui):
    region = gui.region("WINDOW")
    aside = region.x + 200, gui.HEIGHT - region.y - 200
    start = now()
    age = yield from gui.find("triplane_sliders.age")

    # Dragged: pictures while it moves, mesh and field at rest, one step to undo.
    yield from drag(gui, age, 30, 1.0)  # the head is opened
    yield from gui.wait(lambda: live().pictures, PATIENCE, 0.02)
    yield from drag(gui, age, 40, 6.0, ("drag",))
    assert facts["drags"][-1]["pictures"] > 2, facts
    yield from gui.wait(lambda: running() is not None, PATIENCE, 0.02)
    yield 0.5
    facts["shown while refining"] = [overlay().shown, overlay().moved]
    with gui.override("WINDOW"):
        bpy.ops.view3d.view_orbit(angle=0.4, type="ORBITLEFT")
    yield 0.5
    gui.shot("turned")
    facts["turned"] = [overlay().shown, overlay().moved]
    yield from gui.wait(lambda: running() is None, PATIENCE, 0.1)
    yield 1
    one = now()
    facts["refined"], facts["overlay after"] = one, overlay().shown
    assert one["mesh"] != start["mesh"] and one["base"] and consistent(one), facts
    assert not overlay().shown and facts["turned"] == [True, True], facts
    gui.move(*aside)
    gui.key("ctrl+z")
    yield 1
    facts["undone"] = now()
    assert now() == start, facts
    gui.key("ctrl+shift+z")
    yield 1
    assert now() == one, facts

    # ESC while it is refined: as before.
    yield from drag(gui, age, -20, 0.5)
    yield from gui.wait(lambda: running() is not None, PATIENCE, 0.02)
    gui.move(*aside)
    yield 1
    begun = time.monotonic()
    gui.key("Escape")
    yield from gui.wait(lambda: running() is None, 10, 0.02)
    facts["cancel_seconds"] = round(time.monotonic() - begun, 2)
    yield 0.5
    assert now() == one and not overlay().shown, facts

    # Newer values while it is refined: only they count.
    yield from drag(gui, age, -20, 0.5)
    yield from gui.wait(lambda: running() is not None, PATIENCE, 0.02)
    between = round(bpy.data.objects[HEAD].triplane_edit.age, 4)
    yield 1
    yield from drag(gui, age, -30, 1.0)
    yield from gui.wait(lambda: not live().name, PATIENCE, 0.1)
    yield 1
    two = now()
    facts["superseded"] = [between, two]
    assert consistent(two) and two != one and two["slider"] != between, facts
    gui.move(*aside)
    gui.key("ctrl+z")
    yield 1
    assert now() == one, "one step an edit"

    # The process dies.
    yield from drag(gui, age, -20, 0.5)
    yield from gui.wait(lambda: running() is not None, PATIENCE, 0.02)
    yield 1
    os.kill(worker(), signal.SIGKILL)
    yield from gui.wait(lambda: running() is None, 20, 0.02)
    yield 0.5
    facts["killed"] = module("operators.session").failure.kind
    assert now() == one and not overlay().shown, facts
    gui.shot("killed")

    bpy.ops.triplane.edit_reset()
    yield from refined(gui)


def leaving(gui):
    # All back to the head as it was made.
    start, empty = now(), census()
    module("operators.sliders").of(bpy.data.objects[HEAD]).age = 1.0
    yield from refined(gui)
    facts["set by a script"] = now()
    assert now()["edits"] == "age=1" and now()["base"], facts
    bpy.ops.triplane.edit_reset()
    yield from refined(gui)
    back = now()
    facts["reset"] = back
    assert back["edits"] == "" and not back["base"] and back["field"] == start["field"], facts
    facts["left"] = {k: v - empty[k] for k, v in census().items() if v != empty[k]}
    assert not facts["left"], facts

    # Another file in the middle, and the extension disabled in the middle.
    module("operators.sliders").of(bpy.data.objects[HEAD]).age = 1.0
    yield from gui.wait(lambda: live().job, 10, 0.02)
    path = os.path.join(os.environ["GUI_OUT"], "middle.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    with gui.override("WINDOW"):
        bpy.ops.wm.open_mainfile(filepath=path)
    yield 1
    assert not live().name and not overlay().shown and running() is None
    assert now()["slider"] == 0.0 and now()["edits"] == "", now()
    module("operators.sliders").of(bpy.data.objects[HEAD]).age = 1.0
    yield from gui.wait(lambda: overlay().shown, PATIENCE, 0.02)
    there = module("operators.edit_live")
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    yield 1
    facts["disabled"] = [
        there._overlay.shown,
        there._folder,
        bpy.app.timers.is_registered(there._tick),
    ]
    assert facts["disabled"] == [False, "", False], facts
