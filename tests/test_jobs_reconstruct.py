"""The jobs on a real photo, from end to end: what they hand back, write, refuse and let go of."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import cameras, device, jobs
from engine.checkpoints.default import load_default
from engine.errors import (
    Cancelled,
    NoFaceError,
    OutputError,
    ParameterError,
    PhotoError,
    WeightsError,
)
from engine.failures import describe
from engine.fields.io import load_field
from engine.jobs import stages
from engine.jobs.base import Context, Result
from engine.jobs.outputs import write_outputs
from engine.surface.draw import silhouette
from engine.surface.export import encode_png
from engine.surface.mesh import Mesh
from engine.surface.metrics import iou

# Read off the enlarged example by eye (pixels): the pupils, image left first.
PUPILS = np.array([[203.9, 101.2], [246.8, 103.6]])
ODD_NAME = "Zoë’s photo – 写真 1.png"

pytestmark = pytest.mark.usefixtures("restored_process")


@dataclass
class Run:
    """One reconstruction with all that it said. gaps: (processor seconds, where from, where to)
    between two looks at whether the user has cancelled."""

    path: Path
    result: Result | None = None
    steps: list[str] = field(default_factory=list)
    fractions: list[float] = field(default_factory=list)
    previews: list[np.ndarray] = field(default_factory=list)
    gaps: list[tuple[float, str, str]] = field(default_factory=list)
    made: object = None  # engine.inversion.reconstruct.Reconstruction


@pytest.fixture(scope="module")
def done(photo, tmp_path_factory) -> Run:
    """The example photo, under a path with spaces and letters beyond ASCII, preset fast."""
    folder = tmp_path_factory.mktemp("Fotos von Jürgen")
    run = Run(Path(shutil.copy(photo, folder / ODD_NAME)))
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports a lot, once a process
    last = ["the start", time.process_time()]

    def look() -> bool:
        now, place = time.process_time(), run.steps[-1] if run.steps else "the start"
        run.gaps.append((now - last[1], last[0], place))
        last[:] = place, time.process_time()
        return False

    def progress(fraction: float, step: str, left: float | None) -> None:
        run.fractions.append(fraction)
        if not run.steps or run.steps[-1] != step:
            run.steps.append(step)

    inner = stages.invert

    def spying(*args):
        run.made = inner(*args)
        return run.made

    job = jobs.load("reconstruct")
    params = job.checked({"photo": str(run.path), "preset": "fast"})
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "invert", spying)
        run.result = job.run(params, Context(progress, run.previews.append, look))
    torch.set_num_threads(threads)
    return run


def mesh_of(result: Result) -> Mesh:
    a = result.arrays
    return Mesh(a["vertices"], a["faces"], a["uvs"], a["texture"])


@pytest.mark.slow
class TestReconstruct:
    def test_the_mesh_is_one_closed_solid(self, done):
        mesh = done.result.meta["figures"]["mesh"]
        assert mesh["components"] == 1
        assert mesh["boundary_edges"] == 0
        assert mesh["nonmanifold_edges"] == mesh["nonmanifold_vertices"] == 0
        assert mesh["misoriented_edges"] == mesh["degenerate_faces"] == 0
        assert 30_000 <= mesh["faces"] <= 50_000
        assert 3 < mesh["volume_l"] < 9

    def test_the_uvs_are_inside_and_hardly_overlap(self, done):
        uv = done.result.meta["figures"]["mesh"]["uv"]
        assert uv["inside"] and uv["overlap"] <= 0.01
        uvs = done.result.arrays["uvs"]
        assert 0 <= uvs.min() and uvs.max() <= 1

    def test_the_photo_is_matched(self, done):
        figures = done.result.meta["figures"]
        assert figures["photo_psnr_db"] >= 20
        assert figures["silhouette_iou"] >= 0.9
        assert len(figures["mesh_field_iou"]) == 5 and min(figures["mesh_field_iou"]) >= 0.97
        assert figures["faces_found"] == 1
        assert figures["quality"]["score"] > 0.6 and figures["quality"]["warnings"] == []

    def test_the_arrays_are_as_promised(self, done):
        a = done.result.arrays
        v, f = len(a["vertices"]), len(a["faces"])
        expected = {
            "vertices": ((v, 3), np.float32),
            "faces": ((f, 3), np.int32),
            "uvs": ((f, 3, 2), np.float32),
            "texture": ((2048, 2048, 3), np.uint8),
            "photo": ((512, 512, 3), np.uint8),
            "field": (a["field"].shape, np.uint8),
            "preview": ((256, 256, 3), np.uint8),
            "crop": ((512, 512, 3), np.uint8),
        }
        assert {k: (x.shape, x.dtype.type) for k, x in a.items()} == expected
        assert np.isfinite(a["vertices"]).all() and a["faces"].max() == v - 1
        assert np.array_equal(a["photo"], np.asarray(Image.open(done.path).convert("RGB")))
        for name in ("texture", "preview"):
            assert a[name].std() > 10, name

    def test_the_facts_are_as_promised(self, done):
        meta = done.result.meta
        assert json.loads(json.dumps(meta)) == meta
        assert meta["name"] == Path(ODD_NAME).stem
        assert (meta["preset"], meta["seed"], meta["device"]) == ("fast", 0, "cpu")
        assert meta["metres_per_unit"] == 1.0
        assert set(meta["versions"]) >= {"triplane", "torch", "numpy", "python"}
        assert list(meta["timings"]) == list(dict.fromkeys(done.steps))
        assert sum(meta["timings"].values()) > 1
        camera = cameras.from_json(meta["camera"])
        assert (camera.width, camera.height) == (512, 512)
        k = camera.intrinsics
        assert k[0, 0] == pytest.approx(k[1, 1])  # a square photo of square pixels

    def test_it_stands_on_the_floor_at_human_size(self, done):
        world = np.array(done.result.meta["field_to_world"]).reshape(4, 4)
        v = done.result.arrays["vertices"] @ world[:3, :3].T + world[:3, 3]
        assert v[:, 2].min() == pytest.approx(0, abs=1e-5)
        assert 0.2 < v[:, 2].max() < 0.4
        assert 0.12 < np.ptp(v[:, 0]) < 0.35
        # It looks along -y: the nose, at the height of the eyes and below, is what is foremost.
        middle = (np.abs(v[:, 0]) < 0.03) & (v[:, 2] > 0.08) & (v[:, 2] < 0.2)
        assert -v[middle, 1].min() > v[middle, 1].max() * 0.6 and v[middle, 1].min() < -0.06

    def test_the_camera_sees_the_eyes_where_the_photo_has_them(self, done):
        """What lies behind the photo's pupils is where a head has its eyes."""
        camera = cameras.from_json(done.result.meta["camera"])
        seen = load_field(done.result.arrays["field"].tobytes()).render(camera)
        origin, rays = camera.rays()
        eyes = []
        for u, v in PUPILS:
            row, column = int(v), int(u)
            assert seen.alpha[row, column] > 0.99
            ray = rays[row, column]
            t = float(seen.depth[row, column]) / (ray @ camera.cam2world[:3, 2])
            eyes.append(origin + t * ray)
        right, left = eyes
        assert 0.052 < np.linalg.norm(left - right) < 0.075
        middle = (left + right) / 2
        assert np.abs(middle - [0, 0.02, 0.075]).max() < 0.015
        usual = np.array([[-0.031, 0.02, 0.075], [0.031, 0.02, 0.075]])
        assert np.linalg.norm(camera.project(usual)[0] - PUPILS, axis=1).max() < 12

    def test_the_crops_camera_is_the_photos(self, done):
        """Both cameras stand at one place; the crop's sees the head larger."""
        full = cameras.from_json(done.result.meta["camera"])
        crop = cameras.from_json(done.result.meta["crop_camera"])
        assert np.allclose(full.position, crop.position)
        points = done.result.arrays["vertices"][::500].astype(float)
        a, b = full.project(points)[0], crop.project(points)[0]
        fit, rest, *_ = np.linalg.lstsq(np.c_[a, np.ones(len(a))], b, rcond=None)
        assert np.abs(np.c_[a, np.ones(len(a))] @ fit - b).max() < 1e-6
        assert np.linalg.det(fit[:2]) > 1

    def test_progress_rises_and_previews_come(self, done):
        assert done.fractions == sorted(done.fractions) and done.fractions[0] == 0
        assert done.fractions[-1] < 1
        assert len(done.steps) == len(set(done.steps)) >= 10  # no step comes twice
        assert len(done.previews) >= 2
        for image in done.previews:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert min(image.shape[:2]) >= 128

    def test_cancelling_is_noticed_soon(self, done):
        """Two seconds are promised; this machine may be slower or busier than an artist's."""
        seconds, before, after = max(done.gaps)
        assert seconds < 1.5, f"between '{before}' and '{after}'"
        assert len(done.gaps) > 100

    def test_the_saved_field_is_the_field(self, done):
        again = load_field(done.result.arrays["field"].tobytes())
        camera = cameras.from_json(done.result.meta["crop_camera"]).resized(128, 128)
        a, b = done.made.field.render(camera), again.render(camera)
        assert iou(a.alpha.numpy() > 0.5, b.alpha.numpy() > 0.5) > 0.995
        assert (a.image - b.image).abs().mean() < 2e-3


