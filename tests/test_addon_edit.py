"""Edited heads in the .blend: mesh, texture, field and sliders as one. With fake jobs."""

import addon_profile
import pytest

START = """
import importlib, json
import numpy as np
facts, folder = {}, os.environ["FOLDER"]
ops, scene = bpy.ops.triplane, bpy.context.scene
edits, sliders = module("operators.edits"), module("operators.sliders")
edited, store = module("operators.build.edited"), module("operators.build.field")
sys.path.insert(0, os.path.dirname(module("engine").__path__[0]))
fake = importlib.import_module("engine.jobs.edit_stages")
small = {"faces": 1000, "texture_size": 256}
def coded(made, **given):
    # A field with a code in place of the fake's.
    bpy.data.images.remove(made["triplane_field"])
    store.pack(made, made.name, fake.field_bytes(**given))
    return made
def field_of(made, key="triplane_field"):
    data = made[key].packed_file.data
    return json.loads(json.loads(data[8:].split(bytes(10))[0])["__metadata__"]["field"])["origin"]
def width(made):
    xs = [v.co.x for v in made.data.vertices]
    return round((max(xs) - min(xs)) / 0.16, 2)
def texture(made):
    return made.data.materials[0].node_tree.nodes.active.image
def what(made):
    sliders_say = round(made.triplane_edit.age, 3)
    base = field_of(made, edited.BASE)["edited"] if edited.BASE in made else None
    return [sliders_say, edited.applied(made), width(made), field_of(made)["edited"], base]
replace = edited.replace
def noted(*given):
    facts.setdefault("lost", []).append(replace(*given))
    return facts["lost"][-1]
edited.replace = noted
def head(seed, **given):
    ops.sample_head(seed=seed, **(small | given))
    return coded(bpy.context.active_object)
"""

EDIT = """
ops.sample_head(seed=9, **small)
facts["no_code"] = error_of(ops.edit_head, edits="age=1")
thing = bpy.context.active_object
thing["triplane_record"] = json.dumps({"kind": "object"})
facts["object"] = error_of(ops.edit_head, edits="age=1")
bpy.data.objects.remove(thing)
facts["none"] = error_of(ops.edit_head, edits="age=1")

made = head(0)
coded(made, model="unheard of")
facts["model"] = error_of(ops.edit_head, edits="age=1")
coded(made)
before = census()
facts["start"] = what(made)
name, matrix, data = made.name, list(made["triplane_field_to_object"]), made.data.name
ops.edit_head(edits="age=1, Nose_Width=-0.5")
facts["edited"] = what(made)
facts["more"] = changed(before)
facts["same"] = [made.name == name, list(made["triplane_field_to_object"]) == matrix]
facts["nose"] = made.triplane_edit.nose_width
made.triplane_edit.nose_width = 0
made.triplane_edit.age = 2
facts["pending"] = [what(made), edits.wanted(made)]
ops.edit_head()
facts["sliders"] = what(made)
os.environ["FAKE_BAD"] = "age=3"
module("operators.session")._client.close(); module("operators.session")._client = None
made.triplane_edit.age = 3
facts["failed"] = [error_of(ops.edit_head), what(made)]
wrong = ("chin=1", "age=9", "age", "age=1,age=2")
facts["wrong"] = [error_of(ops.edit_head, edits=text) for text in wrong]
facts["after_wrong"] = what(made)
bpy.ops.object.mode_set(mode="EDIT")
facts["mode"] = error_of(ops.edit_head, edits="age=1")
bpy.ops.object.mode_set(mode="OBJECT")
facts["panel"] = bpy.context.window_manager.triplane_sliders.age
bpy.context.window_manager.triplane_sliders.age = 1.5
facts["passed on"] = made.triplane_edit.age
ops.edit_reset(direction="age")
facts["one reset"] = edits.wanted(made)
ops.edit_head(edits="none")
facts["reset"] = what(made)
facts["left"] = changed(before)
facts["left_tmp"] = [f for f in os.listdir(os.environ["TMPDIR"]) if f.startswith("triplane-")
                     and not f.startswith("triplane-edit")]

# As heads of blends: no longer its seed, and what it is now.
from types import SimpleNamespace
ops.edit_head(edits="age=1")
listed = module("operators.headlist").HeadList()
listed.take_heads(bpy.context, made.name, "z")
facts["blended"] = fake.recipe_of(json.loads(listed.heads_text)[0])["edited"]
listed.cleanup()
from bl_ext.user_default.triplane import api
facts["api"] = [api.edit_head(made, age=2).edits, what(made)]
try:
    api.edit_head(made, chin=1)
except api.Error as error:
    facts["api error"] = str(error)
module("operators.build.removed").remove(made)
facts["gone"] = [i.name for i in bpy.data.images if "head 0" in i.name]
print("JSON" + json.dumps(facts))
"""

