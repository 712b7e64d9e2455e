"""Heads from seeds in the .blend: one, many, and what lies between them. With fake jobs."""

import addon_profile
import pytest

MAKE = """
import json, math
facts, folder = {}, os.environ["FOLDER"]
ops, scene = bpy.ops.triplane, bpy.context.scene
small = {"faces": 1000, "texture_size": 256}
def width(made):
    return made.dimensions.x / 0.16

# One head, and its brother beside it
facts["sample"] = list(ops.sample_head(seed=3, psi=0.5, mix_seed=7, mix_from=2, mix_to=4, **small))
one = bpy.context.active_object
record = json.loads(one["triplane_record"])
facts["name"], facts["model"], facts["recipe"] = one.name, record["model"], record["recipe"]
facts["paths"] = folder in one["triplane_record"] or "models" in record["parameters"]
facts["field"] = json.loads(one["triplane_field"].packed_file.data)["width"]
facts["views"] = list(ops.view_photo()), scene.camera.parent.name
ops.sample_head(seed=5, **small)
two = bpy.context.active_object
bpy.context.view_layer.update()
facts["beside"] = [one.matrix_world.translation.x, two.matrix_world.translation.x]

# Between the two, from the codes that they keep, by name
ops.sample_head(heads="head 3, head 5", at=0.5, **small)
between = bpy.context.active_object
facts["between"] = [between.name, width(one), width(two), width(between)]
wm = bpy.context.window_manager.triplane_sampling
bpy.context.view_layer.objects.active = one
ops.take_settings()
facts["taken"] = [wm.seed, round(wm.psi, 3), wm.mix, wm.mix_seed, wm.mix_from, wm.mix_to]

# A crowd: one fails and is named, the others stand in their places
os.environ["FAKE_BAD"] = "12;head 3 to head 5, 3"
module("operators.session")._client.close(); module("operators.session")._client = None
before = census()
facts["scene"] = list(ops.random_scene(count=5, seed=10, layout="GRID", spacing=0.5,
                                       location=(0, 2, 0), keep_fields=False, **small))
crowd = bpy.data.collections["heads"]
facts["crowd"] = {o.name: [round(v, 4) for v in o.location] for o in crowd.objects}
facts["crowd_more"] = {k: v - before[k] for k, v in census().items()}
facts["selected"] = sorted(o.name for o in bpy.context.selected_objects)
facts["all_bad"] = error_of(ops.random_scene, count=1, seed=12, **small)

# Meshes by keyframes: the third of five fails, the second stays for it
facts["keyed"] = list(ops.keyframe_heads(heads="3, 5", steps=5, hold=4, start=11, **small))
keyed = bpy.data.collections["head 3 to head 5"].objects
seen = {}
for frame in range(1, 40):
    scene.frame_set(frame)
    seen[frame] = [o.name.rpartition(" ")[2] for o in keyed if not o.hide_viewport]
    assert all(o.hide_viewport == o.hide_render for o in keyed)
facts["seen"] = seen
facts["frame"] = scene.frame_current
bpy.context.view_layer.update()
low = [min((o.matrix_world @ v.co).z for v in o.data.vertices) for o in keyed]
middle = [sum((o.matrix_world @ v.co).z for v in o.data.vertices) / len(o.data.vertices)
          for o in keyed]
facts["jump"] = max(middle) - min(middle)
facts["lowest"] = max(low) - min(low)

# Errors are sentences, and leave nothing
bpy.ops.mesh.primitive_cube_add()
facts["messages"] = {
    "missing": error_of(ops.sample_head, heads="Nobody"),
    "cube": error_of(ops.sample_head, heads="3, Cube"),
    "one": error_of(ops.interpolate, heads="3"),
    "none": error_of(ops.keyframe_heads, heads=" , "),
    "model": error_of(ops.interpolate, heads="head 3, other"),
}
facts["left_tmp"] = [f for f in os.listdir(os.environ["TMPDIR"]) if f.startswith("triplane-")]

# Pictures: temporary before the file is saved, beside it afterwards
facts["unsaved"] = list(ops.interpolate(heads="3, 9"))
path = bpy.path.abspath(bpy.data.images["head 3 to head 9"].filepath)
facts["unsaved_at"] = os.path.commonpath([path, os.environ["TMPDIR"]]) == os.environ["TMPDIR"]
file = os.path.join(folder, "before.blend")
bpy.ops.wm.save_as_mainfile(filepath=file)
facts["saved"] = list(ops.interpolate(heads="3, 9", steps=5, start=20))
plane = bpy.context.active_object
texture = plane.data.materials[0].node_tree.nodes.active
background = next(c for c in plane.children if c.type == "CAMERA").data.background_images[0]
facts["sequence"] = [texture.image.source, texture.image.filepath, *(
    [u.frame_duration, u.frame_start, u.frame_offset, u.use_auto_refresh]
    for u in (texture.image_user, background.image_user))]
facts["files"] = sorted(os.listdir(os.path.join(folder, "head_3_to_head_9")))
ops.interpolate(heads="3, 9")
facts["again"] = sorted(f for f in os.listdir(folder) if f.startswith("head_3"))
os.environ["FAKE_BAD"] = "4"
module("operators.session")._client.close(); module("operators.session")._client = None
facts["failed"] = error_of(ops.interpolate, heads="3, 4")
facts["after_failure"] = sorted(f for f in os.listdir(folder) if f.startswith("head_3"))
bpy.ops.wm.save_mainfile()
print("JSON" + json.dumps(facts))
"""

