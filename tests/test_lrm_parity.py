"""TripoSR and OpenLRM against numbers of the original code (seeded weights, float32).

The packs lie beside the repository and are described in their README; without them these are
skipped. Tolerances are the packs'. The fast tests start at the stored planes and need the decoder's
tensors alone; the slow ones run the whole chain with all 419 and 260 million numbers.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import mcubes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from engine.cameras import Camera
from engine.fields.lrm import LrmField, LrmSettings
from engine.systems.lrm.config import OPENLRM_BASE, TRIPOSR
from engine.systems.lrm.networks import LrmNetwork, network_of
from engine.systems.lrm.open import resized

PARITY = Path(__file__).resolve().parents[2] / "shared" / "parity"
# The originals' axes -> ours, as rows: x to the object's left, y up, z towards the viewer.
TRIPOSR_AXES = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
OPENLRM_AXES = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])

pytestmark = pytest.mark.skipif(
    not (PARITY / "triposr" / "reference.npz").is_file(),
    reason=f"the parity packs are not there: {PARITY}",
)


@dataclass
class Pack:
    """A folder of the packs; field: made from the stored planes and the decoder's tensors."""

    name: str
    reference: dict[str, torch.Tensor]
    facts: dict
    settings: LrmSettings
    axes: torch.Tensor
    prefix: str

    def tensors(self, prefix: str) -> dict[str, torch.Tensor]:
        spec = importlib.util.spec_from_file_location("seeded", PARITY / "seeded_weights.py")
        seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(seeded)
        described = seeded.load_spec(PARITY / self.name)
        return {
            entry["key"]: torch.from_numpy(seeded.make(entry, described["seed"]))
            for entry in described["tensors"]
            if entry["key"].startswith(prefix)
        }

    def field(self) -> LrmField:
        made = self.tensors(self.prefix)
        numbers = sorted({int(name.split(".")[-2]) for name in made})
        layers = [
            (made[f"{self.prefix}{n}.weight"], made[f"{self.prefix}{n}.bias"]) for n in numbers
        ]
        planes = self.reference["scene_code" if self.name == "triposr" else "planes"]
        return LrmField(planes, layers, self.settings)

    def network(self) -> LrmNetwork:
        config = TRIPOSR if self.name == "triposr" else OPENLRM_BASE
        with torch.device("meta"):
            network = network_of(config)
        network.load_state_dict(self.tensors(""), strict=True, assign=True)
        return network.eval().requires_grad_(False)

    def picture(self) -> np.ndarray:
        return np.asarray(Image.open(PARITY / self.name / "input.png")).astype(np.float32) / 255


def pack(name: str, *rest) -> Pack:
    with np.load(PARITY / name / "reference.npz") as data:
        reference = {k: torch.from_numpy(data[k]) for k in data.files}
    facts = json.loads((PARITY / name / "facts.json").read_text())
    return Pack(name, reference, facts, *rest)


@pytest.fixture(scope="module")
def triposr() -> Pack:
    return pack("triposr", TRIPOSR.field, TRIPOSR_AXES, "decoder.layers.")


@pytest.fixture(scope="module")
def openlrm() -> Pack:
    return pack("openlrm", OPENLRM_BASE.field, OPENLRM_AXES, "synthesizer.decoder.net.")


@pytest.fixture(scope="module")
def triposr_field(triposr) -> LrmField:
    return triposr.field()


@pytest.fixture(scope="module")
def openlrm_field(openlrm) -> LrmField:
    return openlrm.field()


def close(name: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape, name
    difference = (ours.double() - theirs.double()).abs().max().item()
    print(f"{name}: max abs difference {difference:.2e} (tolerance {tolerance:.0e})")
    assert difference <= tolerance, f"{name}: {difference:.2e} > {tolerance:.0e}"


def camera(cam2world: np.ndarray, focal: float, axes: torch.Tensor, size: int = 64) -> Camera:
    """cam2world: OpenCV axes, in the original's world."""
    turned = np.eye(4)
    turned[:3, :3] = axes.numpy()
    k = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]])
    return Camera(turned @ cam2world, k, size, size)


def orbit(azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """TripoSR's cameras: azimuth 0 on +x, z up; angles in degrees."""
    a, e = np.radians([azimuth, elevation])
    away = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.cross(-away, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, -np.cross(right, -away), -away, distance * away], 1)
    return pose


def grid_points(radius: float, count: int, axes: torch.Tensor) -> torch.Tensor:
    line = torch.linspace(-radius, radius, count)
    return torch.cartesian_prod(line, line, line) @ axes.T


def check_mesh(field: LrmField, facts: dict, count: int = 128) -> None:
    """Marching cubes on the original's nodes, but only those looked at that our grid looks at."""
    low = torch.tensor([-field.settings.radius] * 3)
    step = 2 * field.settings.radius / (count - 1)
    values = field.grid(low, step, [count - 1] * 3, lambda: None)
    vertices, faces = mcubes.marching_cubes(values.numpy(), 0.0)
    assert len(vertices) == pytest.approx(facts["vertices"], rel=5e-3)
    assert len(faces) == pytest.approx(facts["faces"], rel=5e-3)


def test_triposr_points(triposr, triposr_field):
    reference = triposr.reference
    points = reference["points"] @ triposr.axes.T
    density, colours = triposr_field.query(points)
    close("point_log_density", density - 1, reference["point_log_density"], 5e-4)
    close("point_color", colours, reference["point_color"], 6e-5)
    close("value", triposr_field.value(points), density, 0)


