"""StyleGAN2 layers against slow, literal versions of their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from engine.networks import resample
from engine.networks.stylegan2 import (
    FullyConnected,
    MappingNetwork,
    StyleGenerator,
    SynthesisBlock,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGB,
    normalise,
)


def stuffed(x: torch.Tensor) -> torch.Tensor:
    """Zeros between the pixels: the definition of up-sampling before its filter."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def filtered(x: torch.Tensor, before: int, after: int, gain: float) -> torch.Tensor:
    """[1, 3, 3, 1] filtering of every channel by itself, padded with zeros."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)[None, None] / 64 * gain
    x = F.pad(x, (before, after, before, after))
    return torch.cat([F.conv2d(x[:, i : i + 1], kernel) for i in range(x.shape[1])], 1)


def reference_layer(layer: SynthesisLayer, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """One sample at a time with weights of its own (the published fused form)."""
    styles = w @ layer.affine.weight.T / math.sqrt(w.shape[1]) + layer.affine.bias
    out = []
    for sample, style in zip(x, styles):
        weight = layer.weight * style[None, :, None, None]
        weight = weight / (weight.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        if layer.up == 2:
            # A true convolution of the stuffed image, hence the flip, then the filter.
            y = F.conv2d(F.pad(stuffed(sample[None]), (2, 1, 2, 1)), weight.flip(2, 3))
            y = filtered(F.pad(y, (0, 0, 0, 0)), 1, 1, 4.0)
        else:
            y = F.conv2d(sample[None], weight, padding=1)
        out.append(y)
    y = torch.cat(out)
    if layer.use_noise:
        y = y + layer.noise_const * layer.noise_strength
    y = F.leaky_relu(y + layer.bias[None, :, None, None], 0.2) * math.sqrt(2)
    return y if layer.clamp is None else y.clamp(-layer.clamp, layer.clamp)


def test_resampling_is_the_filter_on_a_stuffed_image():
    x = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resample.upsample(x), filtered(stuffed(x), 2, 1, 4.0))
    torch.testing.assert_close(resample.downsample(x), filtered(x, 1, 1, 1.0)[:, :, ::2, ::2])
    torch.testing.assert_close(resample.smooth(x, 2.0), filtered(x, 1, 1, 2.0))
    ones = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(resample.upsample(ones)[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("clamp", [None, 1.0])
def test_layer_equals_weights_per_sample(up, clamp):
    torch.manual_seed(1)
    layer = SynthesisLayer(6, 9, 16, 8 * up, up=up, clamp=clamp)
    layer.noise_strength.data.fill_(0.3)
    layer.bias.data.normal_()
    x, w = torch.randn(3, 6, 8, 8, requires_grad=True), torch.randn(3, 16, requires_grad=True)
    ours = layer(x, w)
    theirs = reference_layer(layer, x, w)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (ours.abs().max() <= 1.0) == (clamp is not None)
    direction = torch.randn_like(ours)
    inputs = [x, w, *layer.parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * direction).sum(), inputs),
        torch.autograd.grad((theirs * direction).sum(), inputs),
    ):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)


def test_torgb_is_not_demodulated():
    torch.manual_seed(2)
    layer = ToRGB(4, 3, 8)
    x, w = torch.randn(2, 4, 5, 5), torch.randn(2, 8)
    styles = layer.affine(w) / 2  # 1 / sqrt(4 channels)
    expected = torch.einsum("oi,bi,bihw->bohw", layer.weight[:, :, 0, 0], styles, x)
    torch.testing.assert_close(layer(x, w), expected)


def test_fully_connected_gains():
    torch.manual_seed(3)
    layer = FullyConnected(64, 32, activation="lrelu", lr_multiplier=0.01, bias_init=2.0)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.1)
    x = torch.randn(7, 64)
    plain = x @ (layer.weight.T * 0.01 / 8) + 0.02
    expected = torch.where(plain > 0, plain, 0.2 * plain) * math.sqrt(2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("layers", [1, 2, 8])
def test_mapping_conditioning_and_truncation(layers):
    torch.manual_seed(4)
    mapping = MappingNetwork(8, 25, 12, num_ws=5, num_layers=layers)
    z, c = torch.randn(3, 8), torch.randn(3, 25)
    ws = mapping(z, c)
    assert ws.shape == (3, 5, 12)
    assert (ws == ws[:, :1]).all()
    assert not torch.allclose(ws, mapping(z, -c))
    torch.testing.assert_close(mapping(10 * z, c), ws)  # z is normalised
    torch.testing.assert_close(mapping(z[1:2], c[1:2]), ws[1:2])
    mapping.w_avg.normal_()
    half = mapping(z, c, psi=0.5, cutoff=2)
    torch.testing.assert_close(half[:, :2], 0.5 * (mapping.w_avg + ws[:, :2]))
    assert torch.equal(half[:, 2:], ws[:, 2:])
    torch.testing.assert_close(mapping(z, c, psi=0.0), mapping.w_avg.expand(3, 5, 12))
    with pytest.raises(ValueError, match="25"):
        mapping(z)


def test_mapping_without_layers_is_the_normalised_input():
    z = torch.randn(2, 12)
    mapping = MappingNetwork(12, 0, 12, num_ws=3, num_layers=0)
    torch.testing.assert_close(mapping(z)[:, 1], normalise(z))
    torch.testing.assert_close(normalise(z).square().mean(1), torch.ones(2))
    with pytest.raises(ValueError, match="without layers"):
        MappingNetwork(8, 0, 12, num_ws=3, num_layers=0)


def test_average_w_moves_slowly_towards_the_batch():
    mapping = MappingNetwork(4, 0, 4, num_ws=1, num_layers=1)
    mapping.track_average(torch.tensor([[1.0] * 4, [3.0] * 4]), beta=0.75)
    torch.testing.assert_close(mapping.w_avg, torch.full((4,), 0.5))


def test_rows_of_w_reach_the_right_layers():
    """Each block's torgb shares the first row of the next block."""
    network = SynthesisNetwork(4, 16, 3, channel_base=64, channel_max=8)
    assert network.num_ws == 6
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, SynthesisLayer | ToRGB):
            module.register_forward_pre_hook(lambda m, args, n=name: seen.update({n: args[1]}))
    rows = torch.arange(6.0).view(1, 6, 1).expand(1, 6, 4)
    network(rows)
    assert {name: int(w[0, 0]) for name, w in seen.items()} == {
        "b4.conv1": 0,
        "b4.torgb": 1,
        "b8.conv0": 1,
        "b8.conv1": 2,
        "b8.torgb": 3,
        "b16.conv0": 3,
        "b16.conv1": 4,
        "b16.torgb": 5,
    }


