"""The head generator, its planes and decoder, the encoder, and the file that they come in."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.checkpoints.default import PATH, load_default
from engine.errors import WeightsError
from engine.networks.planes import FRONT_BACK, PlaneDecoder, sample_planes
from engine.portrait.perception import CLASSES, PerceptionNet
from engine.systems.head.model import AppearanceEncoder, HeadConfig, HeadGenerator, ResidualDown

SMALL = HeadConfig(
    w_dim=32,
    plane_resolution=16,
    plane_channels=6,
    channel_base=256,
    channel_max=32,
    decoder_width=16,
)


def columns(r: int) -> torch.Tensor:
    """The place in -1..1 of each pixel's centre."""
    return (torch.arange(r) + 0.5) * 2 / r - 1


@pytest.fixture(scope="module")
def generator() -> HeadGenerator:
    torch.manual_seed(0)
    return HeadGenerator(SMALL)


@pytest.mark.parametrize(
    ("plane", "across", "down", "share"),
    [(0, 0, 1, "front"), (1, 0, 1, "back"), (2, 2, 1, "all"), (3, 0, 2, "all")],
)
def test_which_axes_a_plane_spans(plane, across, down, share):
    """Each plane alone, with its column in channel 0 and its row in channel 1."""
    r = 12
    planes = torch.zeros(1, 4, 2, r, r)
    planes[0, plane, 0] = columns(r)[None]
    planes[0, plane, 1] = columns(r)[:, None]
    points = torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    points[:, 2] = torch.where(points[:, 2] > FRONT_BACK, points[:, 2] + 0.5, points[:, 2] - 0.5)
    points = points.clamp(-0.9, 0.9)
    got = sample_planes(planes, points[None])[0]
    expected = points[:, [across, down]] / 3
    front = points[:, 2:] > FRONT_BACK
    if share == "front":
        expected = expected * front
    elif share == "back":
        expected = expected * ~front
    assert torch.allclose(got, expected, atol=2e-3)


def test_front_hands_over_to_back_softly():
    planes = torch.zeros(1, 4, 1, 4, 4)
    planes[:, 0], planes[:, 1] = 1, -1
    z = torch.linspace(-1, 1, 201)
    points = torch.stack([torch.zeros(201), torch.zeros(201), z], 1)
    got = sample_planes(planes, points[None])[0, :, 0] * 3
    assert (got[1:] >= got[:-1]).all()
    assert got[0] == pytest.approx(-1, abs=1e-3) and got[-1] == pytest.approx(1, abs=1e-3)
    assert got[torch.argmin((z - FRONT_BACK).abs())].abs() < 0.05


def test_beyond_the_box_the_border_holds():
    planes = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    far = sample_planes(planes, torch.tensor([[[1.0, 1, 1], [5.0, 5, 5]]] * 2))
    assert torch.allclose(far[:, 0], far[:, 1])


def test_the_decoder_starts_from_the_priors_surface():
    torch.manual_seed(0)
    decoder = PlaneDecoder(6, 16)
    colour, residual = decoder(torch.randn(100, 6) * 5)
    assert colour.shape == (100, 3) and residual.shape == (100,)
    assert (residual == 0).all()
    assert -0.0011 < colour.min() and colour.max() < 1.0011
    assert colour.std() > 0.01


def test_shapes(generator):
    ws = torch.randn(2, generator.num_ws, SMALL.w_dim)
    planes = generator.planes(ws)
    assert planes.shape == (2, 4, 6, 16, 16)
    colour, residual = generator(planes, torch.rand(2, 50, 3) * 0.4 - 0.2)
    assert colour.shape == (2, 50, 3) and residual.shape == (2, 50)
    assert generator.w_avg.shape == ws.shape[1:]


def test_points_are_in_metres(generator):
    with torch.no_grad():
        planes = generator.planes(torch.randn(1, generator.num_ws, SMALL.w_dim))
        p = torch.rand(1, 30, 3) * 0.4 - 0.2
        colour, _ = generator(planes, p)
        expected, _ = generator.decoder(sample_planes(planes, p / 0.2))
    assert torch.equal(colour, expected)


def test_the_same_code_gives_the_same_planes(generator):
    ws = torch.randn(1, generator.num_ws, SMALL.w_dim)
    with torch.no_grad():
        assert torch.equal(generator.planes(ws), generator.planes(ws))
        assert not torch.equal(generator.planes(ws), generator.planes(ws + 0.1))


