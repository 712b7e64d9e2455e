"""The jobs views, sheet and dataset: their files, what they skip, and what a killed one leaves."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import view_fixtures
from PIL import Image

from engine import jobs
from engine.cameras import FIELD_TO_BLENDER
from engine.errors import Cancelled, OutputError, ParameterError
from engine.fields.io import field_to_bytes
from engine.jobs.base import Context
from engine.surface.rasterize import rasterize
from engine.views import images, scenes

pytestmark = pytest.mark.usefixtures("restored_process")
SMALL = {"cameras": "circle:5", "size": 48}


@pytest.fixture(scope="module")
def field_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("field") / "head.safetensors"
    path.write_bytes(field_to_bytes(view_fixtures.field(), half=False))
    return str(path)


def run(name: str, context: Context | None = None, /, **params):
    job = jobs.load(name)
    return job.run(job.checked(params), context or Context())


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def listed(*seeds: int, size: int = 64) -> str:
    return json.dumps([view_fixtures.camera(seed, size).to_json() for seed in seeds])


def png_facts(data: bytes) -> tuple[int, int, int, int]:
    """Width, height, bits, colour type."""
    return struct.unpack(">IIBB", data[16:26])


def test_pictures_have_straight_colours_and_alpha(tmp_path, field_file):
    seen = []
    context = Context(on_item=lambda facts, image: seen.append((facts, image)))
    result = run("views", context, field=field_file, folder=str(tmp_path), name="a b", **SMALL)
    frames = result.meta["frames"]
    assert [Path(f["path"]).name for f in frames] == [f"a b_{i:04d}.png" for i in range(1, 6)]
    assert all(f["made"] for f in frames) and result.meta["made"] == 5
    assert [facts["index"] for facts, _ in seen] == [0, 1, 2, 3, 4]
    assert all(image.shape == (48, 48, 3) and image.dtype == np.uint8 for _, image in seen)
    picture = np.asarray(Image.open(frames[0]["path"]))
    assert picture.shape == (48, 48, 4) and (picture[0, 0] == 0).all()
    expected = view_fixtures.field().render(replace(json_camera(field_file, 5, 48)[0], name="x"))
    solid = expected.alpha.numpy() > 0.999
    difference = np.abs(picture[..., :3] / 255 - expected.image.numpy())[solid]
    assert np.median(difference) < 0.004
    edge = (picture[..., 3] > 20) & (picture[..., 3] < 120)
    assert edge.any()
    # Straight: half covered pixels are as bright as covered ones, not half as bright.
    assert picture[edge][:, :3].mean() > 0.7 * picture[solid][:, :3].mean()
    assert not list(tmp_path.glob(".*"))


def json_camera(field_file: str, count: int, size: int):
    from engine.jobs.views_stages import read_views

    given = {"cameras": f"circle:{count}", "size": size, "orthographic": False}
    return [v.camera for v in read_views(given, view_fixtures.field(), FIELD_TO_BLENDER)]


def test_sixteen_bits(tmp_path, field_file):
    run("views", field=field_file, folder=str(tmp_path), format="png16", cameras=listed(0))
    data = (tmp_path / "view_0001.png").read_bytes()
    camera = view_fixtures.camera(0, 64)
    assert png_facts(data) == (camera.width, camera.height, 16, 6)


@pytest.mark.parametrize("channels", [0, 3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_png_files_say_what_was_put_in(tmp_path, channels, kind):
    import imageio.v3 as imageio

    shape = (7, 5, channels) if channels else (7, 5)
    top = np.iinfo(kind).max
    image = np.random.default_rng(0).integers(0, top, shape, kind, endpoint=True)
    data = images.png_bytes(image)
    assert png_facts(data)[2] == kind().itemsize * 8
    (tmp_path / "x.png").write_bytes(data)
    if kind is np.uint8 or not channels:
        assert np.array_equal(imageio.imread(tmp_path / "x.png"), image)
    else:  # Pillow keeps the upper eight bits of such files only
        assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), image >> 8)


def exr(path: Path) -> dict[str, np.ndarray]:
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {k: np.asarray(c.pixels, np.float64) for k, c in file.channels().items()}


@pytest.mark.parametrize("seed", [1, 5])  # a pinhole, an orthographic camera
def test_open_exr_has_linear_colour_depth_and_normals_of_the_scene(tmp_path, field_file, seed):
    world = FIELD_TO_BLENDER @ np.diag([2.0, 2.0, 2.0, 1.0])
    world[:3, 3] = 0.3, 0.1, 0.2
    camera = view_fixtures.camera(seed, 96)
    run(
        "views",
        field=field_file,
        folder=str(tmp_path),
        format="exr",
        cameras=json.dumps([{"frame": 17, "camera": camera.to_json()}]),
        field_to_world=[float(x) for x in world.ravel()],
    )
    got = exr(tmp_path / "view_0017.exr")
    assert {name.partition(".")[0] for name in got} == {"Head"}
    mesh = view_fixtures.mesh()
    raster = rasterize(mesh.vertices, mesh.faces, camera)
    covered = (raster.face >= 0) & (got["Head.Combined.A"] > 0.99)
    error = np.abs(got["Head.Depth.Z"] - 2 * raster.depth)[covered]
    assert np.median(error) < 0.001
    assert got["Head.Depth.Z"][0, 0] == pytest.approx(1e10)
    normals = np.stack([got[f"Head.Normal.{c}"] for c in "XYZ"], -1)
    expected = raster.interpolate(mesh.vertex_normals[mesh.faces]) @ FIELD_TO_BLENDER[:3, :3].T
    assert np.median((normals * expected).sum(-1)[covered]) > 0.999
    display = view_fixtures.field().render(camera).image.numpy()
    red = images.linear(display[..., 0])
    assert np.median(np.abs(got["Head.Combined.R"] - red)[covered]) < 0.002


def test_every_frame_has_the_normals_of_where_the_head_stands_then(tmp_path, field_file):
    """A head that turns: the same picture, other normals; and a place that is none is refused."""
    camera = view_fixtures.camera(1, 40)
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    places = [FIELD_TO_BLENDER, turn @ FIELD_TO_BLENDER]
    listed = [
        {"frame": k, "camera": camera.to_json(), "field_to_world": place.ravel().tolist()}
        for k, place in enumerate(places)
    ]
    given = {"field": field_file, "folder": str(tmp_path), "format": "exr"}
    run("views", **given, cameras=json.dumps(listed))
    first, second = (exr(tmp_path / f"view_{k:04d}.exr") for k in (0, 1))
    assert np.array_equal(first["Head.Depth.Z"], second["Head.Depth.Z"])
    assert np.abs(first["Head.Normal.X"]).max() > 0.5
    assert np.allclose(first["Head.Normal.X"], -second["Head.Normal.X"], atol=1e-3)
    listed[0]["field_to_world"][:3] = 0, 0, 0
    with pytest.raises(ParameterError, match="field_to_world"):
        run("views", **given, cameras=json.dumps(listed))


@pytest.mark.slow
def test_blender_reads_the_passes(tmp_path, field_file):
    pytest.importorskip("bpy")
    run("views", field=field_file, folder=str(tmp_path), format="exr", cameras=listed(0))
    script = """