REOPEN = """
import json
bpy.ops.wm.open_mainfile(filepath=os.path.join(os.environ["FOLDER"], "before.blend"))
made = bpy.data.objects["head 3"]
facts = {"name": module("operators.build.head").recipe(made)["heads"]}
bpy.ops.triplane.sample_head(heads="head 3", faces=1000, texture_size=256)
again = bpy.context.active_object
facts["again"] = [again.name, again.dimensions.x - made.dimensions.x]
facts["blend"] = list(bpy.ops.triplane.interpolate(heads="head 3, head 5, 9", steps=3))
facts["frames"] = json.loads(bpy.context.active_object["triplane_sequence"])["frames"]
facts["gallery"] = list(bpy.ops.triplane.gallery(first=4, count=3))
chosen, shelf = bpy.context.window_manager.triplane_sampling, module("operators.shelf")
facts["missing"] = shelf.missing(shelf.key(chosen), 3, 5)
chosen.psi = 0.2
facts["other"] = shelf.missing(shelf.key(chosen), 4, 3)
print("JSON" + json.dumps(facts))
"""


def facts_of(profile, script, folder):
    return addon_profile.facts_of_folder(profile, script, folder, seconds="0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("wörk here")


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return addon_profile.make_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def made(profile, folder):
    return facts_of(profile, MAKE, folder)


@pytest.fixture(scope="module")
def reopened(made, profile, folder):
    return facts_of(profile, REOPEN, folder)


def test_a_seed_becomes_a_head_with_its_recipe(made):
    assert made["sample"] == ["FINISHED"] and made["name"] == "head 3"
    assert made["model"] == "built-in" and made["recipe"]["heads"] == [3]
    assert made["recipe"]["psi"] == pytest.approx(0.5)
    mixed = [made["recipe"][k] for k in ("mix_seed", "mix_from", "mix_to")]
    assert mixed == [7, 2, 4]
    assert made["field"] == pytest.approx(0.9)
    assert not made["paths"], "a folder of this machine is kept in the file"
    assert made["views"] == [["FINISHED"], "head 3"]
    assert abs(made["beside"][1] - made["beside"][0]) > 0.3


def test_heads_of_the_scene_are_blended_by_name(made):
    name, one, two, between = made["between"]
    assert name == "head 3 to head 5, 0.50"
    assert between == pytest.approx((one + two) / 2, abs=0.01) != one


def test_the_panel_takes_over_a_heads_settings(made):
    assert made["taken"] == [3, 0.5, True, 7, 2, 4]


def test_a_crowd_stands_in_a_grid_without_the_one_that_failed(made):
    assert made["scene"] == ["FINISHED"]
    assert made["crowd"] == {
        "head 10": [-0.5, 1.75, 0.0],
        "head 11": [0.0, 1.75, 0.0],
        "head 13": [-0.5, 2.25, 0.0],
        "head 14": [0.0, 2.25, 0.0],
    }
    assert made["selected"] == sorted(made["crowd"])
    more = made["crowd_more"]
    assert (more["objects"], more["cameras"], more["collections"]) == (4, 0, 1)
    assert more["images"] == 4, "textures only: no field was to be kept"
    assert "no surface" in made["all_bad"] and "{" not in made["all_bad"]


def test_meshes_are_seen_one_after_the_other(made):
    assert made["keyed"] == ["FINISHED"]
    expected = {}
    for frame in range(1, 40):
        number = min(max((frame - 11) // 4, 0), 4) + 1
        expected[str(frame)] = [str(2 if number == 3 else number)]
    assert made["seen"] == expected
    assert made["jump"] < 1e-4, "they do not stand on the same spot"
    assert made["lowest"] > 1e-3, "the fakes are too alike for this test"


def test_trouble_is_told_in_a_sentence(made):
    words = {
        "missing": "There is no head named Nobody",
        "cube": "Cube",
        "one": "Two heads at least",
        "none": "No head is given",
        "model": "There is no head named other",
    }
    for key, word in words.items():
        message = made["messages"][key]
        assert word in message and "Something went wrong" not in message and "{" not in message
    assert made["left_tmp"] == []


def test_pictures_are_a_sequence_beside_the_file(made):
    assert made["unsaved"] == made["saved"] == ["FINISHED"] and made["unsaved_at"]
    source, path, *users = made["sequence"]
    assert source == "SEQUENCE"
    assert path == "//head_3_to_head_9/head_3_to_head_9_0001.png"
    assert users == [[5, 20, 0, True]] * 2
    assert made["files"] == [f"head_3_to_head_9_{i:04d}.png" for i in range(1, 6)]
    assert made["again"] == ["head_3_to_head_9", "head_3_to_head_9-2"]
    assert "no surface" in made["failed"] and made["after_failure"] == made["again"]


def test_a_reopened_file_is_enough_to_go_on(reopened):
    assert reopened["name"] == [3]
    name, difference = reopened["again"]
    assert name == "head 3.001" and abs(difference) < 1e-6
    assert reopened["blend"] == ["FINISHED"] and reopened["frames"] == 5


def test_the_gallery_keeps_what_it_has(reopened):
    assert reopened["gallery"] == ["FINISHED"]
    assert reopened["missing"] == [3, 7]
    assert reopened["other"] == [4, 5, 6]
