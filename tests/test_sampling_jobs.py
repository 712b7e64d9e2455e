"""The jobs sample, gallery and interpolate."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import variant_fixtures as rule
from PIL import Image
from sampling_fixtures import tiny_sampler

from engine import cameras, jobs
from engine.__main__ import main
from engine.checkpoints.model_file import write_model
from engine.errors import Cancelled, OutputError, ParameterError, ReconstructionError, WeightsError
from engine.fields.io import load_field
from engine.jobs import mesh_stages, sampling_stages
from engine.jobs.base import Context, Result
from engine.jobs.outputs import write_outputs
from engine.sampling import open as opening
from engine.surface.mesh import Mesh
from engine.surface.topology import examine
from engine.systems.eg3d.config import config_from_record
from engine.systems.eg3d.generator import EG3DGenerator

SMALL = {"faces": 1500, "texture_size": 256}


@pytest.fixture(autouse=True)
def tiny(monkeypatch, restored_process):
    """All models are the tiny one; and what they were asked for."""
    asked = []

    def open_sampler(model, folder, compute):
        asked.append((model, folder, compute))
        return tiny_sampler(density=-1000.0 if model == "empty" else 10.0)

    monkeypatch.setattr(sampling_stages, "open_sampler", open_sampler)
    monkeypatch.setattr(mesh_stages, "TRIPLANE_GRID", 48)
    return asked


def run(job_name: str, context: Context | None = None, **params) -> Result:
    job = jobs.load(job_name)
    return job.run(job.checked(params), context or Context())


class Collected:
    """A context's items, and a way to cancel after some."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.items: list[tuple[dict, np.ndarray]] = []
        self.context = Context(
            on_item=lambda meta, image: self.items.append((meta, image)),
            is_cancelled=lambda: len(self.items) >= stop_after,
        )


@pytest.fixture(scope="module")
def sampled() -> Result:
    patch = pytest.MonkeyPatch()
    patch.setattr(sampling_stages, "open_sampler", lambda *_: tiny_sampler())
    patch.setattr(mesh_stages, "TRIPLANE_GRID", 48)
    result = run("sample", heads="3", psi=0.9, **SMALL)
    patch.undo()
    return result


def test_a_seed_becomes_a_head(sampled):
    meta, arrays = sampled.meta, sampled.arrays
    mesh = Mesh(arrays["vertices"], arrays["faces"], arrays["uvs"], arrays["texture"])
    assert examine(mesh).clean and len(mesh.faces) < 2000
    radius = np.linalg.norm(mesh.vertices, axis=1)
    assert 0.15 < radius.min() and radius.max() < 0.27 and np.ptp(radius) < 0.02
    assert arrays["texture"].shape == (256, 256, 3) and arrays["photo"].shape == (64, 64, 3)
    assert arrays["preview"].shape == (256, 256, 3)
    assert meta["name"] == "head 3" and meta["seed"] == 3 and meta["model"] == "tiny"
    assert meta["metres_per_unit"] == pytest.approx(1 / 2.7)
    assert cameras.from_json(meta["camera"]).width == 64
    world = np.array(meta["field_to_world"]).reshape(4, 4)
    placed = mesh.vertices @ world[:3, :3].T + world[:3, 3]
    assert placed[:, 2].min() == pytest.approx(0, abs=1e-5)
    assert meta["figures"]["mesh"] and meta["timings"] and meta["versions"]
    json.dumps(meta, allow_nan=False)


def test_the_head_can_be_made_again(sampled, tmp_path):
    recipe = sampled.meta["recipe"]
    assert recipe["heads"] == [3] and recipe["psi"] == 0.9 and recipe["sha256"] == "aa"
    field = load_field(sampled.arrays["field"].tobytes())
    assert field.origin.recipe == recipe
    again = run("sample", heads="3", psi=0.9, **SMALL)
    for name in ("vertices", "faces", "uvs", "texture", "photo", "preview"):
        assert np.array_equal(again.arrays[name], sampled.arrays[name]), name
    path = tmp_path / "mine.safetensors"
    path.write_bytes(sampled.arrays["field"].tobytes())
    reopened = run("sample", heads=str(path), psi=0.1, name="again", **SMALL)
    assert np.array_equal(reopened.arrays["vertices"], sampled.arrays["vertices"])
    assert reopened.meta["name"] == "again" and reopened.meta["seed"] == -1


