"""Views through Blender's cameras: exact, linked, resumed. With the real engine and head model."""

import json
from pathlib import Path

import addon_profile
import numpy as np
import OpenEXR
import pytest

from engine.jobs.views import FORMATS
from engine.views.rigs import Stage, from_words

# One head for all tests, in a file of its own.
MAKE = """
bpy.ops.triplane.sample_head(seed=7, model="built-in", faces=12000, texture_size=256)
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(os.environ["FOLDER"], "head.blend"))
"""

OPEN = """
import json, math
import numpy as np
from mathutils import Euler, Matrix, Vector
folder, facts = os.environ["FOLDER"], {}
bpy.ops.wm.open_mainfile(filepath=os.path.join(folder, "head.blend"))
made = next(o for o in bpy.data.objects if "triplane_record" in o)
bpy.context.view_layer.objects.active = made
scene, ops = bpy.context.scene, bpy.ops.triplane
def add_camera(name, **given):
    data = bpy.data.cameras.new(name)
    camera = bpy.data.objects.new(name, data)
    scene.collection.objects.link(camera)
    for key, value in given.items():
        setattr(data, key, value)
    return camera
def pixels(path):
    image = bpy.data.images.load(path)
    image.colorspace_settings.name = "Non-Color"
    found = np.empty(image.size[0] * image.size[1] * 4, np.float32)
    image.pixels.foreach_get(found)
    shape = image.size[1], image.size[0], 4
    bpy.data.images.remove(image)
    return found.reshape(shape)[::-1]
"""

# The mesh as Cycles sees it, and the field as we do: theirs.exr beside our picture.
COMPARE = """
render = scene.render
render.engine, render.film_transparent = "CYCLES", True
if bpy.app.version >= (5, 0):
    render.image_settings.media_type = "MULTI_LAYER_IMAGE"
    # In parts, 5.0 cannot write pictures whose pixels are not square.
    render.image_settings.use_exr_interleave = True
render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
bpy.context.view_layer.use_pass_z = True
scene.cycles.samples, scene.cycles.use_denoising = 24, False
scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 1.0
for spec in json.loads(os.environ["CAMERAS"]):
    made.matrix_world = Matrix.LocRotScale(
        Vector(spec.get("at", (0, 0, 0))), Euler(spec.get("turn", (0, 0, 0))),
        Vector(spec.get("scale", (1, 1, 1))))
    bpy.context.view_layer.update()
    render.resolution_x, render.resolution_y = spec["size"]
    render.pixel_aspect_x, render.pixel_aspect_y = spec.get("aspect", (1, 1))
    camera = add_camera(spec["name"], **spec["data"])
    corners = [made.matrix_world @ Vector(c) for c in made.bound_box]
    middle = sum(corners, Vector()) / 8
    away = Euler((math.radians(spec["pitch"]), 0, math.radians(spec["yaw"]))).to_matrix()
    away = away @ Vector((0, -spec["distance"], 0))
    turn = (-away).to_track_quat("-Z", "Y").to_matrix() @ Matrix.Rotation(spec["roll"], 3, "Z")
    camera.matrix_world = Matrix.LocRotScale(middle + away, turn, Vector((1, 1, 1)) * 2)
    bpy.context.view_layer.update()
    into = os.path.join(folder, "views " + spec["name"])
    ops.bake_views(camera=spec["name"], frames="CURRENT", size=512, format="exr", folder=into)
    camera.data.show_background_images = False
    scene.camera = camera
    render.filepath = os.path.join(into, "theirs.exr")
    bpy.ops.render.render(write_still=True)
    box = np.array(corners)
    facts[spec["name"]] = {"folder": into, "head": float(np.ptp(box, axis=0).max())}
print("JSON" + json.dumps(facts))
"""


