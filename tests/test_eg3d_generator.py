"""The EG3D-type generator at a small size, and the official one's layout."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sampling_fixtures import TINY

from engine import cameras
from engine.errors import WeightsError
from engine.fields.triplane import TriplaneField
from engine.render.volume import RaySettings
from engine.systems.eg3d.config import FFHQ512, SuperResolutionConfig
from engine.systems.eg3d.generator import EG3DGenerator

SMALL = dataclasses.replace(
    TINY,
    # Fields show nothing beyond their bounds, generators do: a negative trim cuts nothing off.
    field=dataclasses.replace(TINY.field, rays=RaySettings(2.25, 3.3, 12, 12), trim=-1.0),
    plane_resolution=16,
    channel_max=16,
    neural_resolution=8,
    superresolution=SuperResolutionConfig(input_resolution=8, channels=(8, 4)),
)


@pytest.fixture
def generator() -> EG3DGenerator:
    torch.manual_seed(0)
    model = EG3DGenerator(SMALL)
    with torch.no_grad():
        model.decoder.net[2].bias[0] = 8.0  # dense enough to be seen
    return model


def front(n: int = 1) -> torch.Tensor:
    views = [cameras.orbit(0.2 * i, 0.1, 2.7, 0.234).to_eg3d() for i in range(n)]
    return torch.from_numpy(np.stack(views))


def test_shapes(generator):
    ws = generator.mapping(torch.randn(2, 16), front(2))
    assert ws.shape == (2, generator.num_ws, 16)
    planes = generator.planes(ws)
    assert planes.shape == (2, 3, 4, 16, 16)
    views = generator.render(planes, front(2), ws)
    assert views.image.shape == (2, 3, 32, 32) and SMALL.image_resolution == 32
    assert views.raw.shape == (2, 3, 8, 8) and views.features.shape == (2, 4, 8, 8)
    assert views.depth.shape == views.opacity.shape == (2, 8, 8)
    assert views.opacity.max() > 0.5
    assert views.features.min() >= -1.01 and views.features.max() <= 1.01
    assert torch.equal(generator(ws, front(2)), views.image)
    assert torch.equal(generator.render(planes, front(2)).image, views.raw)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_sample_does_not_depend_on_its_batch(generator, seed):
    ws, c = generator.mapping(torch.randn(3, 16), front(3)), front(3)
    whole = generator.render(generator.planes(ws), c, ws, seed=seed)
    one = generator.render(generator.planes(ws[1:2]), c[1:2], ws[1:2], seed=seed)
    for name in ("image", "raw", "features", "depth", "opacity"):
        torch.testing.assert_close(
            getattr(one, name)[0], getattr(whole, name)[1], atol=2e-4, rtol=1e-4
        )


def test_gradients_reach_weights_code_and_camera(generator):
    ws = generator.mapping(torch.randn(1, 16), front()).detach().requires_grad_()
    c = front().requires_grad_()
    generator(ws, c).square().mean().backward()
    assert ws.grad.abs().sum() > 0
    assert c.grad[0, :12].abs().sum() > 0 and c.grad[0, 16] != 0
    missing = [n for n, p in generator.named_parameters() if p.grad is None]
    # Only the mapping, which was cut off, and super-resolution's noise, which is never added.
    assert all("mapping" in n or "superresolution" in n and "noise" in n for n in missing)


def test_the_field_is_what_the_generator_renders(generator):
    ws = generator.mapping(torch.randn(1, 16), front())
    planes = generator.planes(ws)
    field = generator.field(planes[0])
    assert isinstance(field, TriplaneField)
    camera = cameras.from_eg3d(front()[0].numpy(), 8, 8)
    view = field.render(camera)
    raw = generator.render(planes, front()).raw[0].permute(1, 2, 0)
    torch.testing.assert_close(view.image, ((raw + 1) / 2).clamp(0, 1), atol=1e-4, rtol=0)


def test_camera_scale_zero_hides_the_camera():
    torch.manual_seed(1)
    model = EG3DGenerator(dataclasses.replace(SMALL, camera_scale=0.0))
    z = torch.randn(1, 16)
    assert torch.equal(model.mapping(z, front()), model.mapping(z, -front()))


def test_the_official_layout():
    """177 tensors, 31 M numbers, 14 rows of w; spot checks of names and shapes."""
    with torch.device("meta"):
        model = EG3DGenerator(FFHQ512)
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(state) == 177 and model.num_ws == 14 and FFHQ512.image_resolution == 512
    assert state["backbone.synthesis.b4.const"] == (512, 4, 4)
    assert state["backbone.synthesis.b256.conv0.weight"] == (128, 256, 3, 3)
    assert state["backbone.synthesis.b256.torgb.weight"] == (96, 128, 1, 1)
    assert state["backbone.synthesis.b128.conv1.noise_const"] == (128, 128)
    assert state["backbone.mapping.fc0.weight"] == (512, 1024)
    assert state["backbone.mapping.embed.weight"] == (512, 25)
    assert state["superresolution.block0.conv0.weight"] == (256, 32, 3, 3)
    assert state["superresolution.block1.conv0.noise_const"] == (512, 512)
    assert state["superresolution.block1.torgb.affine.weight"] == (128, 512)
    assert state["decoder.net.0.weight"] == (64, 32) and state["decoder.net.2.bias"] == (33,)
    assert state["dataset_label_std"] == (25,)


def test_official_weights_are_taken_strictly(generator):
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    other = EG3DGenerator(SMALL)
    del state["dataset_label_std"]
    other.load_official(state)
    ws = generator.mapping(torch.randn(1, 16), front())
    torch.testing.assert_close(other.planes(ws), generator.planes(ws))
    key = "backbone.synthesis.b8.conv0.weight"
    for change in (
        {key: None},
        {"backbone.synthesis.b8.conv9.weight": torch.zeros(1)},
        {key: state[key][:-1]},
        {"backbone.synthesis.b8.conv0.resample_filter": torch.full((4, 4), 1 / 16)},
    ):
        wrong = {k: v for k, v in {**state, **change}.items() if v is not None}
        with pytest.raises(WeightsError):
            other.load_official(wrong)


def test_a_generator_without_super_resolution_or_camera():
    torch.manual_seed(2)
    model = EG3DGenerator(dataclasses.replace(SMALL, superresolution=None, c_dim=0))
    ws = model.mapping(torch.randn(1, 16))
    assert model(ws, front()).shape == (1, 3, 8, 8)
    assert model.config.image_resolution == 8
    assert not [k for k in model.state_dict() if "superresolution" in k or "label" in k]
