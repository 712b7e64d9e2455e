"""Finds Triplane for the scripts beside this file, in Blender as in a Python that has bpy:

    blender --background --python script.py -- arguments
    python script.py arguments

`api` is that of the installed extension. Without one it is this checkout's, if the Python that runs
has what the engine needs (PyTorch). TRIPLANE_PYTHON in the environment names another Python for the
engine than the preferences do.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import bpy

ROOT = Path(__file__).resolve().parents[2]


def arguments() -> list[str]:
    """The script's own arguments."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]


def empty_scene() -> None:
    """A file with nothing in it: the scripts make their own scenes."""
    bpy.ops.wm.read_homefile(use_empty=True)


def _package() -> str:
    """The dotted name of the extension, enabled."""
    import addon_utils  # Blender's own: there only once bpy is

    addon_utils.modules_refresh()
    for repository in bpy.context.preferences.extensions.repos:
        name = f"bl_ext.{repository.module}.triplane"
        if importlib.util.find_spec(name) is not None:
            if addon_utils.check(name)[1] or addon_utils.enable(name, default_set=True):
                return name
    spec = importlib.util.spec_from_file_location(
        "triplane", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["triplane"] = module
    spec.loader.exec_module(module)
    module.__time__ = os.path.getmtime(module.__file__)  # or Blender would load it again
    addon_utils.enable("triplane", default_set=True)
    return "triplane"


def _api() -> ModuleType:
    name = _package()
    python = os.environ.get("TRIPLANE_PYTHON")
    if python:
        bpy.context.preferences.addons[name].preferences.python = python
    return importlib.import_module(f"{name}.api")


empty_scene()
api = _api()