# Image sequences in the scene; cameras around the head.
LINK = """
def stamps(where):
    return {n: os.stat(os.path.join(where, n)).st_mtime_ns for n in sorted(os.listdir(where))
            if n.endswith(".png")}
def choices(operator, name):
    return [i.identifier for i in operator.get_rna_type().properties[name].enum_items]
facts["choices"] = choices(ops.bake_views, "format"), choices(ops.view_sheet, "template")
facts["no_camera"] = error_of(ops.bake_views, frames="CURRENT")
facts["none_selected"] = error_of(ops.bake_views, frames="CURRENT", which="SELECTED")
facts["not_there"] = error_of(ops.bake_views, camera="Nobody")
add_camera("round", type="PANO")
facts["panoramic"] = error_of(ops.bake_views, camera="round", frames="CURRENT")

# Animated: where it stands, how long its lens is, where the head stands
anim = add_camera("anim é", lens=60)
anim.rotation_euler = (math.pi / 2, 0, 0)
for frame, place, lens in ((5, (0.06, -0.9, 0.15), 60), (7, (-0.08, -0.9, 0.1), 100)):
    anim.location, anim.data.lens = place, lens
    anim.keyframe_insert("location", frame=frame)
    anim.data.keyframe_insert("lens", frame=frame)
    made.rotation_euler.z = frame / 10
    made.keyframe_insert("rotation_euler", frame=frame)
scene.render.resolution_x, scene.render.resolution_y = 96, 64
scene.render.pixel_aspect_y = 1.2
scene.frame_set(3)
given = dict(camera="anim é", frame_start=5, frame_end=7, size=0, plane=True, compositor=True)
facts["baked"] = list(ops.bake_views(**given))
facts["frame"] = scene.frame_current
where = os.path.join(folder, "views", "anim é")
first = stamps(where)
facts["files"] = list(first)
background, = anim.data.background_images
facts["image"] = [background.image.source, background.image.filepath]
plane, = anim.children
texture = plane.data.materials[0].node_tree.nodes.active
# Blender 5 keeps them elsewhere
tree = getattr(scene, "compositing_node_group", None) or scene.node_tree
node = next(n for n in tree.nodes if n.bl_idname == "CompositorNodeImage")
facts["same_image"] = background.image == texture.image == node.image
facts["timed"] = [[u.frame_start, u.frame_duration, u.frame_offset, u.use_auto_refresh]
                  for u in (background.image_user, texture.image_user, node)]

# Again: nothing is made anew and nothing stands there twice; then only what was lost
before, nodes = census(), len(tree.nodes)
ops.bake_views(**given)
facts["again"] = [stamps(where) == first, census() == before and len(tree.nodes) == nodes]
os.remove(os.path.join(where, "head 7_0006.png"))
ops.bake_views(**given)
third = stamps(where)
facts["remade"] = [n for n in third if third[n] != first[n]]

# What the camera sees of the plane is the picture of that frame
render = scene.render
scene.camera, render.use_compositing, made.hide_render = anim, False, True
render.engine, render.film_transparent, scene.cycles.samples = "CYCLES", True, 16
render.filepath, facts["plane"] = os.path.join(folder, "plane.png"), []
for frame in (5, 6, 7):
    scene.frame_set(frame)
    bpy.ops.render.render(write_still=True)
    seen = pixels(render.filepath)[..., 3] > 0.5
    want = [pixels(os.path.join(where, n))[..., 3] > 0.5 for n in first]
    facts["plane"].append([float((seen & w).sum() / (seen | w).sum()) for w in want])

# Around the head; markers change the camera, and what the scene shows is one sequence
facts["rig"] = list(ops.camera_rig(rig="SHEET"))
rig = list(bpy.context.selected_objects)
facts["rig_names"] = sorted(o.name for o in rig if o.type == "CAMERA")
facts["markers"] = [[m.frame, m.camera.name] for m in scene.timeline_markers]
facts["range"] = [scene.frame_start, scene.frame_end, bpy.context.active_object == made]
scene.frame_end = scene.frame_start + 2
ops.bake_views(size=48)
facts["scene"] = sorted(n for n in os.listdir(os.path.join(folder, "views", "Scene"))
                        if n.endswith(".png"))
facts["shown_by"] = [o.name for o in rig if o.type == "CAMERA" and o.data.background_images]
covered = []
for n in facts["scene"]:
    alpha = pixels(os.path.join(folder, "views", "Scene", n))[..., 3] > 0.5
    edge = alpha[0].any() | alpha[-1].any() | alpha[:, 0].any() | alpha[:, -1].any()
    covered.append([float(alpha.mean()), bool(edge)])
facts["covered"] = covered

# From a file that we wrote ourselves
made.location, made.scale = (0.5, 0.2, 0.1), (1.5, 1.5, 1.5)
scene.render.pixel_aspect_y = 1.0
bpy.context.view_layer.update()
ops.export_dataset(size=32, views=4, points=50, folder=os.path.join(folder, "data"))
path = os.path.join(folder, "data", "transforms.json")
ops.camera_rig(rig="FILE", filepath=path, markers=False)
frames = json.load(open(path))["frames"]
by_name = {o.name: o for o in bpy.context.selected_objects if o.type == "CAMERA"}
bpy.context.view_layer.update()
facts["from_file"] = [len(by_name), max(
    float(abs(np.array(by_name[os.path.basename(f["file_path"])[:-4]].matrix_world)
              - f["transform_matrix"]).max()) for f in frames)]
facts["resolution"] = [scene.render.resolution_x, scene.render.resolution_y]
facts["bad_file"] = error_of(ops.camera_rig, rig="FILE", filepath=os.path.join(folder, "no.json"))
made.scale.x = 2.0
facts["stretched"] = error_of(ops.export_dataset, views=2, folder=os.path.join(folder, "no"))

# A sheet, of the head and of a seed
facts["sheet"] = list(ops.view_sheet(size=32, seeds="3", transparent=False, colour=(1, 0, 0)))
sheet = pixels(os.path.join(folder, "views", "head 7 sheet.png"))
tiles = json.load(open(os.path.join(folder, "views", "head 7 sheet.json")))["tiles"]
facts["tiles"] = [len(tiles), sorted({t["head"] for t in tiles}), sheet[0, 0].tolist()]
facts["left_tmp"] = [f for f in os.listdir(os.environ["TMPDIR"]) if f.startswith("triplane-")]
print("JSON" + json.dumps(facts))
"""