LATE = ("extracting the surface", "unwrapping", "baking the texture", "measuring")
EARLY = ("reading the photo", "finding the face", "cutting out the head", "fitting the shape")


@pytest.mark.slow
@pytest.mark.parametrize("step", EARLY + LATE)
def test_cancelled_at_a_step_it_stops_there(done, step, monkeypatch):
    """The first look after the step has begun ends the job: nothing swallows the cancellation."""
    if step in LATE:  # what comes before has been done already
        monkeypatch.setattr(stages, "invert", lambda *args: done.made)
    reached, looks = [], []

    def look() -> bool:
        looks.append(bool(reached))
        return bool(reached)

    def progress(fraction: float, name: str, left: float | None) -> None:
        assert not reached, f"'{name}' began after the cancellation"
        if name == step:
            reached.append(name)

    job = jobs.load("reconstruct")
    small = {"preset": "fast", "faces": 3000, "texture_size": 256}
    with pytest.raises(Cancelled):
        job.run(
            job.checked({"photo": str(done.path), **small}), Context(progress, is_cancelled=look)
        )
    assert reached == [step] and looks.count(True) == 1


@pytest.fixture(scope="module")
def field_file(done, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("field") / "head.safetensors"
    path.write_bytes(done.result.arrays["field"].tobytes())
    return path


def run_job(name: str, context: Context | None = None, **params) -> Result:
    job = jobs.load(name)
    return job.run(job.checked(params), context or Context())


@pytest.mark.slow
class TestFromTheField:
    def test_render_sees_the_meshs_silhouette(self, done, field_file):
        camera = cameras.from_json(done.result.meta["camera"])
        out = run_job("render", field=str(field_file), camera=json.dumps(camera.to_json()))
        image, depth = out.arrays["image"], out.arrays["depth"]
        assert image.shape == (512, 512, 4) and image.dtype == np.uint8
        assert depth.shape == (512, 512) and depth.dtype == np.float32
        drawn = silhouette(mesh_of(done.result), camera)
        assert iou(image[..., 3] > 127, drawn) > 0.97
        solid = image[..., 3] > 250
        _, z = camera.project(done.result.arrays["vertices"].astype(float))
        assert z.min() - 0.005 < depth[solid].min() and depth[solid].max() < z.max() + 0.005
        photo = done.result.arrays["photo"].astype(float)
        assert np.abs(photo - image[..., :3])[solid].mean() < 60  # straight, not premultiplied

    @pytest.mark.parametrize("with_photo", [False, True])
    def test_extract(self, done, field_file, with_photo):
        extra = {}
        if with_photo:
            camera = json.dumps(done.result.meta["camera"])
            extra = {"photo": str(done.path), "camera": camera}
        size = {"faces": 3000, "texture_size": 512}
        out = run_job("extract", field=str(field_file), **size, **extra)
        report = out.meta["figures"]["mesh"]
        assert report["clean"] and report["components"] == 1
        assert 2000 <= report["faces"] <= 4000
        assert report["uv"]["overlap"] <= 0.01
        assert out.arrays["texture"].shape == (512, 512, 3)
        camera = cameras.from_json(done.result.meta["camera"])
        assert (
            iou(silhouette(mesh_of(out), camera), silhouette(mesh_of(done.result), camera)) > 0.97
        )
        assert np.allclose(
            out.meta["field_to_world"], done.result.meta["field_to_world"], atol=3e-3
        )

    def test_files_are_written(self, done, tmp_path):
        folder = tmp_path / "new" / "results"
        paths = write_outputs(done.result, folder)
        names = {
            "glb": "head.glb",
            "obj": "head.obj",
            "mtl": "head.mtl",
            "png": "head.png",
            "field": "head.safetensors",
            "sheet": "sheet.png",
            "report": "report.json",
        }
        assert {k: p.name for k, p in paths.items()} == names
        assert sorted(p.name for p in folder.iterdir()) == sorted(names.values())
        assert json.loads(paths["report"].read_text())["figures"] == done.result.meta["figures"]
        assert paths["glb"].read_bytes()[:4] == b"glTF"
        assert load_field(paths["field"]).kind == "head"
        assert min(Image.open(paths["sheet"]).size) > 300
        assert np.array_equal(np.asarray(Image.open(paths["png"])), done.result.arrays["texture"])


# What the jobs refuse.


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey 1-bit PNG around compressed rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def bad_photo(kind: str, folder: Path, example: Path) -> Path:
    path = folder / f"{kind}.png"
    if kind == "text":
        path = folder / "text.jpg"
        path.write_text("This is no photo.\n" * 50)
    elif kind == "truncated":
        path.write_bytes(example.read_bytes()[:20_000])
    elif kind == "empty":
        path.touch()
    elif kind == "one pixel":
        path.write_bytes(encode_png(np.zeros((1, 1, 3), np.uint8)))
    elif kind == "bomb":
        path.write_bytes(png(20_000, 20_000, zlib.compress(bytes(2501 * 20_000), 9)))
        assert path.stat().st_size < 100_000
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "not an image"),
        ("truncated", "damaged"),
        ("empty", "empty"),
        ("one pixel", "too small: 1 x 1"),
        ("bomb", "too large"),
        ("folder", "is a folder"),
        ("missing", "does not exist"),
    ],
)
def test_what_is_no_photo_is_refused(tmp_path, photo, kind, words):
    path = bad_photo(kind, tmp_path, photo)
    start = time.process_time()
    with pytest.raises(PhotoError, match=words) as caught:
        run_job("reconstruct", photo=str(path), preset="fast")
    assert time.process_time() - start < 3
    told = describe(caught.value)
    assert told["kind"] == "photo" and told["remedy"]
    assert path.name in told["sentence"]


