"""A result in the .blend: exact, self-contained, and all or nothing."""

import addon_profile
import pytest

# One Blender makes heads and saves; another opens the moved file and works on with it.
MAKE = """
import json, hashlib, numpy as np
from mathutils import Vector
from bpy_extras.object_utils import world_to_camera_view
facts = {}
folder = os.environ["FOLDER"]
photo = os.path.join(folder, "Zoë at sea.jpg")
open(photo, "w").close()
def head(name):
    return bpy.data.objects[name]

facts["empty"] = census()
facts["result"] = list(bpy.ops.triplane.reconstruct_head(filepath=photo, faces=40000))
made = head("Zoë at sea")
mesh = made.data
facts["census"] = census()
facts["faces"] = len(mesh.polygons)
facts["smooth"] = all(p.use_smooth for p in mesh.polygons)
facts["selected"] = [o.name for o in bpy.context.selected_objects]
co = np.empty(3 * len(mesh.vertices), np.float32)
mesh.vertices.foreach_get("co", co)
co = co.reshape(-1, 3)
facts["low"], facts["high"] = co.min(0).tolist(), co.max(0).tolist()
shapes, cameras = module("engine.jobs.shapes"), module("engine.cameras")
ball = shapes.ball(40000)
normals = np.empty(3 * len(mesh.polygons), np.float32)
mesh.polygons.foreach_get("normal", normals)
centres = np.empty_like(normals)
mesh.polygons.foreach_get("center", centres)
outward = (normals.reshape(-1, 3) * (centres.reshape(-1, 3) - [0, 0, 0.12])).sum(1)
facts["outward"] = float((outward > 0).mean())
uv = np.empty(2 * 3 * len(mesh.polygons), np.float32)
mesh.uv_layers[0].uv.foreach_get("vector", uv)
facts["uv_exact"] = bool((uv == ball["uvs"].ravel()).all())

material = mesh.materials[0]
texture = next(n.image for n in material.node_tree.nodes if n.type == "TEX_IMAGE")
pixels = np.empty(2048 * 2048 * 4, np.float32)
texture.pixels.foreach_get(pixels)
stored = (pixels.reshape(2048, 2048, 4)[::-1, :, :3] * 255 + 0.5).astype(np.uint8)
facts["texture_exact"] = bool((stored == shapes.texture(2048)).all())
facts["texture_packed"] = texture.packed_file is not None

camera = next(o for o in made.children if o.type == "CAMERA")
scene = bpy.context.scene
bpy.ops.triplane.view_photo()
facts["resolution"] = [scene.render.resolution_x, scene.render.resolution_y]
made.location, made.rotation_euler = (0.3, -0.2, 0.1), (0.2, 0.1, 0.7)  # the artist moves it
bpy.context.view_layer.update()
want, _ = shapes.camera().project(ball["vertices"].astype(float))
got = np.array([world_to_camera_view(scene, camera, made.matrix_world @ Vector(v))
                for v in co[::97]])
got = np.stack([got[:, 0] * 480, (1 - got[:, 1]) * 640], 1)
facts["pixels_off"] = float(abs(got - want[::97]).max())
background = camera.data.background_images[0]
facts["background"] = [background.image.size[:], background.image.packed_file is not None,
                       camera.data.show_background_images]

seen = module("operators.build.camera").from_blender(
    camera, bpy.context.evaluated_depsgraph_get(), 480, 640, (1, 1),
    module("operators.build.head").field_to_world(made))
facts["round_trip"] = float(max(abs(seen.cam2world - shapes.camera().cam2world).max(),
                                abs(seen.intrinsics - shapes.camera().intrinsics).max()))

start = time.perf_counter()
store = module("operators.build.head")
result = shapes._reconstruct({"photo": photo, "preset": "fast", "points": [], "faces": 40000,
    "texture_size": 2048, "seed": 0}, module("engine.jobs.base").Context())
prepare_start = time.perf_counter()
prepared = store.prepare(result.meta, result.arrays)
build_start = time.perf_counter()
second = store.build(bpy.context, prepared, {})
facts["prepare_s"] = build_start - prepare_start
facts["build_s"] = time.perf_counter() - build_start
facts["second"] = [second.name, second.location.x, made.name]
bpy.data.objects.remove(second)

before = census()
messages = []
for bad in ("broken.jpg", "nobody.jpg", "killed.jpg", "missing.jpg", ""):
    path = os.path.join(folder, bad) if bad else ""
    if bad and bad != "missing.jpg":
        open(path, "w").close()
    try:
        bpy.ops.triplane.reconstruct_head(filepath=path, faces=1000, texture_size=256)
        messages.append("no error")
    except RuntimeError as error:
        messages.append(str(error))
def fail(*_, **__):
    raise MemoryError("in the middle")
builder = module("operators.build.camera")
original, builder.build_camera = builder.build_camera, fail
try:
    bpy.ops.triplane.reconstruct_head(filepath=photo, faces=1000, texture_size=256)
except RuntimeError as error:
    messages.append(str(error))
builder.build_camera = original
facts["messages"] = messages
facts["left_by_failures"] = changed(before)

field = made["triplane_field"]
facts["field"] = hashlib.sha256(field.packed_file.data).hexdigest()
facts["field_fake"] = hashlib.sha256(result.arrays["field"].tobytes()).hexdigest()
path = os.path.join(folder, "before.blend")
bpy.ops.wm.save_as_mainfile(filepath=path)
os.mkdir(os.path.join(folder, "elsewhere"))
os.rename(path, os.path.join(folder, "elsewhere", "after.blend"))
print("JSON" + json.dumps(facts))
"""

