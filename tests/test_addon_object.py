"""Objects from pictures in Blender: the operator, its masks, the panel's rules. The engine's job is
a stand-in, but for the slow test at the end."""

import json
import re
import shutil

import addon_profile
import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import json
facts, folder = {}, os.environ["FOLDER"]
ops, models = bpy.ops.triplane, module("operators.models")
photo, small = os.path.join(folder, "mug.png"), {"faces": 2000, "texture_size": 256}
def tried(call, **given):
    try:
        return list(call(**given))
    except RuntimeError as error:
        return str(error)
def census():
    kinds = ("objects", "meshes", "materials", "images", "cameras", "collections", "masks")
    return {k: len(getattr(bpy.data, k)) for k in kinds}
def temporary():
    import tempfile
    return [n for n in os.listdir(tempfile.gettempdir()) if n.startswith("triplane-mask")]
files = temporary()
facts["no_model"] = [ops.reconstruct_object.poll(), tried(ops.reconstruct_object, filepath=photo)]
prefs.models_folder = os.path.join(folder, "models")
facts["listed"] = [(m.name, m.makes_objects, m.noncommercial) for m in models.listed()]
facts["poll"] = ops.reconstruct_object.poll()
facts["made"] = tried(ops.reconstruct_object, filepath=photo, size=0.8, **small)
made = bpy.context.active_object
bpy.context.view_layer.update()
corners = [made.matrix_world @ v.co for v in made.data.vertices]
facts["name"], facts["uvs"] = made.name, len(made.data.uv_layers)
facts["low"], facts["longest"] = min(c.z for c in corners), max(made.dimensions)
facts["record"] = json.loads(made["triplane_record"])
head, sidebar = module("operators.build.head"), module("panels.sidebar")
facts["kind"] = [head.is_object(made), sidebar.TRIPLANE_PT_made_object.poll(bpy.context),
                 sidebar.TRIPLANE_PT_head.poll(bpy.context)]
facts["figures"] = dict(sidebar._figures(made))
facts["field"] = module("operators.build.field").size(made)
facts["alpha"] = next(i for i in bpy.data.images if i.name == "mug photo").depth
facts["extracted"] = [tried(ops.extract_mesh, **small), made.dimensions.z > 0]
tried(ops.reconstruct_object, filepath=photo, size=0.8, **small)
facts["beside"] = bpy.context.active_object.location.x

image = bpy.data.images.new("paint", 60, 40, alpha=False)
import numpy as np
pixels = np.zeros((40, 60, 4), np.float32)
pixels[..., 3] = 1
pixels[25:35, 10:20, :3] = 1  # rows from the bottom
image.pixels.foreach_set(pixels.ravel())
def warnings():
    return head.record(bpy.context.active_object)["warnings"]
facts["painted"] = [tried(ops.reconstruct_object, filepath=photo, mask="paint", **small),
                    warnings()]
mask = bpy.data.masks.new("drawn")
layer = mask.layers.new()
spline = layer.splines.new()
spline.use_cyclic = True
corners = [(0.25, 0.5), (0.5, 0.5), (0.5, 0.6), (0.25, 0.6)]
spline.points.add(3)
for point, at in zip(spline.points, corners):
    point.co = at
    point.handle_left_type = point.handle_right_type = "VECTOR"
    point.handle_left = point.handle_right = at
