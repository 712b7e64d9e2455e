"""Every published layout against numbers of the original code (small seeded weights; the fixture is
made by benchmarks/make_variant_fixture.py), and what a record may say."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import variant_fixtures as rule

from engine.errors import WeightsError
from engine.systems.eg3d.config import (
    CAR_METRES,
    CAT_METRES,
    FACE_METRES,
    FFHQ512,
    EG3DConfig,
    config_from_record,
)
from engine.systems.eg3d.generator import EG3DGenerator
from engine.systems.eg3d.superresolution import SuperResolution

FIXTURE = Path(__file__).parent / "data" / "eg3d_variants.npz"


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    with np.load(FIXTURE) as data:
        return {k: torch.from_numpy(data[k]) for k in data.files}


def load(module: torch.nn.Module, prefix: str = "") -> None:
    shapes = {prefix + k: tuple(v.shape) for k, v in module.state_dict().items()}
    state = rule.seeded_state(shapes).items()
    module.load_state_dict({k.removeprefix(prefix): torch.from_numpy(v) for k, v in state})
    module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def generators() -> dict[str, EG3DGenerator]:
    made = {}
    for name in rule.GENERATORS:
        with torch.device("meta"):
            model = EG3DGenerator(config_from_record(rule.record(name)))
        shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
        state = {k: torch.from_numpy(v) for k, v in rule.seeded_state(shapes).items()}
        model.to_empty(device="cpu").load_official(state)
        made[name] = model.eval().requires_grad_(False)
    return made


def close(name: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape, name
    difference = (ours.double() - theirs.double()).abs().max().item()
    print(f"{name}: max abs difference {difference:.2e} (tolerance {tolerance:.0e})")
    assert difference <= tolerance, f"{name}: {difference:.2e} > {tolerance:.0e}"


@pytest.mark.parametrize("name", rule.SUPERRESOLUTIONS)
def test_super_resolution(name, reference):
    kind, side, half, size, antialias, noise = rule.SUPERRESOLUTIONS[name]
    record = rule.record("cars")
    record["init_kwargs"] |= {"img_resolution": side, "sr_num_fp16_res": half}
    record["rendering_kwargs"] |= {
        "superresolution_module": rule.MODULE + kind,
        "sr_antialias": bool(antialias),
        "superresolution_noise_mode": noise,
    }
    module = SuperResolution(32, 512, config_from_record(record).superresolution)
    load(module, "superresolution.")
    x = torch.from_numpy(rule.seeded(f"features{size}", (1, 32, size, size), 0.5))
    image = module(x, torch.from_numpy(rule.seeded("ws", (1, 14, 512))))[0]
    assert image.shape == (3, side, side)
    step = side // 16
    close(name, image[:, 1::step, 2::step], reference[f"sr_{name}"], 3e-5)


@pytest.mark.parametrize("name", rule.GENERATORS)
def test_generator(name, generators, reference):
    """Mapping, volume and final image, from a record; the random numbers by rule."""
    model, c = generators[name], torch.from_numpy(rule.cameras(name))
    ws = model.mapping(torch.from_numpy(rule.seeded("z", (2, 512))), c, 0.7, 8)
    close("ws", ws[:, ::5, ::16], reference[f"{name}_ws"], 1e-5)
    views = model.render(model.planes(ws), c, ws)
    close("raw", views.raw, reference[f"{name}_raw"], 5e-5)
    close("opacity", views.opacity, reference[f"{name}_opacity"], 5e-5)
    solid = reference[f"{name}_opacity"] > 0.01
    close("depth", views.depth[solid], reference[f"{name}_depth"][solid], 1e-4)
    close("depth of all", views.depth, reference[f"{name}_depth"], 1e-2)
    step = model.config.image_resolution // 16
    close("image", views.image[:, :, 1::step, 2::step], reference[f"{name}_image"], 1e-4)


@pytest.mark.parametrize("name", rule.GENERATORS)
def test_seeded_numbers_mean_what_the_original_means(name, generators, reference):
    """Given the numbers that our seeded mode draws, the original makes our image."""
    model, c = generators[name], torch.from_numpy(rule.cameras(name))
    ws = model.mapping(torch.from_numpy(rule.seeded("z", (2, 512))), c, 0.7, 8)
    views = model.render(model.planes(ws), c, seed=rule.SEED)
    close("raw", views.raw, reference[f"{name}_seeded_raw"], 5e-5)
    opacity, depth = reference[f"{name}_seeded_opacity"], reference[f"{name}_seeded_depth"]
    close("depth", views.depth[opacity > 0], depth[opacity > 0], 1e-2)
    close("solid depth", views.depth[opacity > 0.01], depth[opacity > 0.01], 1e-4)
    # Rays that meet nothing: the original takes the farthest sample of its whole batch.
    nothing = opacity == 0
    assert nothing.any()
    assert (depth[nothing] - views.depth[nothing]).max() > 0.01
    same = model.render(model.planes(ws), c, seed=rule.SEED, batch_depth=True)
    close("depth of nothing", same.depth[nothing], depth[nothing], 1e-5)
    assert torch.equal(same.depth[~nothing], views.depth[~nothing])
    calm = model.render(model.planes(ws), c), model.render(model.planes(ws), c, batch_depth=True)
    close("without jitter they are the same", calm[0].depth, calm[1].depth, 1e-5)


def test_a_seed_means_one_image_whatever_the_batch(generators):
    model, c = generators["cars"], torch.from_numpy(rule.cameras("cars"))
    ws = model.mapping(torch.from_numpy(rule.seeded("z", (2, 512))), c)
    planes = model.planes(ws)

    def image(seed: int | None, rows: slice = slice(None)) -> torch.Tensor:
        return model.render(planes[rows], c[rows], ws[rows], resolution=16, seed=seed).image

    assert torch.equal(image(1), image(1))
    assert (image(1) - image(2)).abs().max() > 1e-3
    assert (image(1) - image(None)).abs().max() > 1e-3
    for seed in (1, None):
        together = image(seed)
        for row in range(2):
            alone = image(seed, slice(row, row + 1))[0]
            torch.testing.assert_close(alone, together[row], atol=2e-5, rtol=0)


def test_random_super_resolution_noise_is_seeded(generators):
    """A model that wants fresh noise gets it from the seed, sample by sample; without a seed its
    stored maps, so that a view of a head does not flicker."""
    record = rule.record("cars")
    record["rendering_kwargs"]["superresolution_noise_mode"] = "random"
    config = config_from_record(record)
    assert config.superresolution.noise == "random"
    model = generators["cars"]
    quiet = model.superresolution
    module = SuperResolution(32, 512, config.superresolution)
    module.load_state_dict(quiet.state_dict())
    x, ws = torch.randn(2, 32, 64, 64), torch.randn(2, 14, 512)

    def drawn(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    one = module(x, ws, drawn(1, 1))
    assert torch.equal(one, module(x, ws, drawn(1, 1)))
    assert (one - module(x, ws, drawn(2, 2))).abs().max() > 1e-3
    torch.testing.assert_close(module(x[1:], ws[1:], drawn(1))[0], one[1], atol=1e-4, rtol=1e-4)
    assert torch.equal(module(x, ws), module(x, ws))
    assert (quiet(x, ws) - module(x, ws)).abs().max() > 1e-3  # the published ones have none
    assert torch.equal(quiet(x, ws), quiet(x, ws, drawn(1, 2)))


def test_the_raw_image_is_not_spoilt(generators):
    """The original's super-resolutions that keep the size add to the raw image in place."""
    model, c = generators["cars"], torch.from_numpy(rule.cameras("cars"))[:1]
    planes = torch.randn(1, 3, 32, 32, 32)
    ws = torch.randn(1, model.num_ws, 512)
    with_image = model.render(planes, c, ws, resolution=64)
    assert torch.equal(with_image.raw, model.render(planes, c, resolution=64).raw)