REOPEN = """
import json, hashlib, numpy as np
facts = {}
folder = os.environ["FOLDER"]
bpy.ops.wm.open_mainfile(filepath=os.path.join(folder, "elsewhere", "after.blend"))
made = bpy.data.objects["Zoë at sea"]
bpy.context.view_layer.objects.active = made
facts["field"] = hashlib.sha256(made["triplane_field"].packed_file.data).hexdigest()
saved = os.path.join(folder, "field é.safetensors")
bpy.ops.triplane.save_field(filepath=saved)
facts["saved"] = hashlib.sha256(open(saved, "rb").read()).hexdigest()
old = made.data.name
meshes, images = len(bpy.data.meshes), len(bpy.data.images)
facts["extract"] = list(bpy.ops.triplane.extract_mesh(faces=5000, texture_size=512))
facts["faces"], facts["texture"] = len(made.data.polygons), list(
    made.data.materials[0].node_tree.nodes.active.image.size)
facts["more"] = [len(bpy.data.meshes) - meshes, len(bpy.data.images) - images]
scene = bpy.context.scene
facts["render"] = list(bpy.ops.triplane.render_field(size=640))
image = next(i for i in bpy.data.images if "field render" in i.name)
pixels = np.empty(image.size[0] * image.size[1] * 4, np.float32)
image.pixels.foreach_get(pixels)
spot = np.argwhere(pixels.reshape(image.size[1], image.size[0], 4)[::-1, :, 0] > 0.5).mean(0)
want, _ = module("engine.jobs.shapes").camera().project(np.zeros((1, 3)))
facts["spot_off"] = float(abs(spot[::-1] - np.floor(want[0])).max())
facts["unwritable"] = ""
try:
    bpy.ops.triplane.save_field(filepath="/proc/nowhere/field.safetensors")
except RuntimeError as error:
    facts["unwritable"] = str(error)
facts["temporary"] = [f for f in os.listdir(os.environ["TMPDIR"]) if f.startswith("triplane-")]

prefs.keep_field = "BESIDE"
photo = os.path.join(folder, "Zoë at sea.jpg")
bpy.ops.triplane.reconstruct_head(filepath=photo, faces=1000, texture_size=256)
beside = bpy.context.active_object
facts["beside"] = [beside.get("triplane_field_path"), beside.get("triplane_field") is None,
                   len(module("operators.build.field").read(beside))]

original = os.replace
def full(*_):
    raise OSError(28, "No space left on device")
os.replace, count = full, len(bpy.data.objects)
try:
    bpy.ops.triplane.reconstruct_head(filepath=photo, faces=1000, texture_size=256)
except RuntimeError as error:
    facts["full"] = [str(error), len(bpy.data.objects) - count]
os.replace = original
facts["left"] = sorted(os.listdir(os.path.join(folder, "elsewhere")))
print("JSON" + json.dumps(facts))
"""