facts["drawn"] = [tried(ops.reconstruct_object, filepath=photo, mask="drawn", **small), warnings()]
facts["parameters"] = head.record(bpy.context.active_object)["parameters"]["mask"]
bpy.data.masks.new("empty")
before = census()
facts["wrong"] = [
    tried(ops.reconstruct_object, filepath=photo, mask="empty"),
    tried(ops.reconstruct_object, filepath=photo, mask="nothing.png"),
    tried(ops.reconstruct_object, filepath=os.path.join(folder, "none.png")),
    tried(ops.reconstruct_object, filepath=os.path.join(folder, "text.png"), mask="drawn"),
    tried(ops.reconstruct_object, filepath=""),
]
facts["left"] = [census() == before, temporary() == files]
from bl_ext.user_default.triplane import api
facts["api"] = repr(api.reconstruct_object(photo, size=0.1, **small))
facts["online"] = [bpy.app.online_access, ops.model_download.poll()]
facts["download"] = tried(ops.model_download, key="triposr", accept=False)
settings = bpy.context.window_manager.triplane_objects
settings.mask_from, settings.mask_image = "IMAGE", "paint"
facts["chosen"] = settings.chosen_mask()
addon_utils.disable(PACKAGE)
facts["gone"] = hasattr(bpy.types.WindowManager, "triplane_objects")
print("JSON" + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import object_fixtures

    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(folder / "mug.png")
    (folder / "text.png").write_text("no picture")
    object_fixtures.write_small_model(folder / "models" / "thing.safetensors")
    return folder


def _profile(tmp_path_factory, fakes):
    made = addon_profile.make_profile(tmp_path_factory.mktemp("profile"), fakes)
    shutil.copy2(addon_profile.ROOT / "api.py", made / "extensions" / "user_default" / "triplane")
    return made


@pytest.fixture(scope="module")
def facts(folder, tmp_path_factory):
    profile = _profile(tmp_path_factory, fakes=True)
    env = {"FOLDER": str(folder), "FAKE_SECONDS": "0.1"}
    out = addon_profile.run(profile, SCRIPT, env=env).stdout
    return json.loads(re.search(r"^JSON(.*)$", out, re.M)[1])


def test_without_a_model_the_button_says_so(facts):
    assert facts["no_model"][0] is False and "Add a model for objects" in facts["no_model"][1]
    assert facts["listed"] == [["built-in", False, False], ["thing", True, False]]
    assert facts["poll"]


def test_an_object_stands_on_the_ground_at_its_size(facts):
    assert facts["made"] == ["FINISHED"] and facts["name"] == "mug" and facts["uvs"] == 1
    assert facts["low"] == pytest.approx(0, abs=1e-6)
    assert facts["longest"] == pytest.approx(0.8, rel=1e-5)
    assert facts["beside"] > 0.6  # two of that width do not stand in one another


def test_it_has_what_heads_have(facts):
    record = facts["record"]
    assert record["kind"] == "object" and record["noncommercial"] is True
    assert record["parameters"]["size"] == pytest.approx(0.8)
    assert facts["field"] == 100_000 and facts["alpha"] == 32
    assert facts["kind"] == [True, True, False]
    assert facts["figures"]["Model"] == "first"
    assert facts["extracted"] == [["FINISHED"], True]


def test_masks_of_blenders_own(facts):
    assert facts["painted"] == [["FINISHED"], ["mask 60 x 40, white [10, 5, 19, 14]"]]
    done, (warning,) = facts["drawn"]
    assert done == ["FINISHED"]
    # 0.25..0.5 of 300 across; upwards from the middle, by a tenth of the longer side.
    assert warning == "mask 300 x 200, white [75, 70, 149, 99]"
    assert facts["parameters"] == "drawn"


def test_what_cannot_be_made_is_told_in_a_sentence(facts):
    empty, no_mask, no_photo, text, nothing = facts["wrong"]
    assert "The mask empty is empty" in empty and "no mask, no image of this file" in no_mask
    assert "does not exist" in no_photo and "cannot be opened" in text
    assert "No picture has been chosen" in nothing
    assert facts["left"] == [True, True]


def test_scripts(facts):
    assert facts["api"] == "<Head 'mug'>" or re.fullmatch(r"<Head 'mug\.\d+'>", facts["api"])
    assert facts["chosen"] == "paint" and facts["gone"] is False


def test_offline_nothing_is_downloaded(facts):
    assert facts["online"] == [False, False]
    assert "Allow online access" in facts["download"]


REAL = """
import json
folder = os.environ["FOLDER"]
prefs.models_folder = os.path.join(folder, "models")
from bl_ext.user_default.triplane import api
made = api.reconstruct_object(os.path.join(folder, "real.png"), faces=3000, texture_size=256)
bpy.context.view_layer.update()
facts = {"size": max(made.object.dimensions), "record": made.record}
camera = made.camera
facts["views"] = made.views(camera, folder=os.path.join(folder, "views"), size=48)
facts["glb"] = os.path.getsize(made.export(os.path.join(folder, "real.glb")))
path = made.save_field(os.path.join(folder, "field.safetensors"))
facts["again"] = len(made.mesh(faces=1500, texture_size=256).polygons)
print("JSON" + json.dumps(facts))
"""


@pytest.mark.slow
def test_with_the_real_engine(folder, tmp_path_factory):
    import object_fixtures

    picture, _ = object_fixtures.photo("wall")
    object_fixtures.save(folder, "real", picture)
    profile = _profile(tmp_path_factory, fakes=False)
    out = addon_profile.run(profile, REAL, env={"FOLDER": str(folder)}, timeout=600).stdout
    facts = json.loads(re.search(r"^JSON(.*)$", out, re.M)[1])
    assert facts["size"] == pytest.approx(0.3, rel=1e-3)
    assert facts["record"]["model"] == "thing" and not facts["record"]["warnings"]
    assert Image.open(facts["views"][0]).size[0] == 48
    assert facts["glb"] > 10_000 and 1000 < facts["again"] <= 1800