@pytest.mark.parametrize("i", range(4))
def test_triposr_views(triposr, triposr_field, i):
    reference = triposr.reference
    seen_from = camera(orbit(90 * i, 15, 1.9), 0.5 / np.tan(np.radians(20)), triposr.axes)
    origin, directions = seen_from.rays()
    back = triposr.axes.double().numpy()
    close("ray_origins", torch.from_numpy(origin @ back), reference["ray_origins"][i], 1e-6)
    close(
        "ray_directions",
        torch.from_numpy(directions @ back)[4::9, 4::9],
        reference["ray_directions_stride9"][i],
        1e-6,
    )
    view = triposr_field.render(seen_from)
    close("views64", view.image + 1 - view.alpha[..., None], reference["views64"][i], 6e-5)


def test_triposr_mesh(triposr, triposr_field):
    check_mesh(triposr_field, triposr.facts["mesh128"])


def test_openlrm_points(openlrm, openlrm_field):
    reference, settings = openlrm.reference, openlrm.settings
    density, colours = openlrm_field.query(reference["points"] @ openlrm.axes.T)
    close("point_sigma_raw", density, reference["point_sigma_raw"], 3e-3)
    close("point_sigma", settings.density_of(density), reference["point_sigma"], 3e-3)
    close("point_rgb", colours, reference["point_rgb"], 1e-4)
    nodes = grid_points(1.0, 32, openlrm.axes).view(32, 32, 32, 3)[::2, ::2, ::2].reshape(-1, 3)
    sigma = settings.density_of(openlrm_field.value(nodes)).view(16, 16, 16)
    close("grid32_sigma", sigma, reference["grid32_sigma"], 3e-3)


@pytest.mark.parametrize("i", range(2))
def test_openlrm_views(openlrm, openlrm_field, i):
    reference = openlrm.reference
    numbers = reference["render_cameras"][i].double().numpy()
    to_opencv = np.diag([1.0, -1.0, -1.0, 1.0])  # its cameras look along -z
    seen_from = camera(numbers[:16].reshape(4, 4) @ to_opencv, numbers[16], openlrm.axes)
    view = openlrm_field.render(seen_from)
    image = (view.image + 1 - view.alpha[..., None]).permute(2, 0, 1)
    close("rgb", image, reference[f"view64_{i}_rgb"], 1e-4)
    close("weight", view.alpha, reference[f"view64_{i}_weight"], 3e-4)
    # Theirs is along the ray, and its farthest where nothing was met.
    along = torch.from_numpy(seen_from.rays()[1] @ seen_from.world2cam[2, :3])
    depth, theirs = view.depth / along, reference[f"view64_{i}_depth"]
    depth = torch.where(view.alpha > 0, depth, theirs.max())
    weight = reference[f"view64_{i}_weight"]
    solid = weight > 0.05
    close("depth", depth[solid], theirs[solid], 1e-3)
    # Weights of some 1e-7 are a few roundings of the exponential, which differ from processor to
    # processor; so does the original's own depth there.
    sure = (weight > 2e-6) | ((weight == 0) & (view.alpha == 0))
    assert sure.float().mean() > 0.95
    close("depth everywhere", depth[sure], theirs[sure], 1e-2)


def test_openlrm_mesh(openlrm, openlrm_field):
    check_mesh(openlrm_field, openlrm.facts["mesh128"])


@pytest.mark.slow
def test_triposr_from_the_picture(triposr):
    reference, network = triposr.reference, triposr.network()
    rgba = triposr.picture()
    grey = rgba[..., :3] * rgba[..., 3:] + 0.5 * (1 - rgba[..., 3:])
    grey = torch.from_numpy((grey * 255).astype(np.uint8)).float() / 255
    picture = resized(grey.permute(2, 0, 1)[None], TRIPOSR)
    close("resized", picture[0, :, 3::8, 5::8].permute(1, 2, 0), reference["resized_stride8"], 1e-5)
    larger = grey.repeat_interleave(3, 0).repeat_interleave(3, 1)
    larger = resized(larger.permute(2, 0, 1)[None], TRIPOSR)[0, :, 3::8, 5::8].permute(1, 2, 0)
    close("resized_tripled", larger, reference["resized_tripled_stride8"], 1e-5)
    positions = network.image_tokenizer.model.positions(32)[0, ::32]
    close("positions", positions, reference["position_embedding_stride32"], 1e-5)
    tokens = network.image_tokens(picture)
    close("image_tokens", tokens[0, ::8], reference["image_tokens_stride8"], 5e-5)
    planes = network.plane_tokens(tokens)
    close("backbone_tokens", planes[0, ::24], reference["backbone_tokens_stride24"], 2e-4)
    close("scene_code", network.planes(planes)[0], reference["scene_code"], 2e-4)


@pytest.mark.slow
def test_openlrm_from_the_picture(openlrm):
    reference, network = openlrm.reference, openlrm.network()
    rgba = torch.from_numpy(openlrm.picture()).permute(2, 0, 1)[None]
    picture = resized(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], OPENLRM_BASE)
    close("resized", picture[0, :, 3::8, 5::8], reference["resized_stride8"], 1e-5)
    positions = network.encoder.model.positions(24)[0, ::32]
    close("positions", positions, reference["position_embedding_stride32"], 1e-5)
    assert torch.equal(network.input_camera(), reference["source_camera"])
    vector = network.camera_embedder.mlp(reference["source_camera"])
    close("camera_embedding", vector[0], reference["camera_embedding"], 5e-5)
    tokens = network.image_tokens(picture)
    close("image_features", tokens[0, ::5], reference["image_features_stride5"], 5e-5)
    planes = network.plane_tokens(tokens)
    close("tokens", planes[0, ::24], reference["tokens_stride24"], 5e-5)
    close("planes", network.planes(planes)[0], reference["planes"], 1e-4)
    assert F.mse_loss(network.planes(planes)[0], reference["planes"]) < 1e-9
