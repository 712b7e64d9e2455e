"""The light on what a photo does not show: clues from points whose light is known, and the network
that reads them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.errors import WeightsError
from engine.inversion import relight
from engine.inversion.appearance import Seen
from engine.training import train_relight
from engine.training.relight_data import from_arrays, to_arrays

SKIN = torch.tensor([0.55, 0.42, 0.35])
SUN = F.normalize(torch.tensor([1.0, 0.3, 0.6]), dim=0)


def sphere(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 3, generator=generator), dim=1)


def lit(normals: torch.Tensor, albedo: torch.Tensor = SKIN) -> torch.Tensor:
    """Colours in a light from the head's left and its front."""
    return albedo * (0.55 + 0.45 * normals @ SUN)[:, None]


def ball(light=lit, count: int = 3000, hair: float = 0.0) -> relight.Known:
    """A ball of one colour, evenly lit as the generator has it; the photo shows the front half, in
    a light of its own."""
    normals, points = sphere(count), 0.1 * sphere(count)
    front = normals[:, 2] > 0.2
    flat = 0.55 * SKIN.expand(count, 3)
    seen = Seen(
        points[front], light(normals[front]), torch.ones(int(front.sum())), torch.full((1, 1), -1)
    )
    covered = torch.full((count,), hair)
    return relight.Known(
        points, normals, flat, flat, covered, seen, normals[front], flat[front], covered[front]
    )


def test_normals_point_outwards_and_follow_the_warp():
    moved = torch.tensor([0.0, 0.03, 0.0])  # canonical space lies 3 cm higher
    field = SimpleNamespace(
        value=lambda points: 0.1 - points.norm(dim=1),
        warp=moved[:, None, None, None].expand(3, 8, 8, 8),
        bounds=torch.tensor([[-0.2] * 3, [0.2] * 3]),
    )
    directions = sphere(50)
    got = relight.normals(field, 0.1 * directions + moved)
    assert float((got * directions).sum(1).min()) > 0.995


def test_light_that_is_a_linear_function_of_the_normal_is_found():
    shown, wanted = sphere(2000), sphere(100, seed=1)
    shown = shown[shown[:, 2] > 0]
    values = torch.tensor([[0.2, -0.4]]) + shown @ torch.tensor([[0.5, 0.0], [0.1, 0.3], [-0.2, 1]])
    true = torch.tensor([[0.2, -0.4]]) + wanted @ torch.tensor([[0.5, 0.0], [0.1, 0.3], [-0.2, 1]])
    got = relight.light(values, shown, torch.ones(len(shown)), wanted)
    assert float((got - true).abs().max()) < 0.12  # the ridge's share
    # One direction only says nothing of others.
    same = torch.tensor([[0.0, 0.0, 1.0]]).repeat(50, 1)
    flat = relight.light(torch.full((50, 2), 0.7), same, torch.ones(50), wanted)
    assert torch.allclose(flat, torch.full((100, 2), 0.7), atol=1e-4)


@pytest.mark.parametrize("hair", [0.0, 1.0])
def test_clues_are_numbers_and_fill_their_columns(hair):
    told = relight.clues(ball(hair=hair))
    assert told.shape == (3000, relight.CLUES)
    assert torch.isfinite(told).all() and float(told.abs().max()) <= relight.FAR_OFF
    assert float(told.abs().amax(0).gt(0).float().mean()) > 0.5


def test_a_network_that_knows_nothing_leaves_what_was_expected():
    net, known = relight.Relight().eval(), ball()
    torch.nn.init.zeros_(net.layers[-1].weight)
    torch.nn.init.zeros_(net.layers[-1].bias)
    assert torch.allclose(net(relight.clues(known), known.expected), known.expected, atol=1e-6)


def test_the_unseen_side_gets_the_photos_light():
    """The shipped weights: the photo is light on its left, so the far right is darker, too."""
    known = ball()
    made, true = relight.relit(known), lit(known.normals)
    back = known.normals[:, 2] < 0
    left, right = (back & (s * known.normals[:, 0] > 0.6) for s in (1, -1))
    assert made[left].mean() > made[right].mean() + 0.05
    before = (known.colour - true)[back].square().mean()
    assert (made - true)[back].square().mean() < 0.7 * before


def test_weights_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="Install the extension again"):
        relight.load_relight(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsError):
        relight.load_relight(tmp_path / "bad.safetensors")
    relight.load_relight.cache_clear()


def saved(path, seed: int, turn: float) -> None:
    """A head's file: a ball in a light from `turn`; the truth of its back is the same light's."""
    sun = torch.tensor([np.sin(turn), 0.2, np.cos(turn)]).float()

    def light(normals):
        return SKIN * (0.55 + 0.4 * normals @ F.normalize(sun, dim=0))[:, None]

    known = ball(light, 1500)
    np.savez(
        path / f"{seed}.npz", **to_arrays(known), truth=light(known.normals).numpy(),
        view=np.repeat(np.arange(8), 188)[:1500].astype(np.uint8), missed=np.zeros(8),
        count=np.full(8, 188),
    )  # fmt: skip


def test_arrays_are_read_as_they_were_written(tmp_path):
    known = ball()
    np.savez(tmp_path / "1.npz", **to_arrays(known))
    back = from_arrays(np.load(tmp_path / "1.npz"))
    assert torch.equal(back.points, known.points)
    assert torch.allclose(back.seen.colour, known.seen.colour, atol=1e-3)
    assert torch.allclose(relight.clues(back), relight.clues(known), atol=0.02)


def test_training_learns_where_light_comes_from(tmp_path, capsys):
    for seed in range(11):
        saved(tmp_path, seed, 0.9 * seed)
    out = tmp_path / "net.safetensors"
    train_relight.main(["--data", str(tmp_path), "--out", str(out), "--steps", "60"])
    gain = float(capsys.readouterr().out.splitlines()[-1].split()[2])
    assert gain > 2  # dB, on heads kept back
    net = relight.load_relight(out)
    relight.load_relight.cache_clear()
    head = train_relight.read(tmp_path / "0.npz")
    assert head.psnr(net(head.told, head.expected)) > head.psnr(head.expected) + 2
