"""A Blender profile with a copy of this extension, and scripts run in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "bl_ext.user_default.triplane"

PREAMBLE = f"""
import os, sys, time, bpy, addon_utils
bpy.ops.wm.read_factory_settings(use_empty=True)
PACKAGE = "{PACKAGE}"
addon_utils.enable(PACKAGE, default_set=True)
prefs = bpy.context.preferences.addons[PACKAGE].preferences
prefs.python = os.environ["ENGINE_PYTHON"]
def module(name):
    import importlib
    return importlib.import_module(PACKAGE + "." + name)
def census():
    kinds = ("objects", "meshes", "materials", "images", "cameras", "collections")
    return {{k: len(getattr(bpy.data, k)) for k in kinds}}
def changed(before):
    return {{k: v - before[k] for k, v in census().items() if v != before[k]}}
def error_of(call, **given):
    # What it says, and after it what it has left behind: in braces.
    before = census()
    try:
        call(**given)
        return "no error"
    except RuntimeError as error:
        return str(error) + (str(changed(before)) if changed(before) else "")
"""


def make_profile(folder: Path, fakes: bool = True) -> Path:
    """A profile folder (BLENDER_USER_RESOURCES) whose extension has the fake jobs, or our own."""
    target = folder / "extensions" / "user_default" / "triplane"
    target.mkdir(parents=True)
    for name in ("__init__.py", "api.py", "blender_manifest.toml"):
        shutil.copy2(ROOT / name, target)
    ignore = shutil.ignore_patterns("__pycache__", "training", "weights")
    for name in ("operators", "panels", "engine"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    (target / "engine" / "weights").symlink_to(ROOT / "engine" / "weights")
    if fakes:
        jobs = target / "engine" / "jobs"
        shutil.copy2(ROOT / "tests" / "addon_fakes" / "shapes.py", jobs / "shapes.py")
        stages = jobs / "sampling_stages.py"
        shutil.copy2(ROOT / "tests" / "addon_fakes" / "sampling.py", stages)
        shutil.copy2(ROOT / "tests" / "addon_fakes" / "editing.py", jobs / "edit_stages.py")
        for name in ("reconstruct", "object", "extract", "render"):
            (jobs / f"{name}.py").write_text(f"from .shapes import {name.upper()} as JOB\n")
    return folder


def run(
    profile: Path,
    script: str,
    *args: str,
    env: dict[str, str] | None = None,
    preamble: str = PREAMBLE,
    check: bool = True,
    timeout: float = 120,
) -> subprocess.CompletedProcess:
    """Run `script` after the preamble in a fresh process with bpy; it may read sys.argv[1:]."""
    environment = {
        **os.environ,
        "BLENDER_USER_RESOURCES": str(profile),
        "ENGINE_PYTHON": sys.executable,
        "PYTHONPATH": "",
        **(env or {}),
    }
    result = subprocess.run(
        [os.environ.get("BPY_PYTHON", sys.executable), "-c", preamble + script, *args],
        env=environment,
        cwd=profile,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and result.returncode:
        raise AssertionError(f"status {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def facts_of(profile: Path, script: str, **options) -> dict:
    """What `script` tells: the object after JSON on a line that it prints. options: as in run()."""
    out = run(profile, script, **options).stdout
    return json.loads(re.search(r"^JSON(.*)$", out, re.M)[1])


def facts_of_folder(profile: Path, script: str, folder: Path, seconds: str) -> dict:
    """facts_of() a script that works in `folder` with the fake jobs, which take `seconds` each."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    env = {"FOLDER": str(folder), "TMPDIR": str(temporary), "FAKE_SECONDS": seconds}
    return facts_of(profile, script, env=env)