def spec(name, size, yaw, pitch, roll, distance, data, **more):
    """A camera that looks at the head's middle from `distance` metres; yaw and pitch are degrees,
    roll radians."""
    return {
        "name": name,
        "size": size,
        "yaw": yaw,
        "pitch": pitch,
        "roll": roll,
        "distance": distance,
        "data": data,
        **more,
    }


# Any fit, lens, shift, shape of picture and pixels; heads turned, scaled, stretched.
CAMERAS = [
    spec(
        "landscape", (512, 384), 35, -10, 0.1, 0.8, {"lens": 50, "shift_x": 0.12, "shift_y": -0.1}
    ),
    spec(
        "orthographic",
        (384, 512),
        -60,
        15,
        0.0,
        2.0,
        {"type": "ORTHO", "ortho_scale": 0.5, "shift_y": 0.1},
        aspect=(1.0, 1.25),
    ),
    spec(
        "close, upright",
        (384, 512),
        10,
        5,
        -0.2,
        0.42,
        {"lens": 20, "sensor_fit": "VERTICAL", "sensor_height": 30},
    ),
    spec(
        "long, upright",
        (400, 512),
        150,
        -20,
        0.3,
        1.9,
        {"lens": 135, "sensor_fit": "HORIZONTAL", "shift_x": -0.2},
    ),
    spec("wide pixels", (512, 512), -100, 0, 0.0, 0.9, {"lens": 50}, aspect=(1.5, 1.0)),
    spec(
        "tall pixels",
        (512, 300),
        80,
        30,
        1.2,
        1.0,
        {"lens": 35, "sensor_fit": "VERTICAL", "shift_y": 0.15},
        aspect=(1.0, 2.0),
    ),
    spec(
        "parallel, wide pixels",
        (512, 288),
        180,
        -40,
        0.5,
        3.0,
        {"type": "ORTHO", "ortho_scale": 0.45, "sensor_fit": "VERTICAL", "shift_x": 0.1},
        aspect=(1.2, 1.0),
    ),
    spec(
        "large head",
        (512, 512),
        -30,
        10,
        0.0,
        2.4,
        {"lens": 70},
        at=(1.0, -2.0, 0.5),
        turn=(0.4, -0.3, 2.0),
        scale=(1.7, 1.7, 1.7),
    ),
    spec(
        "stretched head",
        (512, 384),
        45,
        20,
        0.2,
        1.2,
        {"lens": 60},
        turn=(0.3, 0.2, -1.0),
        scale=(1.0, 1.4, 0.8),
    ),
    spec(
        "stretched, parallel",
        (512, 512),
        -135,
        -15,
        0.0,
        2.0,
        {"type": "ORTHO", "ortho_scale": 0.6},
        turn=(0.1, 0.5, 0.4),
        scale=(1.3, 0.8, 1.1),
    ),
]
QUICK = 2


def run(profile, script, **env):
    return addon_profile.facts_of(profile, script, env=env, timeout=900)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return addon_profile.make_profile(tmp_path_factory.mktemp("profile"), fakes=False)


@pytest.fixture(scope="module")
def folder(profile, tmp_path_factory):
    """A folder with head.blend."""
    made = tmp_path_factory.mktemp("views")
    addon_profile.run(profile, MAKE, env={"FOLDER": str(made)})
    return made


def compare(profile, folder, cameras):
    return run(profile, OPEN + COMPARE, FOLDER=str(folder), CAMERAS=json.dumps(cameras))


def read(path):
    """Alpha and depth of a multilayer file, [H, W] each."""
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = {name: channel.pixels for name, channel in file.channels().items()}
    (alpha,) = (c for name, c in channels.items() if name.endswith("Combined.A"))
    (depth,) = (c for name, c in channels.items() if name.endswith("Depth.Z"))
    return np.asarray(alpha, np.float32), np.asarray(depth, np.float32)