def test_names_are_the_published_ones():
    network = SynthesisNetwork(4, 8, 3, channel_base=64, channel_max=8)
    generator = StyleGenerator(MappingNetwork(4, 25, 4, network.num_ws, 2), network)
    conv = ["weight", "bias", "noise_strength", "noise_const", "resample_filter"]
    conv += ["affine.weight", "affine.bias"]
    rgb = ["weight", "bias", "affine.weight", "affine.bias"]
    names = {"synthesis.b4.const"}
    for block, layers in {"b4": ["conv1"], "b8": ["conv0", "conv1"]}.items():
        names.add(f"synthesis.{block}.resample_filter")
        names |= {f"synthesis.{block}.torgb.{x}" for x in rgb}
        names |= {f"synthesis.{block}.{layer}.{x}" for layer in layers for x in conv}
    names.add("mapping.w_avg")
    names |= {f"mapping.{n}.{x}" for n in ("embed", "fc0", "fc1") for x in ("weight", "bias")}
    assert set(generator.state_dict()) == names


def test_noise_modes_and_seeds():
    torch.manual_seed(5)
    network = SynthesisNetwork(4, 8, 3, channel_base=64, channel_max=8)
    ws = torch.randn(2, network.num_ws, 4)
    torch.testing.assert_close(network(ws, "random"), network(ws, "none"))  # strengths start at 0
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.5)
    assert torch.equal(network(ws), network(ws, "const"))
    assert not torch.allclose(network(ws), network(ws, "none"))
    assert not torch.allclose(network(ws, "random"), network(ws, "random"))

    def seeded(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(s) for s in seeds]

    pair = network(ws, "random", seeded(1, 2))
    torch.testing.assert_close(network(ws[1:], "random", seeded(2)), pair[1:])
    assert not torch.allclose(network(ws[1:], "random", seeded(3)), pair[1:])
    with pytest.raises(ValueError, match="noise mode"):
        network(ws, "loud")


def test_without_noise_there_are_no_maps():
    network = SynthesisNetwork(4, 8, 3, channel_base=64, channel_max=8, use_noise=False)
    assert not [k for k in network.state_dict() if "noise" in k]
    ws = torch.randn(1, network.num_ws, 4)
    assert torch.equal(network(ws, "random"), network(ws, "none"))


def test_wrong_rows_and_sizes_are_refused():
    network = SynthesisNetwork(4, 8, 3, channel_base=64, channel_max=8)
    with pytest.raises(ValueError, match="ws must be"):
        network(torch.randn(1, network.num_ws + 1, 4))
    with pytest.raises(ValueError, match="power of two"):
        SynthesisNetwork(4, 24, 3)


def test_block_takes_no_image():
    """Super-resolution and encoders may start without an image so far."""
    block = SynthesisBlock(4, 6, 8, 16, 3, use_noise=False)
    x, rgb = block(torch.randn(1, 4, 8, 8), None, torch.randn(1, 3, 8))
    assert x.shape == (1, 6, 16, 16) and rgb.shape == (1, 3, 16, 16)


def test_bfloat16_autocast_forward_and_backward():
    torch.manual_seed(6)
    network = SynthesisNetwork(16, 16, 12, channel_base=512, channel_max=32, use_noise=False)
    ws = torch.randn(2, network.num_ws, 16)
    exact = network(ws)
    with torch.autocast("cpu", torch.bfloat16):
        image = network(ws)
    assert image.dtype == torch.float32
    assert (image - exact).abs().mean() < 0.03 * exact.abs().mean()
    image.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