def facts_of(profile, script, folder):
    return addon_profile.facts_of_folder(profile, script, folder, seconds="0.1")


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


def test_everything_is_there_once(made):
    assert made["result"] == ["FINISHED"]
    more = {k: made["census"][k] - made["empty"][k] for k in made["census"]}
    # images: texture, photo, field; a second material or camera would be a leak
    assert more == {
        "objects": 2,
        "meshes": 1,
        "materials": 1,
        "images": 3,
        "cameras": 1,
        "collections": 1,
    }
    assert made["selected"] == ["Zoë at sea"]


def test_the_mesh_is_the_jobs(made):
    assert 39000 <= made["faces"] <= 41000
    assert made["smooth"] and made["uv_exact"]
    assert made["outward"] > 0.99


def test_it_stands_on_the_floor_looking_along_minus_y(made):
    assert made["low"][2] == pytest.approx(0.01, abs=1e-4)
    assert made["high"][2] == pytest.approx(0.23, abs=1e-4)
    assert -made["low"][1] > made["high"][1] + 0.01  # the nose


def test_the_texture_is_packed_and_exact(made):
    assert made["texture_packed"] and made["texture_exact"]


def test_the_camera_is_exact_also_after_the_head_was_moved(made):
    assert made["resolution"] == [480, 640]
    assert made["pixels_off"] < 0.02
    assert made["background"] == [[480, 640], True, True]
    assert made["round_trip"] < 1e-5


def test_the_import_is_quick(made):
    assert made["build_s"] < 1.0, made


def test_a_second_head_stands_beside_the_first(made):
    name, x, first = made["second"]
    assert name != first == "Zoë at sea"
    assert x == pytest.approx(0.0, abs=1e-6) or x >= 0.3


def test_failures_are_sentences_and_leave_nothing(made):
    broken, nobody, killed, missing, none, middle = made["messages"]
    assert "a face names a vertex that does not exist" in broken
    assert "No face was found" in nobody and "points by hand" in nobody
    assert "no error" not in killed
    assert "does not exist" in missing
    assert "No photo has been chosen" in none
    assert "in the middle" in middle
    assert made["left_by_failures"] == {}


def test_the_field_survives_saving_and_moving(made, reopened):
    assert made["field"] == made["field_fake"] == reopened["field"] == reopened["saved"]


def test_the_reopened_file_is_enough_to_extract_and_render(reopened):
    assert reopened["extract"] == reopened["render"] == ["FINISHED"]
    assert 4500 <= reopened["faces"] <= 5500
    assert reopened["texture"] == [512, 512]
    assert reopened["more"] == [0, 0]
    assert reopened["spot_off"] < 1.01


def test_temporary_files_go_and_unwritable_folders_are_told(reopened):
    assert reopened["temporary"] == []
    assert "could not be saved" in reopened["unwritable"]


def test_the_field_beside_the_blend(reopened):
    path, unpacked, size = reopened["beside"]
    assert path.startswith("//") and unpacked and size == 3_000_001
    assert len(reopened["left"]) == 2
    sentence, more = reopened["full"]
    assert "No space left" in sentence and more == 0