UNDO = """
made = head(0)
bpy.ops.ed.undo_push(message="made")
def now():
    return what(bpy.data.objects["head 0"])
facts["states"] = [now()]
ops.edit_head("EXEC_DEFAULT", True, edits="age=1")
facts["states"].append(now())
bpy.data.objects["head 0"].triplane_edit.age = 2
ops.edit_head("EXEC_DEFAULT", True)
facts["states"].append(now())
bpy.data.objects["head 0"].triplane_edit.age = 3  # moved, and not applied
steps = []
for step in (bpy.ops.ed.undo, bpy.ops.ed.undo, bpy.ops.ed.redo, bpy.ops.ed.redo, bpy.ops.ed.undo):
    step()
    steps.append(now())
facts["steps"] = steps
bpy.data.objects["head 0"].triplane_edit.age = 3
bpy.ops.ed.undo_push(message="a slider only")
bpy.ops.ed.undo()
facts["last"] = now()
# What comes after an undo starts from the same base.
bpy.ops.ed.redo()
ops.edit_head("EXEC_DEFAULT", True, edits="age=-1")
facts["again"] = now()
print("JSON" + json.dumps(facts))
"""

KEEP = """
made = head(0)
material, old = made.data.materials[0], texture(made)
shader = next(n for n in material.node_tree.nodes if n.bl_idname == "ShaderNodeBsdfPrincipled")
shader.inputs["Roughness"].default_value = 0.123
group = made.vertex_groups.new(name="jaw bone")
high = [v.index for v in made.data.vertices if v.co.z > 0.1]
group.add(high, 0.75, "REPLACE")
made.shape_key_add(name="Basis")
key = made.shape_key_add(name="wink")
for index in high:
    key.data[index].co.y += 0.01
key.value = 0.5
made.data.color_attributes.new("paint", "BYTE_COLOR", "POINT")
made.modifiers.new("Subdivision", "SUBSURF")
other = bpy.data.objects.new("twin", made.data)  # shares mesh and material
scene.collection.objects.link(other)
bpy.context.view_layer.objects.active = made
ops.edit_head(edits="age=1")
new = made.data.materials[0]
facts["materials"] = [new.node_tree.nodes["Principled BSDF"].inputs["Roughness"].default_value,
    texture(made) != old, texture(other) == old, width(other), len(bpy.data.materials)]
groups = [[g.weight for g in v.groups] for v in made.data.vertices]
facts["weights"] = [made.vertex_groups[0].name, sum(map(len, groups)),
                    sum(v.co.z > 0.1 for v in made.data.vertices)]
facts["counts"] = len(other.data.vertices), len(made.data.vertices)
block = made.data.shape_keys.key_blocks["wink"]
moved = [(a.co - b.co).length for a, b in zip(block.data, made.data.vertices)]
facts["key"] = [block.value, round(max(moved), 4), sum(m > 0.005 for m in moved)]
facts["modifiers"] = [m.type for m in made.modifiers]

print("JSON" + json.dumps(facts))
"""

QUADS = """
# Quads keep their mesh: only points move.
photo = os.path.join(folder, "somebody.png")
with open(photo, "w") as file:
    file.write("the fake job does not read it")
ops.reconstruct_head(filepath=photo, topology="QUAD", density="LOW", texture_size=256)
quad = coded(bpy.context.active_object)
facts["eyes"] = sorted(o.name for o in quad.children if o.type == "MESH")
name, uid, count = quad.data.name, quad.data.session_uid, len(quad.data.vertices)
quad.vertex_groups.new(name="all").add(list(range(count)), 0.5, "REPLACE")
mine = quad.shape_key_add(name="mine", from_mix=False)
mine.data[7].co.z += 0.02
quad.data.shape_keys.key_blocks[1].value = 0.25
wide = width(quad)
ops.edit_head(edits="age=1")
keys = quad.data.shape_keys.key_blocks
facts["quads"] = [quad.data.session_uid == uid, len(quad.data.vertices) == count,
    round(width(quad) / wide, 2), round(keys[1].value, 2),
    round((keys["mine"].data[7].co - keys["Basis"].data[7].co).length, 4),
    len(quad.data.vertices[5].groups), what(quad)[1:4:2]]
facts["eyes after"] = sorted(o.name for o in quad.children if o.type == "MESH")
print("JSON" + json.dumps(facts))
"""

