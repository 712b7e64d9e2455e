"""The mesh of quads in Blender: built, subdivided, rigged, exported, replaced and removed."""

import addon_profile
import pytest

SCRIPT = """
import bmesh, json
folder = os.environ["FOLDER"]
photo = os.path.join(folder, "face.png")
image = bpy.data.images.new("x", 8, 8)
image.filepath_raw, image.file_format = photo, "PNG"
image.save()
bpy.data.images.remove(image)
KINDS = ("objects", "meshes", "materials", "images", "collections", "shape_keys", "cameras")
start = {kind: len(getattr(bpy.data, kind)) for kind in KINDS}
small, facts = {"faces": 1000, "texture_size": 256}, {}

def deformed(made):
    graph = bpy.context.evaluated_depsgraph_get()
    data = made.evaluated_get(graph).to_mesh()
    out = [tuple(v.co) for v in data.vertices]
    made.evaluated_get(graph).to_mesh_clear()
    return out

bpy.ops.triplane.reconstruct_head(filepath=photo, topology="QUAD", density="LOW", **small)
head = bpy.context.active_object
data = head.data
eyes = [o for o in head.children if o.type == "MESH"]
facts["sides"] = sorted({p.loop_total for p in data.polygons})
facts["faces"] = len(data.polygons)
facts["invalid"] = data.validate(verbose=False)
mesh = bmesh.new()
mesh.from_mesh(data)
odd = [e for e in mesh.edges if not e.is_manifold]
facts["worse"] = len([e for e in odd if len(e.link_faces) != 1])
low = min(v.co.z for v in mesh.verts)
facts["rim"] = len(odd)
facts["rim_height"] = max(v.co.z for e in odd for v in e.verts) - low
facts["loops"] = len({v.index for e in odd for v in e.verts})
mesh.free()
keys = data.shape_keys.key_blocks
facts["keys"] = [k.name for k in keys]
facts["values"] = {k.value for k in keys[1:]} == {0.0}
facts["uvs"] = [layer.name for layer in data.uv_layers]
facts["packed"] = data.materials[0].node_tree.nodes.active.image.packed_file is not None
facts["height"] = head.dimensions.z
facts["eyes"] = [[o.name, *o.location, o.dimensions.x, len(o.data.polygons)] for o in eyes]
facts["eye_sides"] = sorted({p.loop_total for o in eyes for p in o.data.polygons})
facts["eye_material"] = eyes[0].data.materials[0] is not data.materials[0]

def moved(name):
    before = deformed(head)
    keys[name].value = 1.0
    after = deformed(head)
    keys[name].value = 0.0
    steps = [[b - a for a, b in zip(p, q)] for p, q in zip(before, after)]
    lengths = [sum(s * s for s in step) ** 0.5 for step in steps]
    far = lengths.index(max(lengths))
    return {"most": max(lengths), "at": list(before[far]), "step": steps[far]}

facts["moves"] = {name: moved(name) for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight")}

smooth = head.modifiers.new("Subdivision", "SUBSURF")
smooth.levels = 1
facts["subdivided"] = len(deformed(head))
facts["expected"] = len(data.vertices) + len(data.edges) + len(data.polygons)
head.modifiers.remove(smooth)

armature = bpy.data.armatures.new("rig")
rig = bpy.data.objects.new("rig", armature)
bpy.context.scene.collection.objects.link(rig)
bpy.context.view_layer.objects.active = rig
bpy.ops.object.mode_set(mode="EDIT")
for name, low, high in (("neck", 0.0, 0.08), ("head", 0.08, 0.26)):
    bone = armature.edit_bones.new(name)
    bone.head, bone.tail = (0, 0.02, low), (0, 0.02, high)
armature.edit_bones["head"].parent = armature.edit_bones["neck"]
bpy.ops.object.mode_set(mode="OBJECT")
head.select_set(True)
bpy.context.view_layer.objects.active = rig
facts["rigged"] = list(bpy.ops.object.parent_set(type="ARMATURE_AUTO"))
facts["groups"] = sorted(g.name for g in head.vertex_groups)
facts["bare"] = len([v for v in data.vertices if not v.groups])
rest = deformed(head)
rig.pose.bones["head"].rotation_mode = "XYZ"
rig.pose.bones["head"].rotation_euler[0] = 0.4
bent = deformed(head)
facts["bent"] = max(abs(b - a) for p, q in zip(rest, bent) for a, b in zip(p, q))
head.parent = None
head.modifiers.clear()
bpy.data.objects.remove(rig)
bpy.data.armatures.remove(armature)

path = os.path.join(folder, "out.glb")
bpy.context.view_layer.objects.active = head
bpy.ops.triplane.export_head(filepath=path)
with open(path, "rb") as file:
    file.seek(12)
    length = int.from_bytes(file.read(4), "little")
    file.read(4)
    gltf = json.loads(file.read(length))
facts["glb"] = [[m["name"], len(m["primitives"][0].get("targets", ()))] for m in gltf["meshes"]]
facts["glb_names"] = [m.get("extras", {}).get("targetNames", []) for m in gltf["meshes"]]
facts["glb_images"] = len(gltf["images"])
for ending in ("obj", "fbx", "usdc", "ply"):
    bpy.ops.triplane.export_head(filepath=os.path.join(folder, "out." + ending))
facts["files"] = sorted(n for n in os.listdir(folder) if n.startswith("out"))
with open(os.path.join(folder, "out.obj")) as file:
    facts["obj_sides"] = sorted({len(x.split()) - 1 for x in file if x.startswith("f ")})

bpy.ops.triplane.extract_mesh(**small)
facts["surface"] = sorted({p.loop_total for p in head.data.polygons})
facts["surface_children"] = sorted(o.type for o in head.children)
bpy.ops.triplane.extract_mesh(topology="BOTH", **small)
facts["both"] = sorted({p.loop_total for p in head.data.polygons})
quads = next(o for o in head.children if o.get("triplane_part") == "quads")
facts["beside"] = [*quads.location, len(quads.data.shape_keys.key_blocks), len(quads.children)]
bpy.context.view_layer.objects.active = quads
bpy.ops.triplane.export_head(filepath=os.path.join(folder, "beside.glb"))
facts["beside_glb"] = os.path.getsize(os.path.join(folder, "beside.glb"))
bpy.ops.triplane.extract_mesh(topology="QUAD", **small)
facts["again"] = [len(head.data.shape_keys.key_blocks), len(head.children)]
module("operators.build.removed").remove(head)
facts["left"] = {k: len(getattr(bpy.data, k)) - n for k, n in start.items()}
facts["left"] = {k: n for k, n in facts["left"].items() if n}

made = [bpy.ops.triplane.reconstruct_head(filepath=photo, topology=t, **small)
        for t in ("BOTH", "QUAD")]
heads = [o for o in bpy.data.objects if "triplane_record" in o]
facts["places"] = sorted(
    o.matrix_world.translation.x
    for o in bpy.data.objects
    if "triplane_record" in o or o.get("triplane_part") == "quads"
)
print("JSON" + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    profile = addon_profile.make_profile(tmp_path_factory.mktemp("profile"))
    return addon_profile.facts_of_folder(profile, SCRIPT, tmp_path_factory.mktemp("work"), "0.1")


def test_all_faces_are_quads_and_open_only_at_the_neck(facts):
    assert facts["sides"] == [4] and facts["eye_sides"] == [4]
    assert facts["faces"] == 3288
    assert not facts["invalid"] and facts["worse"] == 0
    # One closed loop has as many vertices as edges.
    assert facts["rim"] == facts["loops"] > 20
    assert facts["rim_height"] < 0.05 < facts["height"] < 0.4


def test_shape_keys_have_arkits_names_and_move_what_they_say(facts):
    assert facts["keys"][0] == "Basis" and len(facts["keys"]) == 30
    assert facts["values"] and facts["uvs"] == ["UVMap"] and facts["packed"]
    jaw, blink, smile = (facts["moves"][k] for k in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight"))
    # Blender's axes: the head looks along -y, its left is +x.
    assert jaw["step"][2] < -0.01 and abs(jaw["at"][0]) < 0.03
    assert blink["at"][0] > 0.015 and blink["step"][2] < -0.002
    assert smile["at"][0] < -0.01 and smile["step"][2] > 0.002


def test_eyes_are_objects_with_their_own_material(facts):
    (left, *a), (right, *b) = facts["eyes"]
    assert left.endswith("eye left") and right.endswith("eye right")
    assert a[0] > 0.02 and b[0] < -0.02 and facts["eye_material"]
    assert 0.02 < a[3] < 0.04


def test_it_subdivides_and_rigs(facts):
    assert facts["subdivided"] == facts["expected"]
    assert facts["rigged"] == ["FINISHED"] and facts["groups"] == ["head", "neck"]
    assert facts["bare"] == 0 and facts["bent"] > 0.01


def test_exported_with_eyes_and_shape_keys(facts):
    counts = sorted(n for _, n in facts["glb"])
    assert counts == [0, 0, 29] and facts["glb_images"] == 2
    assert facts["keys"][1:] in facts["glb_names"]
    for ending in ("obj", "mtl", "fbx", "usdc", "ply"):
        assert f"out.{ending}" in facts["files"]
    assert facts["obj_sides"] == [4]
    assert facts["beside_glb"] > 100_000


def test_surface_and_quads_replace_one_another(facts):
    assert facts["surface"] == [3] and facts["surface_children"] == ["CAMERA"]
    assert facts["both"] == [3]
    x, y, z, keys, eyes = facts["beside"]
    assert x > 0.3 and (y, z) == (0, 0) and keys == 30 and eyes == 2
    assert facts["again"] == [30, 3]
    assert facts["left"] == {}


def test_heads_do_not_stand_in_one_another(facts):
    places = facts["places"]
    assert len(places) == 3
    assert all(b - a > 0.3 for a, b in zip(places, places[1:], strict=False))
