"""The built zip through Blender's own installer: in, enabled, engine checked, and out again."""

import subprocess
import sys

import addon_profile

SCRIPT = """
import os, sys, json, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
PACKAGE = "bl_ext.user_default.triplane"
bpy.ops.extensions.package_install_files(
    filepath=os.environ["ZIP"], repo="user_default", enable_on_install=True)
prefs = bpy.context.preferences.addons[PACKAGE].preferences
prefs.python = os.environ["ENGINE_PYTHON"]
facts = {"checked": list(bpy.ops.triplane.check_engine())}
session = sys.modules[PACKAGE + ".operators.session"]
facts["engine"] = session.engine_facts
facts["log"] = os.path.isfile(session.log_path())
prefs.python = "/nowhere/python"
try:
    bpy.ops.triplane.check_engine()
except RuntimeError as error:
    facts["wrong"] = str(error)
repositories = bpy.context.preferences.extensions.repos
index = next(i for i, r in enumerate(repositories) if r.module == "user_default")
bpy.ops.extensions.package_uninstall(repo_index=index, pkg_id="triplane")
facts["enabled"] = PACKAGE in bpy.context.preferences.addons
facts["operators"] = dir(bpy.ops.triplane)
facts["folder"] = os.path.exists(os.path.join(repositories[index].directory, "triplane"))
print("JSON" + json.dumps(facts))
"""


def test_install_check_uninstall(tmp_path, root):
    command = [sys.executable, str(root / "wheels" / "build.py"), "--torch", "none"]
    subprocess.run([*command, "--out", str(tmp_path)], check=True, capture_output=True)
    profile = tmp_path / "profile"
    (profile / "extensions").mkdir(parents=True)
    env = {"ZIP": str(next(tmp_path.glob("*.zip")))}
    facts = addon_profile.facts_of(profile, SCRIPT, env=env, preamble="")
    assert facts["checked"] == ["FINISHED"] and "PyTorch" in facts["engine"]
    assert facts["log"]
    assert "/nowhere/python" in facts["wrong"]
    assert not facts["enabled"] and not facts["folder"] and facts["operators"] == []