def test_a_head_as_files(sampled, tmp_path):
    paths = write_outputs(sampled, tmp_path / "head")
    names = {"head.glb", "head.obj", "head.mtl", "head.png", "head.safetensors"}
    assert {p.name for p in paths.values()} == names | {"front.png", "sheet.png", "report.json"}
    assert np.array_equal(np.asarray(Image.open(paths["front"])), sampled.arrays["photo"])
    width, height = Image.open(paths["sheet"]).size
    assert width > 2 * height  # the mesh from all sides, in two rows
    assert json.loads(paths["report"].read_text())["recipe"] == sampled.meta["recipe"]


def test_the_texture_is_the_pictures(sampled):
    """The ellipsoid has one colour, so the texture and the picture's middle have it too."""
    shown = sampled.arrays["photo"][28:36, 28:36].reshape(-1, 3).mean(0)
    texture = sampled.arrays["texture"].reshape(-1, 3).astype(float)
    assert np.abs(np.median(texture, 0) - shown).max() < 8


def test_a_blend_has_its_own_name_and_place():
    result = run("sample", heads="3,9", at=0.5, mix_seed=4, mix_from=2, **SMALL)
    assert result.meta["name"] == "head 3 to 9, 0.50"
    recipe = result.meta["recipe"]
    assert recipe["heads"] == [3, 9] and recipe["at"] == 0.5 and recipe["mix_seed"] == 4


@pytest.mark.parametrize(
    "params",
    [{"heads": ""}, {"heads": "3", "at": 0.5}, {"heads": "3", "mix_seed": 1, "mix_to": 60}],
)
def test_impossible_samples(params):
    with pytest.raises(ParameterError):
        run("sample", **params)


def test_a_head_without_a_surface_is_told_in_words():
    with pytest.raises(ReconstructionError) as caught:
        run("sample", heads="3", model="empty", **SMALL)
    assert "seed" in caught.value.remedy and "photo" not in str(caught.value)


def test_the_model_and_the_device_are_passed_on(tiny, monkeypatch):
    monkeypatch.setenv("TRIPLANE_MEMORY_LIMIT_MB", "0")
    context = Context(device="cpu", precision="float32")
    run("gallery", context, count=1, size=16, model="ffhq", models="some folder")
    model, folder, compute = tiny[-1]
    assert (model, folder) == ("ffhq", "some folder")
    assert compute.device.type == "cpu" and compute.dtype == torch.float32


def test_a_gallery_hands_out_its_pictures_one_by_one(tmp_path):
    seen = Collected()
    result = run("gallery", seen.context, first=5, count=3, size=16)
    assert [meta for meta, _ in seen.items] == [{"seed": 5 + i, "index": i} for i in range(3)]
    assert result.meta["seeds"] == [5, 6, 7]
    assert result.arrays["images"].shape == (3, 16, 16, 3)
    for i, (_, image) in enumerate(seen.items):
        assert np.array_equal(image, result.arrays["images"][i])
    assert not np.array_equal(result.arrays["images"][0], result.arrays["images"][2])
    alone = run("gallery", first=6, count=1, size=16)
    assert np.array_equal(alone.arrays["images"][0], result.arrays["images"][1])
    paths = write_outputs(result, tmp_path / "out")
    assert sorted(p.name for p in paths.values()) == [
        "report.json", "seed_0005.png", "seed_0006.png", "seed_0007.png", "sheet.png",
    ]  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(paths["seed_0006"])), seen.items[1][1])
    assert Image.open(paths["sheet"]).width > 2 * 16


def test_a_gallery_can_be_cancelled():
    seen = Collected(stop_after=2)
    with pytest.raises(Cancelled):
        run("gallery", seen.context, count=50, size=16)
    assert len(seen.items) == 2
    assert run("gallery", first=2**31 - 1, count=2, size=16).meta["seeds"][1] == 2**31
    with pytest.raises(ParameterError):
        run("gallery", count=1000, size=1024)