SAVE = """
made = head(0)
ops.edit_head(edits="age=1, smile=0.5")
made.triplane_edit.age = 3  # moved, and not applied
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "edited.blend"))
prefs.keep_field = "BESIDE"
ops.sample_head(seed=2, **small)
beside = bpy.context.active_object
path = bpy.path.abspath(beside["triplane_field_path"])
with open(path, "wb") as file:
    file.write(fake.field_bytes())
facts["stamp"] = edits.refusal(beside)
ops.edit_head(edits="age=2")
facts["beside"] = [edited.applied(beside), field_of(beside)["edited"],
                   "triplane_field_path" in beside, os.path.exists(path)]
ops.edit_head(edits="none")
facts["beside back"] = [edited.applied(beside), "triplane_field" in beside,
                        bpy.path.abspath(beside["triplane_field_path"]) == path]

bpy.ops.wm.open_mainfile(filepath=os.path.join(folder, "edited.blend"))
made = bpy.data.objects["head 0"]
bpy.context.view_layer.objects.active = made
facts["opened"] = [what(made), round(made.triplane_edit.smile, 3)]
ops.edit_head(edits="age=2")
facts["again"] = what(made)
ops.edit_head(edits="none")
facts["back"] = what(made)

bpy.ops.wm.read_homefile(use_empty=True)
with bpy.data.libraries.load(os.path.join(folder, "edited.blend"), link=True) as (there, here):
    here.objects = ["head 0"]
linked = bpy.data.objects["head 0"]
bpy.context.scene.collection.objects.link(linked)
bpy.context.view_layer.objects.active = linked
facts["linked"] = error_of(bpy.ops.triplane.edit_head, edits="age=1")
print("JSON" + json.dumps(facts))
"""

FRAMES = """
made = head(0)
camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
camera.location = (0, -1, 0.1)
scene.collection.objects.link(camera)
scene.camera = camera
bpy.context.view_layer.objects.active = made
ops.edit_head(edits="smile=0.5")
session, given = module("operators.session"), []
def run_blocking(job, params, on_event=None):
    listed = json.load(open(params["cameras"]))
    with open(params["field"], "rb") as file:
        given.append([job, fake.recipe_of(params["field"])["edited"],
                      [(c["frame"], c.get("edits")) for c in listed]])
    raise module("engine.errors").TriplaneError("Enough.")
session.run_blocking, real = run_blocking, session.run_blocking
bake = {"camera": "eye", "frame_start": 1, "frame_end": 5, "folder": folder}
facts["plain"] = error_of(ops.bake_views, **bake)
scene.frame_set(1)
made.triplane_edit.age = 0
ops.edit_keyframe(direction="age")
scene.frame_set(5)
made.triplane_edit.age = 2
ops.edit_keyframe(direction="age")
facts["curves"] = [c.data_path for c in made.animation_data.action.fcurves]
for curve in made.animation_data.action.fcurves:
    for key in curve.keyframe_points:
        key.interpolation = "LINEAR"
scene.frame_set(2)
facts["animated"] = error_of(ops.bake_views, **bake)
facts["given"], facts["frame"] = given, scene.frame_current
session.run_blocking = real
ops.edit_head()
facts["this frame"] = edited.applied(made)
facts["unknown"] = error_of(ops.edit_keyframe, direction="chin")
print("JSON" + json.dumps(facts))
"""

