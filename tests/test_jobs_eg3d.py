"""The job `reconstruct` with an added EG3D model: refusals, and once from end to end."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from inversion_fixtures import ball_sampler, write_small_model

from engine import cameras, jobs
from engine.checkpoints import header, registry
from engine.errors import ParameterError, PhotoError, TriplaneError, WeightsError
from engine.fields.io import load_field
from engine.fields.triplane import TriplaneField
from engine.inversion.eg3d.methods import PRESETS
from engine.inversion.quality import UNLIKELY, Evidence
from engine.jobs import eg3d_stages
from engine.jobs.base import Context
from engine.portrait.matte import Matte
from engine.sampling import recipe as recipes
from engine.sampling.open import open_sampler

pytestmark = pytest.mark.usefixtures("restored_process")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A models folder with one small EG3D model."""
    place = tmp_path_factory.mktemp("models")
    write_small_model(place / "small.safetensors")
    return place


def run(photo, folder, **given):
    job = jobs.load("reconstruct")
    given = {"photo": str(photo), "model": "small", "models": str(folder), **given}
    return job.run(job.checked(given), Context())


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"model": "nobody"}, WeightsError, "no model named nobody"),
        ({"method": "encoder"}, ParameterError, "The method encoder does not work with this"),
        ({"method": "warpgan"}, ParameterError, "inpainting network"),
        ({"topology": "QUAD"}, ParameterError, "mesh of quads follows the built-in model"),
        ({"topology": "BOTH"}, ParameterError, "mesh of quads"),
        ({"photo": "nowhere.png"}, PhotoError, "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(photo, folder, given, kind, words):
    with pytest.raises(kind, match=words) as caught:
        run(given.pop("photo", photo), folder, **given)
    assert isinstance(caught.value, TriplaneError) and caught.value.sentence.endswith(".")


def test_a_model_for_objects_is_refused(photo, folder, monkeypatch):
    found = registry.describe(folder / "small.safetensors")
    monkeypatch.setattr(
        registry, "describe", lambda path: dataclasses.replace(found, system="triposr")
    )
    with pytest.raises(WeightsError, match="small is a model for objects, not for heads"):
        run(photo, folder)


def test_a_file_that_is_no_model_is_refused(photo, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x10" + b"\0" * 40)
    with pytest.raises(WeightsError):
        run(photo, tmp_path, model="bad")


def test_the_built_in_model_is_the_default():
    job = jobs.load("reconstruct")
    assert job.checked({"photo": "x"})["model"] == registry.BUILT_IN


def test_a_head_without_the_photos_outline_is_not_trusted(monkeypatch):
    """Whatever the photo is like: such models can make anything."""
    monkeypatch.setattr(eg3d_stages, "measure_photo", lambda *_: Evidence())
    sampler, size = ball_sampler(), eg3d_stages.SIDE
    camera = sampler.camera(0, 0, size)
    field = sampler.field(sampler.map(sampler.z(1)))
    head = (field.render(camera).alpha.numpy() > 0.5).astype(np.float32)
    ways = object.__new__(eg3d_stages.ModelWays)
    vars(ways).update(head=None, photo=None, sampler=sampler, points=None, faces=1)
    ways.context = Context()
    ways.aligned = SimpleNamespace(valid=np.ones((size, size), bool))
    found = []
    for alpha in (head, np.roll(head, 40, 1)):
        matte = Matte(alpha, alpha, alpha.astype(np.uint8), 0 * alpha)
        found.append(ways.judge(SimpleNamespace(field=field, camera=camera, matte=matte)))
    assert found[0].score > 0.8 and UNLIKELY not in found[0].warnings
    assert found[1].score < 0.45 and found[1].warnings[0].startswith(UNLIKELY)


@pytest.mark.slow
def test_from_photo_to_head(photo, folder, tmp_path, monkeypatch):
    """The small model's shape means nothing, but the whole way is the real one, if shorter."""
    monkeypatch.setitem(PRESETS, "fast", dataclasses.replace(PRESETS["fast"], latent=6))
    small = {"faces": 3000, "texture_size": 256}
    result = run(photo, folder, preset="fast", refine_steps=2, method="spi", **small)
    meta, arrays = result.meta, result.arrays
    assert meta["model"] == "small" and meta["method"] == "spi" and meta["name"] == "astronaut"
    assert arrays["vertices"].shape[1] == 3 and len(arrays["faces"]) > 500
    assert arrays["texture"].shape == (256, 256, 3) and arrays["crop"].shape == (256, 256, 3)
    figures = meta["figures"]
    assert {"photo_psnr_db", "silhouette_iou", "mesh_field_iou", "mesh"} <= set(figures)
    assert 0 <= figures["quality"]["score"] <= 1
    # The camera of the whole photo sees what that of the crop sees.
    full, crop = (cameras.from_json(meta[name]) for name in ("camera", "crop_camera"))
    assert (full.width, full.height) == (512, 512)
    assert np.allclose(full.position, crop.position)
    assert np.linalg.norm(crop.position) == pytest.approx(2.7, abs=0.3)
    field = load_field(arrays["field"].tobytes())
    assert isinstance(field, TriplaneField)
    path = tmp_path / "head.safetensors"
    path.write_bytes(arrays["field"].tobytes())
    sampler = open_sampler("small", str(folder))
    assert recipes.saved_code(str(path), sampler).shape == (len(sampler.rows), 512)
    json.dumps(meta)
    with open(folder / "small.safetensors", "rb") as file:  # and the model itself is untouched
        assert header.read_header(file.name)
    registry.verify(folder / "small.safetensors")