def official() -> dict:
    """The record of the published FFHQ 512 file."""
    record = rule.record("cats")
    record["init_kwargs"] |= {"channel_base": 32768, "channel_max": 512}
    record["rendering_kwargs"] |= {
        "superresolution_module": rule.MODULE + "8XDC",
        "decoder_lr_mul": 1.0,
        "avg_camera_pivot": [0, 0, 0.2],
    }
    return record | {"neural_rendering_resolution": 128, "metres_per_unit": None}


def test_published_records():
    assert config_from_record(official()) == FFHQ512
    cars = config_from_record(rule.record("cars"))
    assert cars.field.white_background and cars.field.box == 1.6
    assert cars.field.orbit_radius == 1.7 and cars.camera_focal == pytest.approx(1.7074)
    assert (cars.field.rays.near, cars.field.rays.far) == (0.1, 2.6)
    assert (cars.field.rays.coarse, cars.field.rays.fine) == (64, 64)
    assert cars.field.metres_per_unit == CAR_METRES
    assert cars.image_resolution == 128 and cars.camera_scale == 0
    cats = config_from_record(rule.record("cats"))
    assert cats.field.metres_per_unit == CAT_METRES and cats.image_resolution == 512
    assert cats.field.orbit_pivot == (0, 0, -0.06) and cats.decoder_lr_multiplier == 0.5
    old = config_from_record(rule.record("old256"))
    assert old.camera_scale == 0  # c_scale is missing, and the original takes 0 then
    assert old.clamp == 1.5 and old.superresolution.clamp is None and old.mapping_layers == 3
    assert old.field.metres_per_unit == FACE_METRES and old.image_resolution == 256
    given = official() | {"metres_per_unit": 0.5, "neural_rendering_resolution": 64}
    assert config_from_record(given) == dataclasses.replace(
        FFHQ512,
        field=dataclasses.replace(FFHQ512.field, metres_per_unit=0.5),
        neural_resolution=64,
    )