LIVE = """
import types
from mathutils import Euler, Matrix, Vector
live, viewport = module("operators.edit_live"), module("operators.build.viewport")
made = head(0)
made.location, made.rotation_euler, made.scale = (0.3, -0.2, 0.1), (0.1, 0.2, 0.7), (2, 2, 2)
data = bpy.data.cameras.new("eye")
camera = bpy.data.objects.new("eye", data)
scene.collection.objects.link(camera)
camera.location, camera.rotation_euler = (0.5, -2.5, 0.6), Euler((1.4, 0.05, 0.1))
bpy.context.view_layer.update()
region = types.SimpleNamespace(width=800, height=600, as_pointer=lambda: 1)
def seen():
    window = camera.calc_matrix_camera(bpy.context.evaluated_depsgraph_get(), x=800, y=600)
    view = camera.matrix_world.normalized().inverted()
    return types.SimpleNamespace(view_matrix=view, window_matrix=window,
                                 perspective_matrix=window @ view)
facts["off"] = []
for kind in ("PERSP", "ORTHO"):
    data.type, data.ortho_scale, data.shift_x = kind, 1.7, 0.05
    bpy.context.view_layer.update()
    view = seen()
    place = viewport.place(region, view, made, 128)
    left, lower, right, upper = place.rectangle
    to_world = module("operators.build.head").field_to_world(made)
    points = np.random.default_rng(0).uniform(-0.12, 0.12, (50, 3))
    pixels, _ = place.camera.project(points)
    world = np.c_[points @ to_world[:3, :3].T + to_world[:3, 3], np.ones(50)]
    clip = world @ np.array(view.perspective_matrix).T
    there = (clip[:, :2] / clip[:, 3:] / 2 + 0.5) * (800, 600)
    here = pixels / 128 * (right - left, lower - upper) + (left, upper)
    facts["off"].append(float(abs(here - there).max()))
    own = np.array([(*made.matrix_world @ v.co, 1.0) for v in made.data.vertices])
    own = own @ np.array(view.perspective_matrix).T
    own = (own[:, :2] / own[:, 3:] / 2 + 0.5) * (800, 600)
    margins = [*(own.min(0) - (left, lower)), *((right, upper) - own.max(0))]
    facts.setdefault("margins", []).append([m / np.ptp(own, axis=0).max() for m in margins])
turned = place.camera.cam2world[:3, :3]
facts["turned"] = float(abs(turned @ turned.T - np.eye(3)).max())
camera.location.y, data.type = 2.5, "PERSP"  # looks away from it
bpy.context.view_layer.update()
facts["away"] = viewport.place(region, seen(), made, 128).camera is None

# The state behind the sliders, with a 3D view that only notes what it is to show.
camera.location.y = -2.5
bpy.context.view_layer.update()
class Overlay:
    shown, pictures = False, []
    def show(self, image, where):
        self.shown = True
        self.pictures.append([image.shape[0], int(image[0, 0, 0])])
    def hide(self):
        self.shown = False
live._overlay = overlay = Overlay()
live.REST = 1.0  # a busy machine shall not make it rest in the middle
viewport.find = lambda window, made: (None, None, region, seen())
calls = []
live._refine = lambda made: (calls.append(edits.wanted(made)), setattr(live._live, "dirty", False))
live.bpy = types.SimpleNamespace(**{n: getattr(bpy, n) for n in ("data", "types", "context")},
    app=types.SimpleNamespace(background=False, tempdir=bpy.app.tempdir,
        timers=types.SimpleNamespace(is_registered=lambda f: True, unregister=lambda f: None)))
def run(seconds, change=lambda n: None, until=lambda: False):
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end and not until():
        change(number)
        live._tick()
        time.sleep(0.01)
        number += 1
amounts = [round(0.05 * n, 2) for n in range(1, 41)]
def move(number):
    if number < len(amounts):
        made.triplane_edit.age = amounts[number]
run(60, move, lambda: bool(calls))
facts["pictures"], facts["calls"] = list(overlay.pictures), list(calls)
facts["files"] = len(os.listdir(live._folder))
run(1)
facts["left"] = overlay.shown  # nobody refined: the picture goes with what is wanted

# Moved back: nothing to refine.
overlay.pictures.clear(); calls.clear()
made.triplane_edit.age = 1.0
run(30, until=lambda: bool(overlay.pictures))
made.triplane_edit.age = 0.0
run(30, until=lambda: not live.state().name)
facts["back"] = [overlay.shown, list(calls), live.state().name]

# A picture that cannot be had: a sentence, and the sliders say what the head is.
os.environ["FAKE_BAD"] = "age=1"
module("operators.session")._client.close(); module("operators.session")._client = None
made.triplane_edit.age = 1.0
run(30, until=lambda: module("operators.session").failure is not None)
session = module("operators.session")
facts["failed"] = [session.failure.sentence, session.failure_place, what(made)[:2], overlay.shown]

# Its process dies: once more.
os.environ["FAKE_BAD"] = ""
session._client.close(); session._client = None; session.forget_failure()
overlay.pictures.clear()
made.triplane_edit.age = 2.0
run(30, until=lambda: session._client and session._client.state == "running")
session._client._process._popen.kill()
run(30, until=lambda: bool(overlay.pictures))
facts["killed"] = [overlay.pictures, session.failure is None]
live.stop()
facts["stopped"] = [overlay.shown, live.state().name]
folder_was = live._folder
live.close()
facts["closed"] = os.path.exists(folder_was)
live.bpy = bpy
print("JSON" + json.dumps(facts))
"""


