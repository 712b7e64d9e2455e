"""Edited heads with the real engine: in pictures, and with a model that the user has added."""

import addon_profile
import checkpoint_files
import pytest

pytestmark = pytest.mark.slow

START = """
import json
import numpy as np
facts, folder = {}, os.environ["FOLDER"]
ops, scene = bpy.ops.triplane, bpy.context.scene
edits, sliders = module("operators.edits"), module("operators.sliders")
def pixels(path):
    image = bpy.data.images.load(path)
    found = np.empty(image.size[0] * image.size[1] * 4, np.float32)
    image.pixels.foreach_get(found)
    return found.reshape(image.size[1], image.size[0], 4)
"""

FRAMES = """
ops.sample_head(seed=3, faces=3000, texture_size=256)
made = bpy.context.active_object
before = made.data.name, np.array([v.co for v in made.data.vertices]).ptp(0)
ops.edit_head(edits="face width=2")
facts["wider"] = (np.array([v.co for v in made.data.vertices]).ptp(0) / before[1]).tolist()
facts["kept"] = edits.edited.applied(made), made.triplane_edit.face_width
ops.edit_head(edits="none")
ops.view_photo()
scene.render.resolution_x = scene.render.resolution_y = 64
bpy.context.view_layer.objects.active = made
for frame, amount in ((1, 0.0), (3, 3.0)):
    scene.frame_set(frame)
    made.triplane_edit.skin_tone = amount
    ops.edit_keyframe(direction="skin tone")
scene.frame_set(1)
bake = {"camera": scene.camera.name, "frame_start": 1, "frame_end": 3, "folder": folder,
        "size": 64}
ops.bake_views(**bake)
paths = sorted(p for p in os.listdir(folder) if p.endswith(".png"))
seen = [pixels(os.path.join(folder, p)) for p in paths]
facts["lighter"] = [float(s[..., :3][s[..., 3] > 0.5].mean()) for s in seen]
shown = scene.camera.data.background_images[-1]
facts["linked"] = [shown.image.source, shown.image_user.frame_duration]
times = [os.stat(os.path.join(folder, p)).st_mtime_ns for p in paths]
ops.bake_views(**bake)
facts["again"] = times == [os.stat(os.path.join(folder, p)).st_mtime_ns for p in paths]
facts["views"] = edits.stale_views(made)
print("JSON" + json.dumps(facts))
"""

ADDED = """
ops.model_add(filepath=os.environ["CHECKPOINT"], name="cars")
ops.sample_head(seed=1, model="cars", faces=2000, texture_size=256)
made = bpy.context.active_object
facts["refused"] = error_of(ops.edit_head, edits="component 1=1")
ops.find_directions(count=3)
facts["sliders"] = [d.name for d in made.triplane_edit.more]
ops.name_direction(direction="component 2", name="Long Bonnet")
facts["named"] = [d.name for d in made.triplane_edit.more], [d.name for d in sliders.known(made)]
bpy.context.window_manager.triplane_sliders.slot_1 = 1.5
facts["slider"] = edits.wanted(made)
ops.edit_head()
facts["edited"] = edits.edited.applied(made)
ops.name_direction(direction="long bonnet", name="length")
facts["renamed"] = edits.edited.applied(made), edits.wanted(made)
ops.edit_keyframe(direction="length")
facts["curve"] = made.animation_data.action.fcurves[0].data_path
facts["bad name"] = error_of(ops.name_direction, direction="length", name="a, b")
print("JSON" + json.dumps(facts))
"""


def facts_of(profile, folder, script, **env):
    env |= {"FOLDER": str(folder)}
    return addon_profile.facts_of(profile, START + script, env=env, timeout=900)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return addon_profile.make_profile(tmp_path_factory.mktemp("profile"), fakes=False)


def test_keyframes_of_sliders_become_pictures(profile, tmp_path):
    facts = facts_of(profile, tmp_path, FRAMES)
    across = facts["wider"][0]
    assert 1.03 < across < 1.3 and facts["kept"] == ["face width=2", 2.0]
    first, second, third = facts["lighter"]
    assert first + 0.03 < second < third - 0.02, "the skin gets lighter from frame to frame"
    assert facts["linked"] == ["SEQUENCE", 3] and facts["again"] and facts["views"] == []


def test_directions_of_an_added_model_are_found_named_and_used(profile, tmp_path):
    checkpoint = tmp_path / "cars.pkl"
    checkpoint.write_bytes(checkpoint_files.training_pickle(checkpoint_files.weights()))
    facts = facts_of(profile, tmp_path, ADDED, CHECKPOINT=str(checkpoint))
    assert "No directions of the model cars are known" in facts["refused"]
    assert facts["sliders"] == ["component 1", "component 2", "component 3"]
    names = ["component 1", "long bonnet", "component 3"]
    assert facts["named"] == [names, names]
    assert facts["slider"] == facts["edited"] == "long bonnet=1.5"
    assert facts["renamed"] == ["length=1.5", "length=1.5"]
    assert facts["curve"] == "triplane_edit.more[1].amount"
    assert "cannot be a direction's name" in facts["bad name"]