def test_gradients_reach_everything(generator):
    """Every parameter and every row of w+ learns from colour and residual."""
    ws = torch.randn(1, generator.num_ws, SMALL.w_dim, requires_grad=True)
    points = torch.rand(1, 400, 3) * 0.4 - 0.2
    colour, residual = generator(generator.planes(ws), points)
    (colour.square().sum() + (residual - 0.1).square().sum()).backward()
    assert (ws.grad.abs().amax(2) > 0).all()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    generator.zero_grad()


def test_encoder():
    torch.manual_seed(0)
    encoder = AppearanceEncoder(7, 24)
    x = torch.randn(3, 4, 128, 128)
    ws = encoder(x)
    assert ws.shape == (3, 7, 24)
    assert torch.equal(ws[:, 0], ws[:, -1])  # untrained: one w for all rows
    assert torch.allclose(ws[:, 0].square().mean(1), torch.ones(3), atol=1e-3)
    ws.square().sum().backward()
    assert encoder.to_offsets.weight.grad.abs().max() > 0
    assert encoder.down[0].a.weight.grad.abs().max() > 0


def test_residual_down_halves():
    block = ResidualDown(4, 8)
    assert block(torch.randn(2, 4, 20, 12)).shape == (2, 8, 10, 6)


def test_configurations_survive_json():
    assert HeadConfig(**json.loads(json.dumps(SMALL.to_json()))) == SMALL


@pytest.fixture(scope="module")
def shipped() -> tuple[dict, dict]:
    """Tensors and metadata of the shipped file."""
    with safe_open(str(PATH), "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata()


def test_the_shipped_model_is_whole():
    model = load_default()
    head = HeadConfig(**model.config["head"])
    assert model.generator.config == head
    assert model.config["widen"] >= 1
    half = model.space.bounds[1, 0]
    assert torch.allclose(model.space.bounds, torch.tensor([[-1.0] * 3, [1.0] * 3]) * half)
    assert half == pytest.approx(head.box)
    for net in (model.generator, model.encoder, model.perception):
        assert not net.training
        for name, value in net.state_dict().items():
            assert torch.isfinite(value).all(), name
            assert value.dtype == torch.float32, name
        assert not any(p.requires_grad for p in net.parameters())
    with torch.no_grad():
        seen = model.perception(torch.zeros(1, 3, 128, 128))
        ws = model.encoder(torch.zeros(1, 4, 128, 128))
        planes = model.generator.planes(ws)
    assert seen.classes.shape == (1, len(CLASSES), 128, 128)
    assert seen.identity.shape[1] == len(model.space.identity)
    assert seen.hair.shape[1] == model.space.styles
    size = head.plane_resolution * (2 if head.fine_channels else 1)
    assert planes.shape[1:] == (4, head.plane_channels, size, size)


def test_it_is_loaded_once():
    assert load_default() is load_default()


def test_perception_shapes():
    net = PerceptionNet(5, 3, 9)
    seen = net(torch.randn(2, 3, 128, 128))
    assert seen.landmarks.shape == (2, 84, 2) and seen.spread.shape == (2, 84)
    assert 0 < seen.landmarks.min() and seen.landmarks.max() < 1
    assert seen.pose.shape == (2, 6) and seen.hair.shape == (2, 9)


def rewritten(tmp_path, shipped, change):
    tensors, metadata = dict(shipped[0]), dict(shipped[1])
    change(tensors, metadata)
    path = tmp_path / "head.safetensors"
    save_file(tensors, path, metadata)
    return path


def without_config(tensors, metadata):
    del metadata["model"]


def broken_config(tensors, metadata):
    metadata["model"] = "{"


def other_size(tensors, metadata):
    config = json.loads(metadata["model"])
    config["head"]["w_dim"] *= 2
    metadata["model"] = json.dumps(config)


def unknown_setting(tensors, metadata):
    config = json.loads(metadata["model"])
    config["head"]["colour"] = "blue"
    metadata["model"] = json.dumps(config)


def without_encoder(tensors, metadata):
    for name in [n for n in tensors if n.startswith("encoder.")]:
        del tensors[name]


def without_a_weight(tensors, metadata):
    del tensors[next(n for n in tensors if n.startswith("generator."))]


def without_the_mean(tensors, metadata):
    del tensors["space.mean"]


@pytest.mark.parametrize(
    "change",
    [
        without_config,
        broken_config,
        other_size,
        unknown_setting,
        without_encoder,
        without_a_weight,
        without_the_mean,
    ],
    ids=lambda f: f.__name__,
)
def test_weights_that_do_not_fit_are_refused(tmp_path, shipped, change):
    with pytest.raises(WeightsError):
        load_default(rewritten(tmp_path, shipped, change))


def test_damaged_and_missing_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        load_default(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(PATH.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_default(cut)
