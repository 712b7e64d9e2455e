"""What the drivers of this folder share. The runner executes them as text, so each puts the folder
on the path first."""

import importlib
import json
import os
import subprocess

PACKAGE = "bl_ext.user_default.triplane"


def module(name):
    """A module of the extension."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def running():
    """The running job, or None."""
    return module("operators.session").running()


def shoot_preferences(name):
    """A picture of the preferences' window, which is open, in OUT."""
    found = subprocess.run(
        ["xdotool", "search", "--name", "Preferences"], capture_output=True, text=True, check=True
    )
    window = found.stdout.split()[-1]  # there is no window manager: it hangs over the screen's edge
    subprocess.run(["xdotool", "windowmove", window, "40", "40"], check=True)
    yield 2
    picture = os.path.join(os.environ["GUI_OUT"], f"{name}.png")
    subprocess.run(["import", "-window", window, picture], check=True)


def keep(gui, figures):
    """figures.json in OUT, and a line in the log."""
    with open(os.path.join(os.environ["GUI_OUT"], "figures.json"), "w") as file:
        json.dump(figures, file, indent=1)
    gui.log(figures)
