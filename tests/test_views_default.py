"""The default model's views: exact against its mesh, and as fast as promised."""

from __future__ import annotations

import time

import numpy as np
import pytest
import view_fixtures

from engine import jobs
from engine.fields.io import field_to_bytes, load_field
from engine.jobs.base import Context
from engine.surface import cleanup, isosurface
from engine.surface.metrics import iou
from engine.surface.rasterize import rasterize

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restored_process")]
HEAD = 0.25  # metres from chin to crown, about


@pytest.fixture(scope="module")
def field_file(tmp_path_factory) -> str:
    from engine.sampling.builtin import BuiltInSampler

    sampler = BuiltInSampler()
    path = tmp_path_factory.mktemp("field") / "head.safetensors"
    path.write_bytes(field_to_bytes(sampler.field(sampler.map(sampler.z(3)))))  # with a ponytail
    return str(path)


def run(name: str, **params):
    job = jobs.load(name)
    return job.run(job.checked(params), Context())


def test_ten_cameras(field_file):
    field = load_field(field_file)
    mesh = cleanup.clean(isosurface.extract(field, 176), 40000)
    for seed in range(10):
        camera = view_fixtures.camera(seed)
        raster = rasterize(mesh.vertices, mesh.faces, camera)
        seen = field.render(camera)
        drawn, shown = raster.face >= 0, seen.alpha.numpy() > 0.5
        shift = np.argwhere(drawn).mean(0) - np.argwhere(shown).mean(0)
        error = np.abs(seen.depth.numpy() - raster.depth)[drawn & shown]
        facts = seed, iou(drawn, shown), np.linalg.norm(shift), np.median(error)
        print(facts)
        assert facts[1] >= 0.97 and facts[2] <= 0.5 and facts[3] <= 0.01 * HEAD, facts


def test_a_turntable_of_48_views(tmp_path, field_file):
    """In a minute: a quarter of them, in a quarter of it."""
    started = time.perf_counter()
    run("views", field=field_file, folder=str(tmp_path), cameras="circle:12", size=256)
    took = time.perf_counter() - started
    print(f"{took:.1f} s")
    assert took < 15 and len(list(tmp_path.glob("view_*.png"))) == 12


def test_a_sheet_of_eight_views(field_file):
    started = time.perf_counter()
    sheet = run("sheet", heads=field_file, cameras="character", size=512).arrays["sheet"]
    took = time.perf_counter() - started
    print(f"{took:.1f} s")
    assert took < 15 and sheet.shape[1] > 4 * 512
