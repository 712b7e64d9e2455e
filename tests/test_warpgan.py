"""SVINet: its layers against direct computations, its layout against the published one, what it may
change in a view, and that the shipped weights are worth having."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.errors import WeightsError
from engine.networks.ffc import (
    FFC,
    FourierUnit,
    SpectralTransform,
    StyleConv,
    from_spectrum,
    to_spectrum,
)
from engine.systems.warpgan.config import PUBLISHED, SMALL, SvinetConfig
from engine.systems.warpgan.inpaint import inpaint, load_svinet
from engine.systems.warpgan.network import SviNet
from engine.systems.warpgan.open import KEY, open_published

TINY = SvinetConfig(width=8, blocks=1)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def views(count: int = 1, size: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs of inpaint()."""
    r = torch.Generator().manual_seed(seed)
    three = {k: torch.rand(count, 3, size, size, generator=r)
             for k in ("warped", "render", "mirror")}  # fmt: skip
    one = {k: torch.rand(count, 1, size, size, generator=r) for k in ("visible", "mirror_visible")}
    return three | one | {"ws": torch.randn(count, 12, SMALL.style_dim, generator=r)}


def test_spectrum_is_numpys_and_comes_back():
    x = numbers(2, 3, 8, 10)
    y = to_spectrum(x)
    direct = np.fft.rfft2(x.numpy(), norm="ortho")
    np.testing.assert_allclose(y[:, 0::2].numpy(), direct.real, atol=1e-5)
    np.testing.assert_allclose(y[:, 1::2].numpy(), direct.imag, atol=1e-5)
    torch.testing.assert_close(from_spectrum(y, 8, 10), x, atol=1e-5, rtol=0)


def test_a_fourier_unit_is_a_global_convolution():
    """Without the non-linearity a 1x1 convolution of the spectrum is a circular convolution."""
    torch.manual_seed(0)
    unit = FourierUnit(1, 1).eval()
    with torch.no_grad():
        unit.conv_layer.weight.copy_(torch.tensor([[0.5, 0.0], [0.0, 0.5]])[..., None, None])
        unit.bn.bias.fill_(100.0)  # nothing is cut off
        x = numbers(1, 1, 8, 8)
        got = unit(x) - unit(torch.zeros_like(x))
    torch.testing.assert_close(got, 0.5 * x / (1 + 1e-5) ** 0.5, atol=1e-4, rtol=0)


def test_spectral_transform_equals_a_direct_computation():
    torch.manual_seed(0)
    net = SpectralTransform(6, 8).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    x = numbers(2, 6, 6, 8)
    with torch.no_grad():
        got = net(x).numpy()
        conv, norm, _ = net.conv1
        a = np.einsum("oi,bihw->bohw", conv.weight[..., 0, 0].numpy(), x.numpy())
        a = np.maximum(_normed(a, norm), 0)
        s = np.fft.rfft2(a, norm="ortho")
        s = np.stack([s.real, s.imag], 2).reshape(2, 8, 6, 5)
        s = np.einsum("oi,bihw->bohw", net.fu.conv_layer.weight[..., 0, 0].numpy(), s)
        s = np.maximum(_normed(s, net.fu.bn), 0).reshape(2, 4, 2, 6, 5)
        f = np.fft.irfft2(s[:, :, 0] + 1j * s[:, :, 1], s=(6, 8), norm="ortho")
        want = np.einsum("oi,bihw->bohw", net.conv2.weight[..., 0, 0].numpy(), a + f)
    np.testing.assert_allclose(got, want, atol=1e-5)


def _normed(x: np.ndarray, norm: torch.nn.BatchNorm2d) -> np.ndarray:
    mean, var = norm.running_mean.numpy(), norm.running_var.numpy()
    return (x - mean[:, None, None]) / np.sqrt(var + norm.eps)[:, None, None]