import bpy, json, sys
scene = bpy.context.scene
scene.use_nodes = True
node = scene.node_tree.nodes.new("CompositorNodeImage")
node.image = bpy.data.images.load(sys.argv[-1])
print("ANSWER" + json.dumps([o.name for o in node.outputs]))
"""
    file = str(tmp_path / "view_0001.exr")
    done = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True)
    outputs = json.loads(done.stdout.split("ANSWER")[1])
    assert {"Combined", "Depth", "Normal"} <= set(outputs)


def test_a_triplane_as_well(tmp_path):
    """Its own units, its own kind of surface; straight rays at it from the front."""
    file = tmp_path / "cloud.safetensors"
    file.write_bytes(field_to_bytes(view_fixtures.cloud()))
    run("views", field=str(file), folder=str(tmp_path / "a"), format="exr", cameras="circle:2",
        size=40)  # fmt: skip
    got = exr(tmp_path / "a" / "view_0001.exr")
    middle = (slice(18, 22), slice(18, 22))
    assert got["Head.Combined.A"][middle].min() > 0.99
    assert got["Head.Normal.Y"][middle].max() < -0.97  # the face looks along -y
    assert 0.2 < got["Head.Depth.Z"][middle].mean() < 2  # metres, of a head a quarter as large
    sheet = run("sheet", heads=str(file), cameras="circle:2", size=40).arrays["sheet"]
    assert sheet[..., 3].max() == 255


def test_what_is_there_is_not_made_again(tmp_path, field_file):
    given = {"field": field_file, "folder": str(tmp_path), **SMALL}
    run("views", **given)
    before = contents(tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.png")}
    items = []
    again = run("views", Context(on_item=lambda *a: items.append(a)), **given)
    assert again.meta["made"] == 0 and not items and len(again.meta["frames"]) == 5
    assert contents(tmp_path) == before
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.png")}
    # A lost one, a cut one: only those.
    (tmp_path / "view_0002.png").unlink()
    (tmp_path / "view_0004.png").write_bytes(before["view_0004.png"][:100])
    made = run("views", **given).meta
    assert [f["frame"] for f in made["frames"] if f["made"]] == [2, 4]
    assert contents(tmp_path) == before
    # Other cameras, another format, another field: all of them.
    assert run("views", **given | {"cameras": "circle:5:10"}).meta["made"] == 5
    assert run("views", **given | {"format": "png16"}).meta["made"] == 5
    other = tmp_path.parent / f"{tmp_path.name}.safetensors"
    field = view_fixtures.field()
    changed = type(field)(field.distance + 0.002, field.warp, field.planes, field.decoder,
                          field.bounds)  # fmt: skip
    other.write_bytes(field_to_bytes(changed))
    assert run("views", **given | {"format": "png16", "field": str(other)}).meta["made"] == 5
    # A damaged list counts as none.
    (tmp_path / "view.views.jsonl").write_text('{"file": "view_0001.png", "key": 1}\n[]\n{"fi')
    assert run("views", **given).meta["made"] == 5


def test_cancelled_and_continued(tmp_path, field_file):
    given = {"field": field_file, **SMALL}
    items = []
    context = Context(on_item=lambda *a: items.append(a), is_cancelled=lambda: len(items) >= 2)
    with pytest.raises(Cancelled):
        run("views", context, folder=str(tmp_path / "a"), **given)
    kept = set(contents(tmp_path / "a")) - {"view.views.jsonl"}
    assert 2 <= len(kept) < 5 and all(name.endswith(".png") for name in kept)
    made = run("views", folder=str(tmp_path / "a"), **given).meta["made"]
    assert made == 5 - len(kept)
    run("views", folder=str(tmp_path / "b"), **given)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.slow
def test_killed_in_the_middle(tmp_path, field_file, root):
    """SIGKILL, at an arbitrary moment: no half file, and what goes on ends the same."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no such signal on this system")
    command = [sys.executable, "-m", "engine", "views", field_file, "--cameras", "circle:20"]
    command += ["--size", "64", "--out", str(tmp_path / "a")]
    child = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "a").glob("view_*.png"))) < 6 and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    left = sorted((tmp_path / "a").glob("view_*.png"))
    assert 6 <= len(left) < 20
    for path in left:
        assert np.asarray(Image.open(path)).shape == (64, 64, 4)
    given = {"field": field_file, "cameras": "circle:20", "size": 64}
    again = run("views", folder=str(tmp_path / "a"), **given).meta
    # At most the picture that was being put on record is made once more.
    assert 20 - len(left) <= again["made"] <= 20 - len(left) + 1
    run("views", folder=str(tmp_path / "b"), **given)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_frames_and_names_of_a_list(tmp_path, field_file):
    cameras = [
        {"frame": frame, "camera": view_fixtures.camera(frame, 40).to_json()} for frame in (12, 7)
    ]
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps({"cameras": cameras}))
    made = run("views", field=field_file, folder=str(tmp_path / "out"), cameras=str(path))
    assert [Path(f["path"]).name for f in made.meta["frames"]] == ["view_0012.png", "view_0007.png"]