def test_a_photo_without_a_face_says_what_to_do(tmp_path):
    y, x = np.mgrid[:300, :400]
    path = tmp_path / "wall.png"
    path.write_bytes(encode_png(np.stack([x // 2, y // 2, x // 4 + y // 4], -1).astype(np.uint8)))
    with pytest.raises(NoFaceError) as caught:
        run_job("reconstruct", photo=str(path), preset="fast")
    assert "points" in caught.value.remedy


def test_wrong_parameters_are_refused(photo):
    for wrong in (
        {"preset": "magic"},
        {"faces": 10},
        {"texture_size": 1 << 20},
        {"points": [1.0, 2.0]},
        {"seed": -1},
        {"refine_steps": 1.5},
        {"colour": "blue"},
    ):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            run_job("reconstruct", photo=str(photo), **wrong)


@pytest.mark.parametrize("name", ["render", "extract"])
def test_no_field_is_refused(tmp_path, name):
    text = tmp_path / "field.safetensors"
    text.write_text("no field")
    for path in (text, tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(WeightsError):
            run_job(name, field=str(path))


def tiny_field(folder: Path) -> Path:
    """A field file of a ball, to render."""
    from engine.fields.head import HeadField
    from engine.fields.io import save_field
    from engine.headspace.lattice import nodes
    from engine.networks.planes import PlaneDecoder

    bounds = torch.tensor([[-0.2] * 3, [0.2] * 3])
    ball = (nodes(24, bounds).norm(dim=1) - 0.1).reshape(24, 24, 24)
    decoder = PlaneDecoder(4, 8).requires_grad_(False)
    zeros = torch.zeros(3, 4, 4, 4), torch.zeros(4, 4, 8, 8)
    save_field(HeadField(ball, *zeros, decoder, bounds), folder / "ball.safetensors")
    return folder / "ball.safetensors"


def test_a_camera_that_is_none_is_refused(tmp_path):
    path = tiny_field(tmp_path)
    good = cameras.orbit(0, 0, 1, 0.4, width=8, height=8).to_json()
    assert run_job("render", field=str(path), camera=json.dumps(good)).arrays["image"].any()
    for camera in (
        "",
        "{",
        "[]",
        json.dumps({"cam2world": [1, 2]}),
        json.dumps(good | {"width": 0}),
        json.dumps(good | {"height": 10**6}),
    ):
        with pytest.raises(ParameterError, match="camera"):
            run_job("render", field=str(path), camera=camera)


# Where files go.


@pytest.fixture(scope="module")
def small_result() -> Result:
    """A result of a triangle's worth, without a sheet."""
    mesh = {
        "vertices": np.eye(3, dtype=np.float32),
        "faces": np.array([[0, 1, 2]], np.int32),
        "uvs": np.array([[[0, 0], [1, 0], [0, 1]]], np.float32),
        "texture": np.full((512, 512, 3), 99, np.uint8),
    }
    noise = np.random.default_rng(0).integers(0, 255, 300_000).astype(np.uint8)
    meta = {"name": "a/b c", "field_to_world": np.eye(4).ravel().tolist()}
    return Result(meta, mesh | {"field": noise})


def test_outputs_into_a_new_folder(small_result, tmp_path):
    paths = write_outputs(small_result, tmp_path / "ä b" / "c")
    assert set(paths) == {"glb", "obj", "mtl", "png", "field", "report"}
    assert all(p.is_file() for p in paths.values())
    again = write_outputs(small_result, tmp_path / "ä b" / "c")  # over the old ones
    assert again == paths and len(list((tmp_path / "ä b" / "c").iterdir())) == 6


def test_outputs_onto_a_file(small_result, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for folder in (taken, taken / "below"):
        with pytest.raises(OutputError) as caught:
            write_outputs(small_result, folder)
        assert caught.value.remedy
    assert taken.read_text() == "mine" and list(tmp_path.iterdir()) == [taken]


def test_a_failure_leaves_no_new_folder(small_result, tmp_path, monkeypatch):
    def full(files):
        raise OutputError("The disk is full.")

    monkeypatch.setattr("engine.jobs.outputs.write_whole", full)
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "old" / "new" / "newer", tmp_path / "old"):
        with pytest.raises(OutputError):
            write_outputs(small_result, folder)
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_outputs_onto_a_full_disk(small_result, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.name == "nt" or shutil.which("mount") is None:
        pytest.skip("no mount here")
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        (disk / "theirs.txt").write_text("theirs")
        with pytest.raises(OutputError, match="disk is full") as caught:
            write_outputs(small_result, disk / "new" / "results")
        assert caught.value.remedy
        assert [p.name for p in disk.iterdir()] == ["theirs.txt"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_outputs_into_a_read_only_folder(small_result, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    for folder in (locked, locked / "new"):
        with pytest.raises(OutputError):
            write_outputs(small_result, folder)
    assert not list(locked.iterdir())


def test_outputs_onto_a_read_only_disk(small_result, tmp_path):
    """As root permissions mean nothing, but a disk mounted read-only does."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        for folder in (disk, disk / "new"):
            with pytest.raises(OutputError) as caught:
                write_outputs(small_result, folder)
            assert caught.value.remedy
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Device and memory.


def test_the_memory_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(stages.MEMORY_LIMIT, "200000")
    stages.choose_compute(Context())
    assert device.memory_limit().limit == 200_000 << 20
    monkeypatch.delenv(stages.MEMORY_LIMIT)
    stages.choose_compute(Context())
    assert device.memory_limit().limit == 0
    for wrong in ("much", "-5", "1.5"):
        monkeypatch.setenv(stages.MEMORY_LIMIT, wrong)
        with pytest.raises(ParameterError, match=stages.MEMORY_LIMIT):
            stages.choose_compute(Context())


def test_the_head_model_computes_on_the_processor(monkeypatch):
    monkeypatch.setattr(device, "_available", lambda kind: kind in ("cpu", "mps"))
    assert stages.choose_compute(Context(device="mps")).device.type == "cpu"
    assert stages.choose_compute(Context(device="auto")).device.type == "cpu"
    assert stages.choose_compute(Context(precision="bfloat16")).dtype == torch.bfloat16
    with pytest.raises(ParameterError, match="CUDA is not available"):
        stages.choose_compute(Context(device="cuda"))


def test_memory_is_released():
    load_default()
    assert load_default.cache_info().currsize == 1
    jobs.release_memory()
    assert load_default.cache_info().currsize == 0
