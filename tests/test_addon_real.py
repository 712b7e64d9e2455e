"""The real reconstruction through the operator: with photos that are none, and the whole way."""

import struct
import zlib

import addon_profile
import checkpoint_files
import pytest

from engine import jobs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("reconstruct" not in jobs.names(), reason="no job reconstruct yet"),
]

BAD = """
import json
folder, out = os.environ["FOLDER"], {}
count = len(bpy.data.objects), len(bpy.data.images), len(bpy.data.meshes)
for name in sorted(os.listdir(folder)):
    try:
        bpy.ops.triplane.reconstruct_head(filepath=os.path.join(folder, name), preset="fast")
        out[name] = "no error"
    except RuntimeError as error:
        out[name] = str(error)
now = len(bpy.data.objects), len(bpy.data.images), len(bpy.data.meshes)
print("JSON" + json.dumps({"messages": out, "left": [a - b for a, b in zip(now, count)]}))
"""

MAKE = """
import json
photo, folder = os.environ["PHOTO"], os.environ["FOLDER"]
bpy.ops.triplane.reconstruct_head(filepath=photo, preset="fast", texture_size=512)
head = bpy.context.active_object
facts = {"faces": len(head.data.polygons), "height": head.dimensions.z,
         "low": min((head.matrix_world @ v.co).z for v in head.data.vertices)}
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "a.blend"))
print("JSON" + json.dumps(facts))
"""

REOPEN = """
import json
bpy.ops.wm.open_mainfile(filepath=os.environ["BLEND"])
head = next(o for o in bpy.data.objects if "triplane_record" in o)
bpy.context.view_layer.objects.active = head
bpy.ops.triplane.extract_mesh(faces=10000, texture_size=512)
texture = head.data.materials[0].node_tree.nodes.active.image
facts = {"again": len(head.data.polygons), "texture": list(texture.size),
         "height": head.dimensions.z}
reds = texture.pixels[:][0::4]
facts["contrast"] = max(reds) - min(reds)
bpy.ops.triplane.view_photo()
bpy.ops.triplane.render_field(size=128)
image = next(i for i in bpy.data.images if "field render" in i.name)
facts["covered"] = sum(a > 0.5 for a in image.pixels[:][3::4]) / (image.size[0] * image.size[1])
print("JSON" + json.dumps(facts))
"""

SEEDS = """
import json
small, folder = {"faces": 4000, "texture_size": 512}, os.environ["FOLDER"]
bpy.ops.triplane.sample_head(seed=3, **small)
one = bpy.context.active_object
facts = {"height": one.dimensions.z, "faces": len(one.data.polygons)}
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "a.blend"))
bpy.ops.triplane.sample_head(heads="head 3, 5", at=0.0, **small)  # from the code it keeps
again = bpy.context.active_object
facts["same"] = max((a.co - b.co).length for a, b in zip(one.data.vertices, again.data.vertices))
bpy.ops.triplane.keyframe_heads(heads="head 3, 5", steps=2, **small)
facts["meshes"] = len(bpy.data.collections["head 3 to head 5"].objects)
bpy.context.view_layer.objects.active = one
bpy.ops.triplane.extract_mesh(faces=2000, texture_size=256)
facts["extracted"] = len(one.data.polygons), one.dimensions.z
bpy.ops.triplane.view_photo()
bpy.ops.triplane.render_field(size=128)
image = next(i for i in bpy.data.images if "field render" in i.name)
facts["covered"] = sum(a > 0.5 for a in image.pixels[:][3::4]) / (image.size[0] * image.size[1])
bpy.ops.triplane.model_add(filepath=os.environ["CHECKPOINT"], name="cars")
bpy.ops.triplane.interpolate(heads="3-5", model="cars", steps=3)
plane = bpy.context.active_object
facts["frames"] = json.loads(plane["triplane_sequence"])["frames"]
facts["resolution"] = list(plane.children[0]["triplane_resolution"])
facts["files"] = len(os.listdir(os.path.join(folder, "head_3_to_head_5")))
bpy.ops.triplane.gallery(first=3, count=2, model="cars", size=32)
try:
    bpy.ops.triplane.interpolate(heads="head 3, 5", model="cars", steps=2, size=64)
    facts["other model"] = json.loads(bpy.context.active_object["triplane_sequence"])["model"]
except RuntimeError as error:
    facts["other model"] = str(error)
print("JSON" + json.dumps(facts))
"""


def png_of(side):
    """A PNG that claims and holds side x side grey pixels, in few bytes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer, rows = zlib.compressobj(9), []
    for _ in range(side):
        rows.append(packer.compress(bytes(side + 1)))
    pixels = b"".join(rows) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def run(profile, script, **env):
    return addon_profile.facts_of(profile, script, env=env, timeout=600)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return addon_profile.make_profile(tmp_path_factory.mktemp("profile"), fakes=False)


def test_what_is_no_photo_is_told_in_a_sentence(profile, tmp_path, photo):
    folder = tmp_path / "with space and ü"
    folder.mkdir()
    (folder / "text.jpg").write_text("I am no picture")
    (folder / "truncated.png").write_bytes(photo.read_bytes()[:20000])
    (folder / "empty.png").touch()
    (folder / "one.png").write_bytes(png_of(1))
    (folder / "huge.png").write_bytes(png_of(20000))
    (folder / "grey.png").write_bytes(png_of(256))  # a picture without a face
    (folder / "folder.png").mkdir()
    facts = run(profile, BAD, FOLDER=str(folder))
    assert facts["left"] == [0, 0, 0]
    for name, message in facts["messages"].items():
        assert message.startswith("Error: "), (name, message)
        assert "Traceback" not in message and "Something went wrong" not in message, message
    assert "face" in facts["messages"]["grey.png"]


def test_the_whole_way_and_again_from_the_moved_file(profile, tmp_path, photo):
    made = run(profile, MAKE, PHOTO=str(photo), FOLDER=str(tmp_path))
    assert 30000 <= made["faces"] <= 50000
    assert 0.2 < made["height"] < 0.45
    assert abs(made["low"]) < 1e-3
    # Elsewhere, and in another Blender: only what is packed in the file is left of the head.
    moved = tmp_path / "elsewhere" / "b.blend"
    moved.parent.mkdir()
    (tmp_path / "a.blend").rename(moved)
    again = run(profile, REOPEN, BLEND=str(moved))
    assert 8000 <= again["again"] <= 12000
    assert again["texture"] == [512, 512]
    assert again["contrast"] > 0.3, "the new texture is empty"
    assert abs(again["height"] - made["height"]) < 5e-3
    assert 0.01 < again["covered"] < 0.9


def test_heads_from_seeds_of_both_kinds_of_model(profile, tmp_path):
    checkpoint = tmp_path / "cars.pkl"
    checkpoint.write_bytes(checkpoint_files.training_pickle(checkpoint_files.weights()))
    made = run(profile, SEEDS, FOLDER=str(tmp_path), CHECKPOINT=str(checkpoint))
    assert 3600 <= made["faces"] <= 4400 and 0.2 < made["height"] < 0.5
    assert made["same"] < 1e-4, "the head is not made again from its code"
    assert made["meshes"] == 2
    faces, height = made["extracted"]
    assert 1800 <= faces <= 2200 and abs(height - made["height"]) < 5e-3
    assert 0.05 < made["covered"] < 0.8
    assert (made["frames"], made["files"], made["resolution"]) == (5, 5, [128, 128])
    assert made["other model"] == "built-in", "heads of the scene are of their own model"