@pytest.mark.parametrize(
    "change",
    [
        {"cameras": "circle:0"},
        {"cameras": "spiral:4"},
        {"cameras": ""},
        {"cameras": "[]"},
        {"cameras": "[1]"},
        {"cameras": '[{"cam2world": [1]}]'},
        {"cameras": "nowhere.json"},
        {"name": "../x"},
        {"name": ""},
        {"folder": ""},
        {"field_to_world": [0.0] * 16},
    ],
    ids=str,
)
def test_what_cannot_be_rendered_is_said(tmp_path, field_file, change):
    given = {"field": field_file, "folder": str(tmp_path), **SMALL}
    with pytest.raises(ParameterError):
        run("views", **given | change)


def test_two_cameras_of_one_frame(tmp_path, field_file):
    camera = {"frame": 3, "camera": view_fixtures.camera(0, 40).to_json()}
    with pytest.raises(ParameterError, match="same frame"):
        run("views", field=field_file, folder=str(tmp_path), cameras=json.dumps([camera] * 2))


def test_a_folder_that_is_a_file(tmp_path, field_file):
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError):
        run("views", field=field_file, folder=str(tmp_path / "x"), **SMALL)


def test_a_sheet_and_its_list(tmp_path, field_file):
    given = {"heads": field_file, "folder": str(tmp_path), "size": 80, "margin": 10}
    result = run("sheet", **given)
    sheet = result.arrays["sheet"]
    assert sheet.shape == (100, 5 * 90 + 10, 4)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
    facts = json.loads((tmp_path / "sheet.json").read_text())
    tiles = facts["tiles"]
    assert facts["image"] == "sheet.png" and facts["width"] == sheet.shape[1]
    assert [t["view"] for t in tiles][:3] == ["front", "three-quarter left", "left"]
    heights = []
    for tile in tiles:
        x, y, w, h = (tile[k] for k in ("x", "y", "width", "height"))
        alpha = sheet[y : y + h, x : x + w, 3]
        assert alpha.max() == 255 and not alpha[0].any() and not alpha[:, 0].any()
        rows = np.flatnonzero(alpha.max(1) > 127)
        heights.append((rows[0], rows[-1]))
        assert tile["camera"]["width"] == w == 80 and tile["camera"]["orthographic"]
    assert len(set(heights)) == 1  # equal scale and height
    outside = sheet[..., 3].copy()
    for tile in tiles:
        outside[tile["y"] : tile["y"] + 80, tile["x"] : tile["x"] + 80] = 0
    assert not outside.any()