@pytest.mark.parametrize("up", [1, 2])
def test_style_conv_is_the_modulated_and_demodulated_convolution(up):
    torch.manual_seed(0)
    net = StyleConv(4, 5, 3, 7, up=up)
    net.bias.data.normal_()
    x, w = numbers(2, 4, 6, 6), numbers(2, 7, seed=1)
    for k in range(2):
        style = w[k] @ net.conv.affine.weight.T / 7**0.5 + net.conv.affine.bias
        weight = net.conv.weight[0] / 36**0.5 * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up == 1:
            y = F.conv2d(x[k : k + 1], weight, padding=1)
        else:  # zeros between the pixels, the filter, then a plain correlation
            wide = torch.zeros(1, 4, 12, 12)
            wide[:, :, ::2, ::2] = x[k : k + 1]
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
            kernel = (4 * torch.outer(taps, taps)).expand(4, 1, 4, 4)
            # Filter and correlation commute but at the border, which is cut off below.
            y = F.conv2d(F.conv2d(wide, kernel, padding=2, groups=4)[..., :-1, :-1],
                         weight, padding=1)  # fmt: skip
        y = F.leaky_relu(y + net.bias[:, None, None], 0.2) * 2**0.5
        inner = slice(None) if up == 1 else slice(3, -3)
        got = net(x, w)[k : k + 1]
        torch.testing.assert_close(got[..., inner, inner], y[..., inner, inner],
                                   atol=1e-4, rtol=1e-4)  # fmt: skip


def test_ffc_splits_and_joins_channels():
    net = FFC(16, 16, 3, 0.75, 0.75, padding=1)
    local, broad = net((numbers(1, 4, 8, 8), numbers(1, 12, 8, 8)))
    assert local.shape == (1, 4, 8, 8) and broad.shape == (1, 12, 8, 8)
    local, broad = FFC(6, 16, 3, 0, 0.75, stride=2, padding=1)(numbers(1, 6, 8, 8))
    assert local.shape == (1, 4, 4, 4) and broad.shape == (1, 12, 4, 4)
    with pytest.raises(ValueError):
        FFC(16, 16, 3, 0.75, 0.75, stride=2)


def test_every_pixel_knows_the_whole_picture():
    """One changed corner reaches the other end through the global channels alone."""
    torch.manual_seed(0)
    net = FFC(16, 16, 3, 0.75, 0.75, padding=1).eval()
    local, broad = numbers(1, 4, 32, 32), numbers(1, 12, 32, 32, seed=1)
    other = broad.clone()
    other[:, :, 0, 0] += 5
    with torch.no_grad():
        (a, b), (c, d) = net((local, broad)), net((local, other))
    assert (b - d)[..., 20:, 20:].abs().max() > 1e-3
    assert (a - c)[..., 20:, 20:].abs().max() == 0


def test_published_layout():
    """As many tensors and parameters as the published network has, under its names."""
    with torch.device("meta"):
        net = SviNet(PUBLISHED)
    state = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert len(state) == 904
    assert sum(p.numel() for p in net.parameters()) == 51_064_012
    assert state["model_down.1.ffc.convl2l.weight"] == (64, 7, 7, 7)
    assert state["model_down.4.ffc.convl2g.weight"] == (384, 256, 3, 3)
    assert state["cond.condition_scale.0.ffc.convg2g.fu.conv_layer.weight"] == (384, 384, 1, 1)
    assert state["model_res.8.conv2.ffc.convg2l.conv.weight"] == (1, 128, 384, 3, 3)
    assert state["model_res.0.conv1.ffc.convg2g.fu.conv_layer.conv.affine.weight"] == (384, 512)
    assert state["model_up.2.conv0.conv.weight"] == (1, 64, 128, 3, 3)
    assert state["model_up.0.toRGB.conv.resample_filter"] == (4, 4)
    assert state["model_out.1.weight"] == (3, 64, 7, 7)


def fill(state: dict[str, torch.Tensor]) -> None:
    """Weights that a formula gives, so that two programs can have the same."""
    for name, t in state.items():
        if "resample" in name or "num_batches" in name:
            continue
        at = torch.arange(t.numel(), dtype=torch.float64)
        wave = torch.sin(0.7 * at + len(name)).reshape(t.shape).float()
        ones = "affine.bias", "bn_l.weight", "bn_g.weight", "bn.weight", "conv1.1.weight"
        if name.endswith("running_var"):
            wave = 1 + 0.5 * wave
        elif name.endswith(ones):
            wave = 1 + 0.2 * wave
        elif name.endswith(("bias", "running_mean")):
            wave = 0.1 * wave
        elif t.ndim == 4:
            wave = wave * t[0].numel() ** -0.5
        t.copy_(wave)