def facts_of(profile, folder, script):
    return addon_profile.facts_of_folder(profile, START + script, folder, seconds="0")


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return addon_profile.make_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def edit(profile, tmp_path_factory):
    return facts_of(profile, tmp_path_factory.mktemp("edit"), EDIT)


@pytest.fixture(scope="module")
def undo(profile, tmp_path_factory):
    return facts_of(profile, tmp_path_factory.mktemp("undo"), UNDO)


@pytest.fixture(scope="module")
def keep(profile, tmp_path_factory):
    return facts_of(profile, tmp_path_factory.mktemp("keep"), KEEP)


@pytest.fixture(scope="module")
def quads(profile, tmp_path_factory):
    return facts_of(profile, tmp_path_factory.mktemp("quads"), QUADS)


@pytest.fixture(scope="module")
def save(profile, tmp_path_factory):
    return facts_of(profile, tmp_path_factory.mktemp("säve"), SAVE)


@pytest.fixture(scope="module")
def frames(profile, tmp_path_factory):
    return facts_of(profile, tmp_path_factory.mktemp("frames"), FRAMES)


def state(age, width, edits=None):
    """slider, edits of the head, width of its mesh, edits of its field, edits of its base."""
    edits = f"age={age:g}" if edits is None else edits
    return [age, edits, width, edits, "" if edits else None]


def test_mesh_field_and_sliders_are_replaced_together(edit):
    assert edit["start"] == state(0.0, 0.59, "")
    assert edit["edited"] == state(1.0, 1.09, "age=1, nose width=-0.5")
    assert edit["nose"] == -0.5 and edit["same"] == [True, True]
    assert edit["more"] == {"images": 1}, "only the base field is kept beside"
    assert edit["sliders"] == state(2.0, 1.19)


def test_sliders_that_are_not_applied_change_nothing(edit):
    before, wanted = edit["pending"]
    assert before == [2.0, *edit["edited"][1:]] and wanted == "age=2"


def test_a_failed_edit_leaves_the_head_and_its_sliders(edit):
    sentence, after = edit["failed"]
    assert sentence.splitlines()[0] == "Error: The head came apart. Take less."
    assert "{" not in sentence and after == state(2.0, 1.19)


def test_wrong_edits_end_in_a_sentence(edit):
    unknown, far, plain, twice = edit["wrong"]
    assert "no direction 'chin'" in unknown and "age, gender" in unknown
    assert "from -3 to 3, not 9" in far and "age=1" in plain and "twice" in twice
    assert edit["after_wrong"] == state(2.0, 1.19)


def test_no_edits_give_the_unedited_head_back(edit):
    assert edit["one reset"] == ""
    assert edit["reset"][:2] == [0.0, ""] and edit["reset"][3:] == ["", None]
    assert edit["left"] == {} and edit["left_tmp"] == [] and edit["gone"] == []


def test_the_panels_sliders_are_the_heads(edit):
    assert edit["panel"] == 2.0 and edit["passed on"] == 1.5


def test_who_cannot_be_edited_is_told_why(edit):
    assert "no latent code" in edit["no_code"] and "older versions" in edit["no_code"]
    assert "only heads can be edited" in edit["object"]
    assert "Select a head" in edit["none"]
    assert "No directions of the model unheard of" in edit["model"]
    assert "editing mode" in edit["mode"]


def test_an_edited_head_is_no_longer_its_seed_in_blends(edit):
    assert edit["blended"] == "age=1"


def test_scripts(edit):
    assert edit["api"] == ["age=2", state(2.0, 1.19)]
    assert "no direction 'chin'" in edit["api error"]


