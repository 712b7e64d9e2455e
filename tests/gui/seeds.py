"""A driver of the GUI runner (see docs/screenshots/driver.py): what artists do while many heads are
made, and a model from the file browser.

GUI_ENV names TRIPLANE_PYTHON, and TRIPLANE_CHECKPOINT, any file that the preferences can add.
"""

import importlib
import json
import os

import bpy

PACKAGE = "bl_ext.user_default.triplane"
SMALL = {"faces": 2000, "texture_size": 256}
facts = {}


def module(name):
    return importlib.import_module(f"{PACKAGE}.{name}")


def running():
    return module("operators.session").running()


def heads():
    return [o for o in bpy.context.scene.objects if "triplane_record" in o]


def steps(gui):
    for item in list(bpy.data.objects):
        bpy.data.objects.remove(item)
    bpy.context.preferences.addons[PACKAGE].preferences.python = os.environ["TRIPLANE_PYTHON"]
    gui.sidebar("Triplane")
    yield 1
    bpy.ops.ed.undo_push(message="Before the heads")
    region = gui.region("WINDOW")
    gui.move(region.x + 300, gui.HEIGHT - region.y - 300)

    # Cancelled in the middle: what is finished stays, as one step to undo.
    with gui.override("UI"):
        bpy.ops.triplane.random_scene("INVOKE_DEFAULT", count=5, **SMALL)
    yield from gui.wait(lambda: len(heads()) == 2, 300, 0.1)
    yield 0.5
    assert bpy.ops.triplane.cancel() == {"FINISHED"}
    yield from gui.wait(lambda: running() is None, 3)
    made = len(heads())
    gui.key("ctrl+z")
    yield 1
    undone = len(heads())
    gui.key("ctrl+shift+z")
    yield 1
    facts["cancelled"] = {"made": made, "undone": undone, "redone": len(heads())}
    assert 2 <= made < 5 and undone == 0 and len(heads()) == made, facts

    # Undone in the middle: what comes after still comes.
    with gui.override("UI"):
        bpy.ops.triplane.keyframe_heads("INVOKE_DEFAULT", heads="1, 2", steps=4, **SMALL)
    yield from gui.wait(lambda: len(heads()) == made + 2, 300, 0.1)
    gui.key("ctrl+z")
    yield 1
    assert running() is not None
    yield from gui.wait(lambda: running() is None, 300)
    yield 1
    facts["undone in the middle"] = len(heads())
    assert module("operators.session").failure is None and heads()

    # The gallery, cancelled and gone on with
    shelf = module("operators.shelf")
    key = shelf.key(bpy.context.window_manager.triplane_sampling)
    with gui.override("UI"):
        bpy.ops.triplane.gallery("INVOKE_DEFAULT", first=20, count=6)
    yield from gui.wait(lambda: len(shelf.missing(key, 20, 6)) <= 4, 100, 0.02)
    bpy.ops.triplane.cancel()
    yield from gui.wait(lambda: running() is None, 3)
    kept = shelf.missing(key, 20, 6)
    assert 0 < len(kept) <= 4
    with gui.override("UI"):
        bpy.ops.triplane.gallery("INVOKE_DEFAULT", first=20, count=6)
    assert running().title == f"Pictures of {len(kept)} seeds", running().title
    yield from gui.wait(lambda: running() is None, 100)
    assert not shelf.missing(key, 20, 6)

    # A model, chosen in the file browser
    path = os.environ["TRIPLANE_CHECKPOINT"]
    with gui.override("UI"):
        bpy.ops.triplane.model_add("INVOKE_DEFAULT")
    yield 2
    params = gui.area("FILE_BROWSER").spaces.active.params
    params.directory, params.filename = os.fsencode(os.path.dirname(path)), os.path.basename(path)
    yield 1
    with gui.override("WINDOW", "FILE_BROWSER"):
        bpy.ops.file.execute("INVOKE_DEFAULT")
    yield from gui.wait(lambda: running() is not None, 10, 0.02)
    assert running().place == "models"
    yield from gui.wait(lambda: running() is None, 100)
    facts["models"] = [m.name for m in module("operators.models").listed()]
    assert len(facts["models"]) == 2, facts

    # Another file is opened while a batch runs.
    with gui.override("UI"):
        bpy.ops.triplane.random_scene("INVOKE_DEFAULT", count=3, **SMALL)
    yield 3
    with gui.override("WINDOW"):
        bpy.ops.wm.read_homefile(use_factory_startup=False)
    yield 2
    assert running() is None and not heads()
    with open(os.path.join(os.environ["GUI_OUT"], "facts.json"), "w") as file:
        json.dump(facts, file, indent=1)
    gui.log(facts)
