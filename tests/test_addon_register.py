"""Enabling and disabling the extension: quick, light, and without a trace."""


import addon_profile
import pytest


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return addon_profile.make_profile(tmp_path_factory.mktemp("profile"))


SCRIPT = """
import os, sys, time, json, threading, bpy, addon_utils
import numpy  # Blender's own add-ons have it loaded before ours
bpy.ops.wm.read_factory_settings(use_empty=True)
PACKAGE = "bl_ext.user_default.triplane"
addon_utils.modules_refresh()
def state():
    kinds = ("Operator", "Panel", "PropertyGroup", "AddonPreferences")
    return sorted(
        [n for k in kinds for n in (c.__name__ for c in getattr(bpy.types, k).__subclasses__())
         if "TRIPLANE" in n and hasattr(bpy.types, n)]
        + [n for n in dir(bpy.types) if "TRIPLANE" in n]
        + [n for n in dir(bpy.ops.triplane)]
        + [f"WindowManager.{n}" for n in dir(bpy.types.WindowManager) if "triplane" in n]
        + [h for kind in dir(bpy.app.handlers) if isinstance(getattr(bpy.app.handlers, kind), list)
           for h in map(repr, getattr(bpy.app.handlers, kind)) if "triplane" in h.lower()])
before = state()
times = []
for _ in range(3):
    start = time.perf_counter()
    addon_utils.enable(PACKAGE, default_set=True)
    times.append(time.perf_counter() - start)
    during = state()
    modules = sorted(sys.modules)
    prefs = bpy.context.preferences.addons[PACKAGE].preferences
    prefs.python = os.environ["ENGINE_PYTHON"]
    bpy.ops.triplane.check_engine()
    addon_utils.disable(PACKAGE, default_set=True)
after = state()
print("JSON" + json.dumps({
    "times": times, "before": before, "during": during, "after": after, "modules": modules,
    "threads": [t.name for t in threading.enumerate() if t is not threading.main_thread()],
    "children": os.popen(f"pgrep -P {os.getpid()} -f 'engine[.]worker'").read().split(),
    "files": [os.path.join(d, f) for d, _, fs in os.walk(os.environ["BLENDER_USER_RESOURCES"])
              for f in fs if "/.user/" not in d and not f.endswith((".pyc", ".py"))],
}))
"""


@pytest.fixture(scope="module")
def facts(profile):
    return addon_profile.facts_of(profile, SCRIPT, preamble="")


def test_register_is_quick(facts):
    assert min(facts["times"]) < 0.1, facts["times"]


def test_no_torch_and_no_heavy_modules(facts):
    modules = facts["modules"]
    for heavy in ("torch", "scipy", "PIL", "mcubes", "safetensors"):
        assert heavy not in modules
    ours = [m.partition("triplane.engine.")[2] for m in modules if "triplane.engine." in m]
    rooms = {m.partition(".")[0] for m in ours}
    allowed = {"cameras", "checkpoints", "client", "errors", "failures", "process"}
    allowed |= {"views", "wire"}
    assert rooms <= allowed, rooms


def test_it_registers_something(facts):
    assert "TRIPLANE_OT_reconstruct_head" in facts["during"]
    assert "WindowManager.triplane" in facts["during"]


def test_unregister_leaves_nothing(facts):
    assert facts["after"] == facts["before"]
    assert facts["threads"] == [] and facts["children"] == []


def test_nothing_is_written_by_registering(profile, tmp_path):
    own = addon_profile.make_profile(tmp_path / "p")
    before = {p for p in own.rglob("*") if "__pycache__" not in str(p)}
    addon_profile.run(own, "bpy.ops.wm.read_homefile(use_factory_startup=True)")
    after = {p for p in own.rglob("*") if "__pycache__" not in str(p)}
    assert not [p for p in after - before if "triplane" in str(p)]
