"""Files and the sheet: what is in them is the mesh, and a failed write leaves nothing behind."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.cameras import FIELD_TO_BLENDER, orbit
from engine.errors import Cancelled, OutputError
from engine.surface.cleanup import clean
from engine.surface.export import glb_bytes, output_error, write_glb, write_obj, write_whole
from engine.surface.isosurface import extract
from engine.surface.mesh import Mesh, volume
from engine.surface.sheet import GAP, LABEL, head_sheet
from engine.surface.unwrap import unwrap
from tests import surface_fixtures as shapes

SCALE = 1.25


@pytest.fixture(scope="module")
def head() -> Mesh:
    mesh = unwrap(clean(extract(shapes.AnalyticField(shapes.head), 64), 2000), 128)
    texture = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    return mesh.with_texture(texture)


@pytest.fixture(scope="module")
def placed(head) -> np.ndarray:
    """Field to Blender: larger by a quarter, standing on the floor."""
    matrix = FIELD_TO_BLENDER.copy()
    matrix[:3, :3] *= SCALE
    matrix[2, 3] = -head.vertices[:, 1].min() * SCALE
    return matrix


def parsed(data: bytes) -> tuple[dict, bytes]:
    magic, version, total = struct.unpack_from("<III", data)
    assert (magic, version, total) == (0x46546C67, 2, len(data))
    length, kind = struct.unpack_from("<II", data, 12)
    assert kind == 0x4E4F534A and length % 4 == 0
    size, kind = struct.unpack_from("<II", data, 20 + length)
    assert kind == 0x004E4942 and 28 + length + size == len(data)
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def array(document: dict, blob: bytes, number: int) -> np.ndarray:
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    kind = {5126: np.float32, 5125: np.uint32}[accessor["componentType"]]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
    raw = blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    assert view["byteOffset"] % 4 == 0
    return np.frombuffer(raw, kind).reshape(accessor["count"], width)


def test_the_glb_holds_the_mesh(head, placed):
    document, blob = parsed(glb_bytes(head, placed))
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    position, normal, uv = (
        array(document, blob, attributes[k]) for k in ("POSITION", "NORMAL", "TEXCOORD_0")
    )
    faces = array(document, blob, 3).reshape(-1, 3)
    assert document["asset"]["version"] == "2.0"
    # y up, on the floor, in metres, the nose towards +z.
    assert position[:, 1].min() == pytest.approx(0, abs=1e-6)
    assert np.ptp(position, 0) == pytest.approx(np.ptp(head.vertices, 0) * SCALE, rel=1e-5)
    assert abs(position[position[:, 2].argmax(), 0]) < 0.01
    assert document["accessors"][0]["min"] == position.min(0).tolist()
    corners = position[faces]
    shift = np.array([0, placed[2, 3], 0])
    assert np.abs(corners - (head.vertices[head.faces] * SCALE + shift)).max() < 1e-5
    assert volume(position, faces.astype(np.int64)) > 0
    assert np.linalg.norm(normal, axis=1) == pytest.approx(1, abs=1e-4)
    face_normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.mean((face_normal * normal[faces[:, 0]]).sum(1) > 0) > 0.97
    assert np.abs(uv[faces] - (head.uvs * (1, -1) + (0, 1))).max() < 1e-6
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    png = blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    assert (np.asarray(Image.open(io.BytesIO(png))) == head.texture).all()


def test_the_obj_holds_the_mesh(head, placed, tmp_path):
    files = write_obj(head, tmp_path / "sub folder" / "köpf.obj", placed)
    assert sorted(f.name for f in files) == ["köpf.mtl", "köpf.obj", "köpf.png"]
    assert sorted(os.listdir(files[0].parent)) == sorted(f.name for f in files)
    lines = (tmp_path / "sub folder" / "köpf.obj").read_text().splitlines()
    rows = {k: [line.split()[1:] for line in lines if line.startswith(k + " ")]
            for k in ("v", "vt", "vn", "f", "mtllib")}  # fmt: skip
    assert len(rows["v"]) == len(rows["vn"]) == len(head.vertices)
    corners = np.array([[c.split("/") for c in row] for row in rows["f"]], int)
    assert (corners[:, :, 0] - 1 == head.faces).all()
    assert (corners[:, :, 2] - 1 == head.faces).all()
    uv = np.array(rows["vt"], float)[corners[:, :, 1] - 1]
    assert np.abs(uv - head.uvs).max() < 1e-5
    assert np.array(rows["v"], float)[:, 1].min() == pytest.approx(0, abs=1e-5)
    assert rows["mtllib"] == [["köpf.mtl"]]
    assert "map_Kd köpf.png" in files[1].read_text()
    assert (np.asarray(Image.open(files[0])) == head.texture).all()


def test_a_mesh_without_uvs_and_texture(head, placed, tmp_path):
    bare = Mesh(head.vertices, head.faces)
    document, _ = parsed(glb_bytes(bare, placed))
    assert "images" not in document
    assert len(write_obj(bare, tmp_path / "a.obj", placed)) == 2


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "full"), (errno.EROFS, "cannot be written")]
)
def test_a_failed_write_leaves_nothing(head, placed, tmp_path, monkeypatch, number, word):
    old = tmp_path / "a.obj"
    old.write_text("old")
    real, calls = os.fsync, []

    def failing(handle):
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputError, match=word):
        write_obj(head, old, placed)
    assert os.listdir(tmp_path) == ["a.obj"]
    assert old.read_text() == "old"


def test_a_file_where_a_folder_should_be(head, placed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written|cannot be written"):
        write_glb(head, tmp_path / "file" / "a.glb", placed)
    assert "full" in str(output_error(Path("a/b.glb"), OSError(errno.ENOSPC, "")))
    with pytest.raises(OutputError):
        write_whole({tmp_path: b"x"})  # a folder
    assert os.listdir(tmp_path) == ["file"]


def test_the_sheet(head):
    field = shapes.AnalyticField(shapes.head)
    camera = orbit(0.2, 0.0, 1.2, 0.36, width=100, height=100)
    photo = np.full((100, 100, 3), (200, 30, 40), np.uint8)
    tile = 48
    sheet = head_sheet(photo, head, field, camera, yaws=(-60, 0, 180), tile=tile)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (LABEL + 3 * (tile + GAP) + GAP, LABEL + 4 * (tile + GAP) + 2 * GAP, 3)
    assert (sheet[LABEL : LABEL + tile, LABEL : LABEL + tile] == (200, 30, 40)).all()
    for r in range(3):
        for c in range(4):
            y, x = LABEL + r * (tile + GAP), LABEL + c * (tile + GAP) + (GAP if c else 0)
            picture = sheet[y : y + tile, x : x + tile].astype(int)
            if (r, c) != (0, 0):
                assert picture.std() > 5  # something is drawn
            if r == 1:
                assert np.ptp(picture, 2).max() <= 3  # grey on grey

    def check():
        raise Cancelled()

    with pytest.raises(Cancelled):
        head_sheet(photo, head, field, camera, check=check)


@pytest.mark.slow
def test_blender_reads_both_files(head, placed, tmp_path):
    pytest.importorskip("bpy")
    write_glb(head, tmp_path / "a.glb", placed)
    write_obj(head, tmp_path / "b.obj", placed)
    script = f"""
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath={str(tmp_path / "a.glb")!r})
bpy.ops.wm.obj_import(filepath={str(tmp_path / "b.obj")!r})
for o in bpy.context.scene.objects:
    v = [o.matrix_world @ x.co for x in o.data.vertices]
    nose = min(v, key=lambda p: p.y)
    image = any(n.type == "TEX_IMAGE" and n.image.size[0] == 128
                for n in o.data.materials[0].node_tree.nodes)
    print("READ", len(o.data.polygons), min(p.z for p in v), nose.x, nose.y, image)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    read = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("READ")]
    assert len(read) == 2
    for polygons, floor, x, y, image in read:
        assert int(polygons) == len(head.faces)
        assert abs(float(floor)) < 1e-4 and abs(float(x)) < 0.01
        assert float(y) == pytest.approx(-0.116 * SCALE, abs=0.01)
        assert image == "True"