def test_what_a_record_leaves_out():
    """The original's defaults: eight mapping layers, clamped blocks, 64 pixels, no camera."""
    record = official()
    for name in ("conv_clamp", "mapping_kwargs", "sr_num_fp16_res", "channel_base"):
        del record["init_kwargs"][name]
    for name in ("c_scale", "avg_camera_pivot", "avg_camera_radius", "decoder_lr_mul"):
        del record["rendering_kwargs"][name]
    del record["neural_rendering_resolution"]
    config = config_from_record(record)
    assert config.mapping_layers == 8 and config.clamp == 256
    assert config.superresolution.clamp is None and config.neural_resolution == 64
    assert config.camera_scale == 0 and config.field.orbit_pivot == (0, 0, 0)
    assert config.field.orbit_radius == 2.7


@pytest.mark.parametrize(
    "place, change",
    [
        ("rendering_kwargs", {"disparity_space_sampling": True}),
        ("rendering_kwargs", {"ray_start": "auto", "ray_end": "auto"}),
        ("rendering_kwargs", {"ray_end": 1.0}),
        ("rendering_kwargs", {"clamp_mode": "relu"}),
        ("rendering_kwargs", {"superresolution_module": "mine.Superresolution16X"}),
        ("rendering_kwargs", {"superresolution_noise_mode": "loud"}),
        ("rendering_kwargs", {"depth_resolution": 0}),
        ("rendering_kwargs", {"depth_resolution": 1e9}),
        ("rendering_kwargs", {"box_warp": float("nan")}),
        ("rendering_kwargs", {"avg_camera_pivot": [0, 0]}),
        ("rendering_kwargs", {"avg_camera_pivot": "centre"}),
        ("init_kwargs", {"img_resolution": 256}),
        ("init_kwargs", {"img_channels": 4}),
        ("init_kwargs", {"w_dim": 512.5}),
        ("init_kwargs", {"z_dim": None}),
        ("init_kwargs", {"c_dim": 7}),
        ("init_kwargs", {"architecture": "resnet"}),
        ("init_kwargs", {"mapping_kwargs": {"layer_features": 64}}),
        ("init_kwargs", {"mapping_kwargs": 2}),
        ("", {"system": "other"}),
        ("", {"init_kwargs": None}),
        ("", {"plane_axes": [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]] * 2}),
        ("", {"plane_axes": [[[1, 0, 0], [0, 1, 0], [1, 1, 0]]] * 3}),
        ("", {"metres_per_unit": -1}),
        ("", {"neural_rendering_resolution": "128"}),
    ],
)
def test_what_is_not_supported_is_said_in_a_sentence(place, change):
    record = copy.deepcopy(official())
    (record[place] if place else record).update(change)
    with pytest.raises(WeightsError) as caught:
        config_from_record(record)
    assert caught.value.sentence.endswith(".") and len(caught.value.sentence) < 120


def test_planes_of_another_layout():
    """Plane axes come from the record, as nested lists."""
    axes = [[[0, 1, 0], [1, 0, 0], [0, 0, 1]]] * 3
    config = config_from_record(official() | {"plane_axes": axes})
    assert isinstance(config, EG3DConfig) and config.field.plane_axes[2][0] == (0, 1, 0)
