"""The published EG3D FFHQ-512 configuration against numbers of the original code (seeded weights).

The pack lies beside the repository and is described in its README; without it these are skipped.
Tolerances are the pack's, in float32.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.systems.eg3d.config import FFHQ512
from engine.systems.eg3d.generator import EG3DGenerator

PARITY = Path(__file__).resolve().parents[2] / "shared" / "parity"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (PARITY / "eg3d" / "reference.npz").is_file(),
        reason=f"the parity pack is not there: {PARITY / 'eg3d'}",
    ),
]


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    with np.load(PARITY / "eg3d" / "reference.npz") as data:
        return {k: torch.from_numpy(data[k]) for k in data.files}


@pytest.fixture(scope="module")
def generator() -> EG3DGenerator:
    spec = importlib.util.spec_from_file_location("seeded", PARITY / "seeded_weights.py")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    state = seeded.state_dict(seeded.load_spec(PARITY / "eg3d"), as_torch=True)
    model = EG3DGenerator(FFHQ512).eval().requires_grad_(False)
    assert set(model.state_dict()) == set(state)
    model.load_official(state)
    return model


@pytest.fixture(scope="module")
def ws(generator, reference) -> torch.Tensor:
    return generator.mapping(reference["z"], reference["cond"], psi=0.7, cutoff=14)


@pytest.fixture(scope="module")
def planes(generator, ws) -> torch.Tensor:
    return generator.planes(ws)


def close(name: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape, name
    difference = (ours.double() - theirs.double()).abs().max().item()
    print(f"{name}: max abs difference {difference:.2e} (tolerance {tolerance:.0e})")
    assert difference <= tolerance, f"{name}: {difference:.2e} > {tolerance:.0e}"


def test_mapping(generator, reference, ws):
    full = generator.mapping(reference["z"], reference["cond"])
    close("w_psi1", full[:, 0], reference["w_psi1"], 1e-5)
    close("w_psi07", ws[:, 0], reference["w_psi07"], 1e-5)
    assert (ws == ws[:, :1]).all()
    cut = generator.mapping(reference["z"], reference["cond"], psi=0.5, cutoff=8)
    close("ws_psi05_cut8", cut, reference["ws_psi05_cut8"], 1e-5)


def test_planes(generator, reference, ws, planes):
    assert planes.shape == (1, 3, 32, 256, 256)
    flat = planes.flatten(1, 2)[0]
    close("planes_stride8", flat[:, 3::8, 5::8], reference["planes_stride8"], 3e-5)
    silent = generator.planes(ws, "none").flatten(1, 2)[0]
    close(
        "planes_nonoise_stride16",
        silent[:, 3::16, 5::16],
        reference["planes_nonoise_stride16"],
        3e-5,
    )


def test_points(generator, reference, planes):
    field = generator.field(planes[0])
    points = reference["points"]
    features = field.plane_features(points[::4]).transpose(1, 2)
    close("point_features", features, reference["point_features"], 3e-5)
    sigma, rgb = field.query(points)
    close("point_sigma", sigma, reference["point_sigma"], 6e-4)
    close("point_rgb", rgb, reference["point_rgb"], 3e-6)
    close("value", field.value(points), reference["point_sigma"], 6e-4)


def test_official_grid(generator, reference, planes):
    """The original's 128^3 grid, with its slight shear: x and y indices are not floored."""
    n = 128
    flat = torch.arange(n**3, dtype=torch.float64)
    index = torch.stack([(flat / n / n) % n, (flat / n) % n, flat % n], 1)
    points = (index / (n - 1) - 0.5).float()
    ends = torch.cat([points[:3], points[-3:]])
    close("grid128_first_last", ends, reference["grid128_first_last"], 1e-4)
    kept = points.view(n, n, n, 3)[1::4, 2::4, 3::4].reshape(-1, 3)
    sigma = generator.field(planes[0]).value(kept).view(32, 32, 32)
    close("grid128_sigma", sigma, reference["grid128_sigma_stride4"], 6e-4)


@pytest.mark.parametrize("i", range(4))
def test_views(generator, reference, ws, planes, i):
    views = generator.render(planes, reference["c"][i : i + 1], ws)
    close("raw", views.raw[0], reference[f"raw_{i}"], 5e-5)
    close("opacity", views.opacity[0], reference[f"opacity_{i}"], 5e-5)
    close("depth", views.depth[0], reference[f"depth_{i}"], 1e-2)
    solid = reference[f"opacity_{i}"] > 0.01
    close("solid depth", views.depth[0][solid], reference[f"depth_{i}"][solid], 5e-5)
    image = views.image[0]
    assert image.shape == (3, 512, 512)
    close("image", image[:, 1::4, 2::4], reference[f"image_{i}_stride4"], 6e-5)
    if i == 0:
        features = views.features[0, :, ::4, ::4]
        close("features", features, reference["features_0_stride4"], 5e-5)
        close("crop", image[:, 192:320, 192:320], reference["image_0_crop"], 6e-5)
        close("half image", image, reference["image_0_half"], 2e-3)


def test_neural_resolution_64(generator, reference, ws, planes):
    views = generator.render(planes, reference["c"][:1], ws, resolution=64)
    close("raw64", views.raw[0], reference["raw64_0"], 5e-5)
    close("depth64", views.depth[0], reference["depth64_0"], 1e-2)
    close("image64", views.image[0, :, 1::4, 2::4], reference["image64_0_stride4"], 6e-5)
