"""A driver of the GUI runner (see docs/screenshots/driver.py): what artists do while a job runs.

The extension is one with the fake jobs (tests/addon_profile.py makes it), FAKE_SECONDS=5; or the
real one, with TRIPLANE_PRESET=fast.
"""

import importlib
import json
import os
import signal

import bpy

PACKAGE = "bl_ext.user_default.triplane"
facts = {}


def session():
    return importlib.import_module(f"{PACKAGE}.operators.session")


def heads():
    return [o for o in bpy.context.scene.objects if "triplane_record" in o]


def workers():
    found = []
    for folder in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{folder}/cmdline", "rb") as file:
                if b"engine.worker" in file.read():
                    found.append(int(folder))
        except OSError:
            continue
    return found


def start(gui):
    bpy.context.preferences.addons[PACKAGE].preferences.python = os.environ["TRIPLANE_PYTHON"]
    settings = bpy.context.window_manager.triplane
    settings.photo = os.environ["TRIPLANE_PHOTO"]
    settings.preset = os.environ.get("TRIPLANE_PRESET", "balanced")
    with gui.override("UI"):
        assert bpy.ops.triplane.reconstruct_head("INVOKE_DEFAULT") == {"RUNNING_MODAL"}
        assert not bpy.ops.triplane.reconstruct_head.poll(), "a second job would start"
    yield from gui.wait(lambda: (r := session().running()) and r.fraction > 0.3, 300)


def steps(gui):
    # Undo, redo and edit mode of another object, in mid-job; then the head comes as one step.
    yield from start(gui)
    with gui.override("WINDOW"):
        bpy.ops.mesh.primitive_cone_add()
        bpy.ops.ed.undo_push(message="cone")
    yield 0.2
    with gui.override("WINDOW"):
        bpy.ops.ed.undo()
    yield 0.2
    with gui.override("WINDOW"):
        bpy.ops.ed.redo()
    yield 0.2
    cone = bpy.data.objects["Cone"]
    bpy.context.view_layer.objects.active = cone
    with gui.override("WINDOW"):
        bpy.ops.object.mode_set(mode="EDIT")
    yield from gui.wait(lambda: session().running() is None, 300)
    facts["heads_while_editing"] = len(heads())
    facts["mode"] = bpy.context.mode
    yield 0.5
    with gui.override("WINDOW"):
        bpy.ops.ed.undo()
    yield 0.5
    facts["heads_after_one_undo"] = len(heads())

    # The worker is killed in mid-job: told, and the next job works.
    yield from start(gui)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    yield from gui.wait(lambda: session().running() is None, 30)
    facts["after_kill"] = str(session().failure)
    yield from start(gui)
    yield from gui.wait(lambda: session().running() is None, 300)
    facts["heads_after_kill_and_again"] = len(heads())

    # Another file is opened in mid-job: the job goes, and nothing of it comes into that file.
    yield from start(gui)
    bpy.ops.wm.read_homefile(app_template="")
    yield 2.5
    facts["running_after_load"] = session().running() is not None
    facts["heads_after_load"] = len(heads())
    yield 5
    facts["heads_later"] = len(heads())

    # The extension is disabled in mid-job: no worker is left.
    yield from start(gui)
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    yield 2
    facts["workers_after_disabling"] = len(workers())
    facts["heads_after_disabling"] = len(heads())
    bpy.ops.preferences.addon_enable(module=PACKAGE)
    yield from start(gui)
    yield from gui.wait(lambda: session().running() is None, 300)
    facts["heads_after_enabling_again"] = len(heads())
    gui.log(facts)
    with open(os.path.join(os.environ["GUI_OUT"], "facts.json"), "w") as file:
        json.dump(facts, file, indent=1)
    expected = {
        "heads_while_editing": 1,
        "mode": "OBJECT",
        "heads_after_one_undo": 0,
        "heads_after_kill_and_again": 1,
        "running_after_load": False,
        "heads_after_load": 0,
        "heads_later": 0,
        "workers_after_disabling": 0,
        "heads_after_disabling": 0,
        "heads_after_enabling_again": 1,
    }
    wrong = {k: facts[k] for k, v in expected.items() if facts[k] != v}
    assert not wrong and facts["after_kill"] != "None", wrong
