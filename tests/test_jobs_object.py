"""The job `object` through a small model of TripoSR's layout: its shapes mean nothing, the way is
the real one."""

from __future__ import annotations

import json

import numpy as np
import object_fixtures as things
import pytest

from engine import __main__ as cli
from engine import cameras, jobs
from engine.checkpoints import registry
from engine.errors import Cancelled, ParameterError, PhotoError, ReconstructionError, WeightsError
from engine.fields.io import load_field
from engine.jobs.base import Context

pytestmark = pytest.mark.usefixtures("restored_process")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    things.write_small_model(folder / "small.safetensors")
    return folder


def run(models, context=None, **params):
    job = jobs.load("object")
    given = {"models": str(models), "faces": 2000, "texture_size": 256} | params
    return job.run(job.checked(given), context or Context())


@pytest.fixture(scope="module")
def made(models, tmp_path_factory):
    """The result for a transparent picture, and what was reported on the way."""
    folder = tmp_path_factory.mktemp("photos")
    picture, _ = things.photo("transparent")
    steps, previews = [], []
    context = Context(lambda f, step, left: steps.append((f, step)), previews.append)
    path = things.save(folder, "mug", picture)
    return run(models, context, photo=path, size=0.75), steps, previews


def test_an_object_of_its_size_on_the_ground(made):
    result, _, _ = made
    meta, arrays = result.meta, result.arrays
    world = np.array(meta["field_to_world"]).reshape(4, 4)
    corners = arrays["vertices"] @ world[:3, :3].T + world[:3, 3]
    assert np.ptp(corners, 0).max() == pytest.approx(0.75, rel=1e-4)
    assert corners[:, 2].min() == pytest.approx(0, abs=1e-6)
    assert meta["kind"] == "object" and meta["model"] == "small" and meta["cutout"] == "alpha"
    assert meta["figures"]["mesh"]["clean"] and len(arrays["faces"]) <= 2400


def test_uvs_and_a_texture_of_the_fields_colours(made):
    arrays = made[0].arrays
    assert arrays["uvs"].shape == (len(arrays["faces"]), 3, 2)
    assert arrays["texture"].shape == (256, 256, 3) and arrays["texture"].std() > 3
    assert arrays["photo"].shape == (260, 320, 4) and arrays["cutout"].shape == (260, 320, 4)


def test_the_field_travels_whole_and_is_of_the_same_size(made):
    result, _, _ = made
    field = load_field(result.arrays["field"].tobytes())
    assert field.metres_per_unit == pytest.approx(result.meta["metres_per_unit"])
    camera = cameras.from_json(result.meta["crop_camera"]).resized(24, 24)
    assert field.render(camera).alpha.max() > 0.9


def test_the_cameras_of_photo_and_square_see_the_same(made):
    result, _, _ = made
    whole = cameras.from_json(result.meta["camera"])
    assert (whole.width, whole.height) == (320, 260)
    middle = np.zeros((1, 3))
    pixels, _ = whole.project(middle)  # the model's middle is the box's
    rows, columns = np.nonzero(result.arrays["cutout"][..., 3] > 13)
    box = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    assert pixels[0] == pytest.approx(box, abs=1.0)


def test_it_says_what_it_does(made):
    _, steps, previews = made
    fractions = [f for f, _ in steps]
    assert fractions == sorted(fractions)
    names = {step for _, step in steps}
    assert {"cutting the object out", "making the field", "baking the texture"} <= names
    assert len(previews) == 2 and all(p.dtype == np.uint8 and p.ndim == 3 for p in previews)


def test_cancelled_at_every_step(models, tmp_path):
    path = things.save(tmp_path, "mug", things.photo("transparent")[0])
    for wanted in ("cutting the object out", "making the field", "extracting the surface"):
        now = [""]
        context = Context(
            lambda f, step, left, now=now: now.__setitem__(0, step),
            is_cancelled=lambda wanted=wanted, now=now: now[0] == wanted,
        )
        with pytest.raises(Cancelled):
            run(models, context, photo=path)


def test_without_a_model_it_says_what_to_do(models, tmp_path):
    path = things.save(tmp_path, "mug", things.photo("transparent")[0])
    with pytest.raises(WeightsError, match="No model for objects") as error:
        run(tmp_path / "empty", photo=path)
    assert "TripoSR" in error.value.remedy
    with pytest.raises(WeightsError, match="for heads, not for objects"):
        run(models, photo=path, model="built-in")
    with pytest.raises(WeightsError, match="no model named nobody"):
        run(models, photo=path, model="nobody")


def test_wrong_parameters_and_pictures(models, tmp_path):
    with pytest.raises(ParameterError, match="size must be at least"):
        run(models, photo="x.png", size=0.0)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(PhotoError, match="not an image"):
        run(models, photo=str(tmp_path / "text.png"))


def test_a_damaged_model(models, tmp_path):
    data = bytearray((models / "small.safetensors").read_bytes())
    data[-50:-40] = b"0123456789"
    (tmp_path / "bad.safetensors").write_bytes(data)
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    path = things.save(tmp_path, "mug", things.photo("transparent")[0])
    for name in ("bad", "half"):
        with pytest.raises(WeightsError):
            run(tmp_path, photo=path, model=name)
    assert registry.describe(tmp_path / "half.safetensors").broken


def test_a_field_without_a_surface(models, tmp_path, monkeypatch):
    from engine.fields.lrm import LrmField

    monkeypatch.setattr(LrmField, "grid", lambda *_: None)
    monkeypatch.setattr(LrmField, "value", lambda self, points: points[:, 0] * 0 - 99)
    path = things.save(tmp_path, "mug", things.photo("transparent")[0])
    with pytest.raises(ReconstructionError, match="no solid object"):
        run(models, photo=path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wall", "clutter"])
def test_from_the_command_line(models, tmp_path, kind, capfdbinary):
    picture, inside = things.photo(kind)
    mask = ["--mask", things.save(tmp_path, "mask", inside)] if kind == "clutter" else []
    arguments = ["object", things.save(tmp_path, "mug", picture), "--models", str(models)]
    arguments += ["--faces", "2000", "--texture-size", "256", "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, *mask]) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"object.glb", "object.obj", "object.safetensors", "cutout.png", "sheet.png"} <= names
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["cutout"] == ("mask" if mask else "found")
