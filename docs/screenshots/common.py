"""What the drivers of this folder share. The runner executes them as text, so each puts the folder
on the path first."""

import importlib
import json
import os
import subprocess

import bpy

PACKAGE = "bl_ext.user_default.triplane"


def module(name):
    """A module of the extension."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def running():
    """The running job, or None."""
    return module("operators.session").running()


def show_panels(room, names):
    """Only the panels of panels/<room>.py, those of `names` open. (Blender keeps for good what was
    open or closed when it was first drawn.)"""
    rooms = ("sidebar", "seed", "object", "blend", "views", "edit")
    parts = {n: module(f"panels.{n}").CLASSES for n in rooms}
    panels = {n: [c for c in p if issubclass(c, bpy.types.Panel)] for n, p in parts.items()}
    for cls in (c for p in panels.values() for c in reversed(p) if c.is_registered):
        bpy.utils.unregister_class(cls)
    for cls in panels[room]:
        shown = cls.__name__.removeprefix("TRIPLANE_PT_") in names
        cls.bl_options = set() if shown else {"DEFAULT_CLOSED"}
        bpy.utils.register_class(cls)


def shoot_preferences(gui, name, top=225):
    """A picture of the extension's preferences, whose window is open, in OUT: from `top` pixels of
    the window on (above that stands a folder of this machine), without Blender's own column."""
    found = subprocess.run(
        ["xdotool", "search", "--name", "Preferences"], capture_output=True, text=True, check=True
    )
    window = found.stdout.split()[-1]  # there is no window manager: it hangs over the screen's edge
    subprocess.run(["xdotool", "windowmove", window, "10", "10"], check=True)
    subprocess.run(["xdotool", "windowsize", window, "687", "780"], check=True)
    yield 1
    gui.scroll(400, 300, 30)
    yield 2
    gui.move(1000, 20)
    yield 1
    picture = os.path.join(os.environ["GUI_OUT"], f"{name}.png")
    crop = ["-crop", f"512x{760 - top}+175+{top}", "+repage"]
    subprocess.run(["import", "-window", window, *crop, picture], check=True)


def keep(gui, figures):
    """figures.json in OUT, and a line in the log."""
    with open(os.path.join(os.environ["GUI_OUT"], "figures.json"), "w") as file:
        json.dump(figures, file, indent=1)
    gui.log(figures)