def test_a_sheet_with_labels_on_a_colour(tmp_path, field_file):
    given = {"heads": f"{field_file},{field_file}", "size": 64, "cameras": "circle:3"}
    plain = run("sheet", background="#d4d5d6", **given).arrays["sheet"]
    marked = run("sheet", background="#d4d5d6", labels=True, **given)
    labelled = marked.arrays["sheet"]
    assert (plain[..., 3] == 255).all() and (plain[0, 0] == (212, 213, 214, 255)).all()
    assert labelled.shape[0] > plain.shape[0] and labelled.shape[1] == plain.shape[1]
    tiles = marked.meta["tiles"]
    assert [t["row"] for t in tiles] == [0, 0, 0, 1, 1, 1]
    below = labelled[tiles[0]["y"] + 64 : tiles[3]["y"]]
    assert (below[..., 0] < 100).any()


@pytest.mark.parametrize("background", ["red", "#12345", "#1234567"])
def test_a_colour_that_is_none(field_file, background):
    with pytest.raises(ParameterError, match="colour"):
        run("sheet", heads=field_file, background=background)


def test_a_data_set(tmp_path, field_file):
    world = FIELD_TO_BLENDER @ np.diag([2.0, 2.0, 2.0, 1.0])
    world[:3, 3] = 0.3, 0.1, 0.2
    numbers = [float(x) for x in world.ravel()]
    given = {"field": field_file, "cameras": "sphere:6", "size": 64, "points": 500}
    given |= {"field_to_world": numbers, "folder": str(tmp_path)}
    assert run("dataset", **given).meta["made"] == 6
    facts = json.loads((tmp_path / "transforms.json").read_text())
    known = {"camera_model", "fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "k3", "k4", "p1",
             "p2", "camera_angle_x", "camera_angle_y", "aabb_scale", "scale", "offset",
             "applied_transform", "applied_scale", "ply_file_path", "frames"}  # fmt: skip
    assert known <= set(facts)
    ours = scenes.from_transforms(tmp_path / "transforms.json", world)
    theirs = scenes.from_colmap(tmp_path / "sparse" / "0", world)
    mesh = view_fixtures.mesh()
    for frame, a, b in zip(facts["frames"], ours, theirs, strict=True):
        assert np.allclose(a.cam2world, b.cam2world, atol=1e-9)
        picture = np.asarray(Image.open(tmp_path / frame["file_path"]))
        mask = np.asarray(Image.open(tmp_path / frame["mask_path"]))
        depth = np.asarray(Image.open(tmp_path / frame["depth_file_path"])) * 1e-4
        assert picture.shape == (64, 64, 4) and set(np.unique(mask)) == {0, 255}
        assert np.array_equal(mask > 0, picture[..., 3] > 127)
        raster = rasterize(mesh.vertices, mesh.faces, a)
        drawn = raster.face >= 0
        assert (drawn == (mask > 0)).mean() > 0.985
        both = drawn & (picture[..., 3] == 255)
        assert np.median(np.abs(depth - 2 * raster.depth)[both]) < 0.002
        assert not depth[picture[..., 3] == 0].any()
    points = ply(tmp_path / "points3d.ply")
    assert len(points) == 500
    at = np.stack([points[n] for n in "xyz"], 1).astype(float)
    inside = (at - world[:3, 3]) @ np.linalg.inv(world[:3, :3]).T
    import torch

    value = view_fixtures.field().value(torch.tensor(inside, dtype=torch.float32))
    assert value.abs().max() < 0.001
    normals = np.stack([points[n] for n in ("nx", "ny", "nz")], 1)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    assert ((at - at.mean(0)) * normals).sum(1).mean() > 0  # outwards
    first = (tmp_path / "sparse/0/points3D.txt").read_text().splitlines()[1].split()
    assert np.allclose([float(x) for x in first[1:4]], at[0], atol=1e-6)
    # The head is inside instant-ngp's unit cube.
    cube = at * facts["scale"] + facts["offset"]
    assert cube.min() > 0 and cube.max() < 1 and np.ptp(cube, 0).max() > 0.8
    before = contents(tmp_path)
    assert run("dataset", **given).meta["made"] == 0
    assert contents(tmp_path) == before