def test_undo_and_redo_take_all_of_an_edit(undo):
    made, one, two = undo["states"]
    assert [made[0], one[0], two[0]] == [0.0, 1.0, 2.0]
    assert undo["steps"] == [one, made, one, two, one]


def test_undo_to_sliders_that_were_not_applied(undo):
    assert undo["last"] == undo["states"][1], "the sliders say what the head is"
    assert undo["again"] == state(-1.0, 0.89)


def test_materials_weights_shape_keys_and_modifiers_stay(keep):
    roughness, new_texture, twins_texture, twins_width, materials = keep["materials"]
    assert abs(roughness - 0.123) < 1e-6 and new_texture
    assert twins_texture and twins_width == 0.59 and materials == 2, "another head's stays"
    assert keep["counts"][1] > 1.3 * keep["counts"][0], "another mesh"
    name, weighted, high = keep["weights"]
    assert name == "jaw bone" and abs(weighted - high) < 0.15 * high
    assert keep["key"] == [0.5, 0.01, weighted]
    assert keep["modifiers"] == ["SUBSURF"]
    assert keep["lost"] == [["colour attributes"]]


@pytest.mark.slow
def test_quads_keep_their_mesh(quads):
    same, count, width, value, mine, groups, edits = quads["quads"]
    assert same and count and width == 1.1
    assert (value, mine, groups) == (0.25, 0.02, 1) and edits == ["age=1", "age=1"]
    assert quads["eyes after"] == quads["eyes"] and len(quads["eyes"]) == 2
    assert quads["lost"] == [[]]


def test_saved_and_opened_again(save):
    opened, smile = save["opened"]
    assert opened == state(1.0, 1.09, "age=1, smile=0.5") and smile == 0.5
    assert save["again"] == state(2.0, 1.19)
    assert save["back"][:2] == [0.0, ""] and save["back"][3:] == ["", None]


def test_a_field_beside_the_file_stays_there(save):
    assert save["stamp"] == ""
    assert save["beside"] == ["age=2", "age=2", False, True]
    assert save["beside back"] == ["", False, True]


def test_a_linked_head_is_refused(save):
    assert "belongs to another file" in save["linked"]


def test_keyframes_become_the_edits_of_baked_frames(frames):
    plain, animated = frames["given"]
    assert frames["curves"] == ["triplane_edit.age"]
    assert plain == ["views", "smile=0.5", [[n, None] for n in range(1, 6)]]
    texts = ["", "age=0.5, ", "age=1, ", "age=1.5, ", "age=2, "]
    assert animated == ["views", "", [[n, t + "smile=0.5"] for n, t in enumerate(texts, 1)]]
    assert frames["frame"] == 2 and frames["this frame"] == "age=0.5, smile=0.5"
    assert "no direction 'chin'" in frames["unknown"]


@pytest.fixture(scope="module")
def live(profile, tmp_path_factory):
    return facts_of(profile, tmp_path_factory.mktemp("live"), LIVE)


def test_the_picture_lies_where_the_view_shows_the_head(live):
    assert max(live["off"]) < 0.01, "pixels, in perspective and parallel"
    assert live["away"]
    assert all(0.09 < m < 0.11 for margins in live["margins"] for m in margins)
    assert live["turned"] < 1e-6, "the camera has no stretch of the head's scale"


def test_the_newest_value_wins_and_is_refined_at_rest(live):
    pictures = live["pictures"]
    assert 2 <= len(pictures) < 30, "not a picture a change"
    assert [p[1] for p in pictures] == sorted(p[1] for p in pictures)
    assert pictures[-1] == [256, 140] and live["calls"] == ["age=2"]
    assert live["files"] == 1 and not live["left"]


def test_sliders_moved_back_refine_nothing(live):
    assert live["back"] == [False, [], ""]


def test_a_picture_that_cannot_be_had_is_told(live):
    sentence, place, head, shown = live["failed"]
    assert (sentence, place) == ("The head came apart.", "edit")
    assert head == [0.0, ""] and not shown, "the sliders say what the head is"


def test_a_killed_process_is_asked_again(live):
    pictures, no_failure = live["killed"]
    assert pictures and pictures[0][1] == 140 and no_failure
    assert live["stopped"] == [False, ""] and not live["closed"]