@pytest.fixture(scope="module")
def few(profile, folder):
    return compare(profile, folder, CAMERAS[:QUICK])


@pytest.fixture(scope="module")
def many(profile, folder):
    return compare(profile, folder, CAMERAS[QUICK:])


def check_agreement(found, camera):
    blenders = Path(found["folder"], "theirs.exr")
    (own,) = (p for p in blenders.parent.glob("*.exr") if p != blenders)
    (ours, our_depth), (theirs, their_depth) = read(own), read(blenders)
    assert ours.shape == theirs.shape == (camera["size"][1], camera["size"][0])
    ours, theirs = ours > 0.5, theirs > 0.5
    assert 0.05 < theirs.mean() < 0.8, "the camera does not look at the head"
    assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.97
    middles = [np.argwhere(mask).mean(0) for mask in (ours, theirs)]
    assert np.linalg.norm(middles[0] - middles[1]) <= 0.5
    off = abs(our_depth - their_depth)[ours & theirs]
    assert np.median(off) <= 0.01 * found["head"]


@pytest.mark.parametrize("camera", CAMERAS[:QUICK], ids=lambda c: c["name"])
def test_outlines_and_depths_are_blenders(few, camera):
    check_agreement(few[camera["name"]], camera)


@pytest.mark.slow
@pytest.mark.parametrize("camera", CAMERAS[QUICK:], ids=lambda c: c["name"])
def test_outlines_and_depths_are_blenders_for_any_camera(many, camera):
    check_agreement(many[camera["name"]], camera)


@pytest.fixture(scope="module")
def linked(profile, folder, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("tmp")
    return run(profile, OPEN + LINK, FOLDER=str(folder), TMPDIR=str(temporary))


def test_a_sequence_is_named_and_timed_by_the_scenes_frames(linked):
    assert linked["baked"] == ["FINISHED"] and linked["frame"] == 3
    assert linked["files"] == [f"head 7_{frame:04d}.png" for frame in (5, 6, 7)]
    assert linked["image"] == ["SEQUENCE", "//views/anim é/head 7_0005.png"]
    assert linked["same_image"]
    assert linked["timed"] == [[5, 3, 4, True]] * 3


def test_what_is_there_is_not_made_again(linked):
    assert linked["again"] == [True, True]
    assert linked["remade"] == ["head 7_0006.png"]


def test_the_plane_shows_each_frame_where_the_camera_sees_it(linked):
    for frame, agreement in enumerate(linked["plane"]):
        assert agreement[frame] > 0.97, linked["plane"]
        assert max(agreement) == agreement[frame], linked["plane"]
        assert min(agreement) < 0.9, "the test's frames look alike"


def test_a_rig_stands_around_the_head_and_in_the_timeline(linked):
    assert linked["rig"] == ["FINISHED"] and len(linked["rig_names"]) == 8
    assert {"front", "left", "back", "right"} <= set(linked["rig_names"])
    assert linked["markers"][0] == [1, "front"] and len(linked["markers"]) == 8
    assert linked["range"] == [1, 8, True]
    assert linked["scene"] == [f"head 7_{frame:04d}.png" for frame in (1, 2, 3)]
    assert sorted(linked["shown_by"]) == sorted(c for _, c in linked["markers"][:3])
    for covered, at_the_edge in linked["covered"]:
        assert 0.1 < covered < 0.6 and not at_the_edge, "the head does not fit its views"


def test_cameras_come_back_from_a_file(linked):
    count, off = linked["from_file"]
    assert count == 4 and off < 1e-5
    assert linked["resolution"] == [32, 32]


def test_a_sheet_has_a_row_a_head(linked):
    assert linked["sheet"] == ["FINISHED"]
    assert linked["tiles"] == [10, ["head 3", "head 7"], [1.0, 0.0, 0.0, 1.0]]


def test_choices_are_the_jobs(linked):
    formats, templates = linked["choices"]
    assert tuple(formats) == FORMATS
    stage = Stage((-1, -1, -1), (1, 1, 1))
    assert [len(from_words(words, stage)) for words in templates] == [5, 8]


def test_errors_are_sentences_and_leave_nothing(linked):
    assert "has no camera" in linked["no_camera"]
    assert "No camera is selected" in linked["none_selected"]
    assert "no camera named Nobody" in linked["not_there"]
    assert "panoramic" in linked["panoramic"]
    assert "cannot be read" in linked["bad_file"]
    assert "stretched" in linked["stretched"]
    for name in ("no_camera", "none_selected", "not_there", "panoramic", "bad_file", "stretched"):
        assert "{" not in linked[name] and "wrong" not in linked[name], linked[name]
    assert linked["left_tmp"] == []
