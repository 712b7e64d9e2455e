"""The LRM family's networks: sizes of every published configuration, positions, number types."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lrm_fixtures import SMALL, seeded_network

from engine.errors import Cancelled
from engine.networks.products import ROWS, attend, by_rows
from engine.networks.vit import resized_positions
from engine.systems.lrm.config import CONFIGS
from engine.systems.lrm.networks import network_of

# Millions of numbers. Of the published files' sizes (446 MB, 1.04 GB, 1.81 GB, 1.68 GB) or counted.
MILLIONS = {
    "triposr": 419,
    "openlrm-small-1.1": 111,
    "openlrm-base-1.1": 260,
    "openlrm-large-1.1": 452,
    "lrm": 450,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_sizes(name):
    with torch.device("meta"):
        network = network_of(CONFIGS[name])
    count = sum(tensor.numel() for tensor in network.state_dict().values())
    assert count / 1e6 == pytest.approx(MILLIONS[name], rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_makes_planes(name):
    """On no memory at all: shapes only."""
    config = CONFIGS[name]
    with torch.device("meta"):
        network = network_of(config)
        images = torch.zeros(1, 3, config.input_size, config.input_size)
        camera = torch.zeros(1, config.camera_numbers) if config.camera_numbers else None
        planes = network(images, camera)
    assert planes.shape == (1, 3, config.channels, 64, 64)


@pytest.mark.parametrize("name", SMALL)
def test_low_precision_stays_close(name):
    config = SMALL[name]
    network = seeded_network(config)
    images = torch.rand(1, 3, config.input_size, config.input_size)
    wanted = network(images)
    low = network.low_precision_names()
    state = {k: v.bfloat16() if k in low else v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    planes = network(images)
    assert planes.dtype == torch.float32
    assert 0 < (planes - wanted).std() / wanted.std() < 0.02


def test_what_is_kept_between_pictures_follows_the_weights():
    network, other = seeded_network(SMALL["triposr"]), seeded_network(SMALL["triposr"], 1)
    tokens = torch.rand(1, 20, 64)
    with torch.no_grad():
        first = network.plane_tokens(tokens)
        assert torch.equal(network.plane_tokens(tokens), first)
        network.load_state_dict(other.state_dict())
        torch.testing.assert_close(network.plane_tokens(tokens), other.plane_tokens(tokens))
    network.requires_grad_(True)
    network.plane_tokens(tokens).sum().backward()
    assert network.tokenizer.embeddings.grad.abs().max() > 0


def test_attention_far_below_its_bound():
    """One key much longer than the others, and queries that look away from it."""
    q, k, v = torch.randn(1, 300, 32), torch.randn(1, 300, 32), torch.randn(1, 300, 32)
    k[0, 7] = 300.0
    q -= q.mean(2, keepdim=True)
    q -= 2.0
    wanted = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
    with torch.no_grad():
        low = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), 1)
    assert torch.isfinite(low).all()
    torch.testing.assert_close(low.float(), wanted, atol=0.05, rtol=0.05)


def test_cancelling():
    network = seeded_network(SMALL["triposr"])
    calls = []

    def stop_later() -> None:
        calls.append(1)
        if len(calls) == 4:  # two layers of the encoder, two of the decoder
            raise Cancelled()

    with pytest.raises(Cancelled):
        network(torch.rand(1, 3, 512, 512), check=stop_later)


def test_pictures_of_a_batch_do_not_know_each_other():
    config = SMALL["openlrm"]
    network = seeded_network(config)
    images = torch.rand(2, 3, config.input_size, config.input_size)
    together = network(images)
    torch.testing.assert_close(network(images[1:])[0], together[1], atol=1e-4, rtol=1e-4)


def test_openlrm_asks_for_the_camera():
    network = seeded_network(SMALL["openlrm"])
    tokens = network.image_tokens(torch.rand(1, 3, 224, 224))
    assumed = network.plane_tokens(tokens)
    torch.testing.assert_close(network.plane_tokens(tokens, network.input_camera()), assumed)
    nearer = network.input_camera()
    nearer[0, 7] = -1.0
    assert (network.plane_tokens(tokens, nearer) - assumed).abs().max() > 1e-3


def test_planes_are_the_published_transposed_convolution():
    network = seeded_network(SMALL["triposr"])
    n, width = network.config.plane_size, network.config.width
    tokens = torch.randn(2, 3 * n * n, width)
    layer = network.post_processor.upsample
    wanted = layer(tokens.view(6, n, n, width).permute(0, 3, 1, 2)).view(2, 3, -1, 2 * n, 2 * n)
    torch.testing.assert_close(network.planes(tokens), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keys", [1, 64, 300])
def test_attention(keys):
    q, k, v = torch.randn(2, 70, 96), torch.randn(2, keys, 96), torch.randn(2, keys, 96)
    parts = [t.unflatten(-1, (3, 32)).transpose(1, 2) for t in (q, k, v)]
    shares = (parts[0] @ parts[1].transpose(-1, -2) / 32**0.5).softmax(-1)
    wanted = (shares @ parts[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(q, k, v, 3), wanted, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        low = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), 3)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), wanted, atol=0.03, rtol=0.03)


def test_wide_layers_by_rows():
    """In pieces, none longer than said, and the same numbers; whole where gradients are wanted."""
    lengths = []

    def layers(x):
        lengths.append(x.shape[1])
        return F.gelu(x) * 2

    x = torch.randn(2, 2 * ROWS + 5, 3)
    with torch.no_grad():
        torch.testing.assert_close(by_rows(layers, x), F.gelu(x) * 2)
    assert lengths == [ROWS, ROWS, 5]
    by_rows(layers, x)
    assert lengths[3:] == [x.shape[1]]


def test_positions_are_sampled_at_the_scale_factor():
    """Not at the ratio of the sizes, where there is an offset."""
    table = torch.randn(1, 1 + 14 * 14, 8)
    assert resized_positions(table, 14, 0.1) is table
    made = resized_positions(table, 32, 0.1)
    assert made.shape == (1, 1 + 32 * 32, 8) and torch.equal(made[:, 0], table[:, 0])
    square = table[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    by_size = F.interpolate(square, (32, 32), mode="bicubic").flatten(2).transpose(1, 2)
    difference = (made[:, 1:] - by_size).abs().max()
    assert 0.01 < difference < 1
    torch.testing.assert_close(
        resized_positions(table, 28)[:, 1:],
        F.interpolate(square, (28, 28), mode="bicubic").flatten(2).transpose(1, 2),
        atol=1e-5,
        rtol=0,
    )
    smaller = resized_positions(torch.randn(1, 1 + 37 * 37, 8), 24, antialias=True)
    assert smaller.shape == (1, 577, 8)