def test_the_same_numbers_as_the_published_code():
    """What WarpGAN's own program gives with fill()'s weights at width 8 and one block (run once on
    22 November 2026): 12 of its 3072 numbers."""
    net = SviNet(TINY).eval()
    n = 14 * 32 * 32
    x = 0.5 + 0.5 * torch.sin(0.11 * torch.arange(n, dtype=torch.float64))
    x = x.reshape(1, 14, 32, 32).float()
    ws = torch.cos(0.05 * torch.arange(14 * 512, dtype=torch.float64)).reshape(1, 14, 512).float()
    with torch.no_grad():
        fill(net.state_dict())
        got = net(x[:, :7], x[:, 7:], ws)[0][:, [0, 5, 16, 31], [31, 7, 16, 0]]
    want = [0.98384, 0.16756, 0.00895, 0.992, 0.00115, 0.83345, 0.99672, 0.00138, 0.88514, 0.47064,
            0.29438, 0.76185]  # fmt: skip
    torch.testing.assert_close(got.flatten(), torch.tensor(want), atol=2e-4, rtol=0)


def test_published_checkpoints_are_read_without_running_them(tmp_path):
    torch.manual_seed(0)
    net = SviNet(TINY)
    optimiser = torch.optim.Adam(net.parameters())
    whole = {KEY: net.state_dict(), "inpaintor_optimizer": optimiser.state_dict(), "step": 3}
    torch.save(whole, tmp_path / "net.pt")
    read = open_published(tmp_path / "net.pt", TINY).state_dict()
    assert all(torch.equal(v, read[k]) for k, v in net.state_dict().items())
    with pytest.raises(WeightsError, match="other sizes"):
        open_published(tmp_path / "net.pt", SvinetConfig(width=8, blocks=2))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="no inpainting network"):
        open_published(tmp_path / "other.pt", TINY)


def test_code_and_mirrored_photo_matter():
    torch.manual_seed(0)
    net = SviNet(TINY).eval()
    own, mirror, ws = (torch.rand(1, 7, 32, 32), torch.rand(1, 7, 32, 32), numbers(1, 14, 512))
    with torch.no_grad():
        first = net(own, mirror, ws)
        assert first.shape == (1, 3, 32, 32) and 0 <= first.min() and first.max() <= 1
        for row in range(9, 14):  # the last five rows are listened to, the others are not
            other = ws.clone()
            other[:, row] += 1
            assert (net(own, mirror, other) - first).abs().max() > 1e-4
        other = ws.clone()
        other[:, :9] += 1
        assert torch.equal(net(own, mirror, other), first)
        assert (net(own, mirror.flip(3), ws) - first).abs().max() > 1e-4


@pytest.fixture(scope="module")
def shipped() -> SviNet:
    net = load_svinet()
    yield net
    load_svinet.cache_clear()


def test_shipped_weights_are_small():
    from engine.systems.warpgan.inpaint import PATH

    assert PATH.stat().st_size < 10_000_000


def test_what_the_photo_shows_stays(shipped):
    given = views(2)
    given["visible"] = (given["visible"] > 0.5).float()
    given["warped"] = given["render"].lerp(given["warped"], given["visible"])
    got = inpaint(shipped, **given)
    seen = given["visible"].expand_as(got) == 1
    torch.testing.assert_close(got[seen], given["warped"][seen], atol=1e-6, rtol=0)
    assert (got - given["warped"])[~seen].abs().mean() > 1e-3
    assert 0 <= got.min() and got.max() <= 1


def test_nothing_is_painted_beside_the_head(shipped):
    given = views()
    for key in ("warped", "render", "mirror"):
        given[key][..., :20] = 0
    given["visible"][..., :20] = given["mirror_visible"][..., :20] = 0
    assert inpaint(shipped, **given)[..., :20].abs().max() == 0


def test_one_code_for_many_views_and_sizes_that_do_not_fit(shipped):
    given = views(2)
    one = given["ws"][:1]
    both = inpaint(shipped, **given | {"ws": one})
    same = inpaint(shipped, **given | {"ws": one.expand(2, -1, -1)})
    torch.testing.assert_close(both, same)
    with pytest.raises(ValueError, match="multiples"):
        inpaint(shipped, **views(1, 60))


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match="cannot be read"):
        load_svinet(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="another version"):
        load_svinet(tmp_path / "other.safetensors")
    load_svinet.cache_clear()