def test_a_path_as_pictures_in_a_folder(tmp_path):
    seen, folder = Collected(), tmp_path / "new" / "frames"
    result = run(
        "interpolate",
        seen.context,
        heads="3,9,4",
        steps=3,
        size=32,
        folder=str(folder),
        name="walk",
    )
    frames = result.meta["frames"]
    assert [f["at"] for f in frames] == [0, 0.5, 1, 1.5, 2]
    assert [p.name for p in sorted(folder.iterdir())] == [f"walk_000{i}.png" for i in range(1, 6)]
    assert [meta["path"] for meta, _ in seen.items] == [f["path"] for f in frames]
    assert [meta["frame"] for meta, _ in seen.items] == list(range(5))
    assert "frames" not in result.arrays
    pictures = [np.asarray(Image.open(f["path"])) for f in frames]
    assert all(p.shape == (32, 32, 3) for p in pictures)
    for at, seed in ((0, 3), (2, 9), (4, 4)):
        head = run("gallery", first=seed, count=1, size=32).arrays["images"][0]
        assert np.array_equal(pictures[at], head)


def test_the_camera_turns(tmp_path):
    still = run("interpolate", heads="3,3", steps=3, size=32).arrays["frames"]
    assert np.array_equal(still[0], still[1]) and np.array_equal(still[0], still[2])
    turned = run("interpolate", heads="3,3", steps=3, size=32, orbit=40.0, view_yaw=-20.0)
    frames = turned.arrays["frames"]
    assert np.array_equal(frames[1], still[0])  # half way: the front
    assert not np.array_equal(frames[0], frames[2])
    paths = write_outputs(turned, tmp_path)
    assert paths["frame_0003"].name == "heads_0003.png"


def test_an_interrupted_path_leaves_whole_pictures(tmp_path):
    seen = Collected(stop_after=2)
    with pytest.raises(Cancelled):
        run("interpolate", seen.context, heads="3,9", steps=9, size=16, folder=str(tmp_path))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["heads_0001.png", "heads_0002.png"]
    for name in names:
        Image.open(tmp_path / name).load()


@pytest.mark.parametrize("heads", ["3", "", "3,missing.safetensors"])
def test_impossible_paths(heads):
    with pytest.raises((ParameterError, WeightsError)):
        run("interpolate", heads=heads, size=16)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError):
        run("interpolate", heads="3,9", size=16, folder=str(tmp_path / "file" / "frames"))


def test_without_any_model_there_is_the_built_in_one(tmp_path):
    sampler = opening.open_sampler("", tmp_path)
    assert sampler.name == "built-in" and sampler.sha256
    assert sampler.map(sampler.z(3)).shape[0] == len(sampler.rows)
    with pytest.raises(WeightsError):
        opening.open_sampler("nobody", tmp_path)


def test_a_real_model_file_on_the_command_line(tmp_path, monkeypatch, capfdbinary):
    """A small model of the cars' layout in a models folder, by name, without any patches."""
    monkeypatch.undo()
    record = rule.record("cars")
    with torch.device("meta"):
        shapes = EG3DGenerator(config_from_record(record)).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in shapes.items()}
    models = tmp_path / "models"
    models.mkdir()
    write_model(models / "small.safetensors", record, rule.seeded_state(shapes))
    out = tmp_path / "out"
    arguments = ["gallery", "--first", "3", "--count", "2", "--size", "32", "--out", str(out)]
    arguments += ["--models", str(models), "--model", "small", "--device", "cpu", "--json"]
    assert main(arguments) == 0
    answer = json.loads(capfdbinary.readouterr().out)
    assert answer["meta"]["model"] == "small" and answer["meta"]["seeds"] == [3, 4]
    images = [np.asarray(Image.open(out / f"seed_000{i}.png")) for i in (3, 4)]
    assert images[0].shape == (32, 32, 3) and images[0].max() == 255  # white behind
    assert not np.array_equal(*images)