def test_colmap_itself_reads_the_data_set(tmp_path, field_file):
    pycolmap = pytest.importorskip("pycolmap")
    cameras = listed(0, 1, 3, 4, size=64)  # of several sizes, shifted, pixels that are not square
    run("dataset", field=field_file, folder=str(tmp_path), cameras=cameras, points=40)
    model = pycolmap.Reconstruction(str(tmp_path / "sparse" / "0"))
    assert model.num_images() == 4 and model.num_points3D() == 40
    for number, seed in enumerate((0, 1, 3, 4), 1):
        image, camera = model.images[number], view_fixtures.camera(seed, 64)
        assert image.name == f"view_{number:04d}.png"
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        expected = scenes.placed(camera, FIELD_TO_BLENDER)
        assert np.allclose(np.linalg.inv(pose), expected, atol=1e-5)
        k = image.camera.calibration_matrix()
        size = np.array([[camera.width], [camera.height]])
        assert np.allclose(k[:2], camera.intrinsics[:2] * size, rtol=1e-5, atol=1e-5)
        # COLMAP's own projection of a point of the surface: where our mask has the head.
        point = next(iter(model.points3D.values())).xyz
        x, y = image.project_point(point)
        inside = np.linalg.inv(FIELD_TO_BLENDER)[:3, :3] @ point
        assert np.allclose(camera.project(inside[None])[0][0], (x, y), atol=1e-4)


def ply(path: Path) -> np.ndarray:
    """A binary .ply's vertices, by what its header says."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    kinds = {"float": "<f4", "uchar": "u1"}
    table = np.dtype([(w[2], kinds[w[1]]) for w in map(str.split, lines) if w[0] == "property"])
    return np.frombuffer(body, table)


def test_a_data_set_through_parallel_rays_is_refused(tmp_path, field_file):
    with pytest.raises(ParameterError, match="orthographic"):
        run("dataset", field=field_file, folder=str(tmp_path), cameras=listed(2))


def test_a_data_set_is_rendered_again_from_its_own_cameras(tmp_path, field_file):
    """transforms.json and the COLMAP folder as cameras of the job views: the same pictures."""
    run("dataset", field=field_file, folder=str(tmp_path), cameras="sphere:3", size=48, points=10)
    wanted = [p.read_bytes() for p in sorted((tmp_path / "images").glob("*.png"))]
    for number, cameras in enumerate((tmp_path / "transforms.json", tmp_path / "sparse" / "0")):
        out = tmp_path / f"again {number}"
        run("views", field=field_file, folder=str(out), cameras=str(cameras))
        for path, data in zip(sorted(out.glob("*.png")), wanted, strict=True):
            again = np.asarray(Image.open(path)).astype(int)
            first = np.asarray(Image.open(io.BytesIO(data))).astype(int)
            assert np.abs(again - first).max() <= 2
