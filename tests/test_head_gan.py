"""The adversarial stage of the head model: networks, losses, loop; and heads from its mapping."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from engine.checkpoints.default import load_default
from engine.networks.resample import upsample
from engine.sampling.builtin import BuiltInSampler
from engine.systems.head.discriminator import HeadDiscriminator
from engine.systems.head.mapping import HeadMapping, shape_vector
from engine.systems.head.model import HeadConfig, HeadGenerator
from engine.training import train_gan
from engine.training.gan import (
    DiscriminatorStep,
    GeneratorStep,
    HeadGAN,
    Seen,
    Verdict,
    Views,
    energy_score,
    r1,
    reconstruction,
)
from engine.training.gan_data import Canvas, Sittings, softened
from engine.training.pack_weights import config_of

TINY = HeadConfig(
    w_dim=16,
    plane_resolution=16,
    plane_channels=4,
    channel_base=128,
    channel_max=16,
    decoder_width=8,
    fine_channels=8,
    hair_styles=3,
    colour_grid=4,
)
SHAPE, PIXELS = 5, 64


def make_nets() -> tuple[HeadGAN, HeadDiscriminator]:
    torch.manual_seed(0)
    return HeadGAN(TINY, SHAPE), HeadDiscriminator(32, (8, 8, 8, 8))


def sittings(seed: int = 0, heads: int = 2) -> Sittings:
    """Discs with a colour gradient on a plane before the face."""
    rng = torch.Generator().manual_seed(seed)
    axis = (torch.arange(PIXELS) + 0.5) / PIXELS - 0.5
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    place = torch.stack([0.3 * x, 0.3 * y, torch.full_like(x, 0.05)], -1)
    known = x**2 + y**2 < 0.16
    tint = torch.rand((heads, 1, 3, 1, 1), generator=rng)
    picture = (tint * 2 - 1 + 0.4 * torch.stack([x, y, x * y])) * known
    views = (heads, 2)
    return Sittings(
        torch.rand((heads, 4, 128, 128), generator=rng),
        torch.randn((heads, SHAPE), generator=rng),
        torch.arange(heads) % 3,
        picture.expand(*views, -1, -1, -1).contiguous(),
        known.expand(*views, -1, -1).contiguous(),
        (place * known[..., None]).expand(*views, -1, -1, -1).contiguous(),
        torch.nn.functional.normalize(torch.randn((*views, 3), generator=rng), dim=-1),
    )


def inputs(seed: int = 0, wild: int = 1) -> tuple:
    """What GeneratorStep takes before the discriminator."""
    rng = torch.Generator().manual_seed(seed + 100)
    picture = torch.rand((wild, 4, 128, 128), generator=rng)
    points = torch.rand((wild, 50, 3), generator=rng) * 0.2 - 0.1
    known = torch.randn((6, SHAPE), generator=rng), torch.randn((6, 6, 16), generator=rng)
    return Views(sittings(seed)), picture, torch.zeros(wild, dtype=torch.long), points, known


class Drawn:
    """Stands for Batches: the same few batches over and over."""

    device, kinds = torch.device("cpu"), 3

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.studio, self.seed = np.random.default_rng(seed), self, seed
        self.items = [{"input": np.full((3, 128, 128, 4), 128, np.uint8)}]

    def shapes(self) -> torch.Tensor:
        return torch.zeros(3, SHAPE)

    def draw(self, wild: int, studio: int, views: int) -> tuple:
        which = int(self.rng.integers(self.kinds)) + 3 * self.seed
        seen, picture, styles, _, _ = inputs(which, wild)
        place = torch.full((wild, 1, 24, 24, 3), 0.02)
        truth = {"place": place, "colour": place * 10, "known": place[..., 0] > 0}
        truth["residual"] = torch.full((wild, 1, 24, 24), 0.001)
        return seen, picture, styles, truth, torch.full((wild * 24 * 24, 1), 0.01)


def make_trainer(folder, seed: int = 0) -> train_gan.Trainer:
    folder.mkdir(exist_ok=True)
    trainer = train_gan.Trainer(folder, Drawn(seed), *make_nets(), 2e-3)
    torch.manual_seed(seed)
    return trainer


def test_fine_planes_start_as_the_raw_ones_doubled():
    torch.manual_seed(0)
    generator = HeadGenerator(TINY)
    ws = torch.randn(2, generator.num_ws, 16)
    raw, full = generator.both(ws)
    assert raw.shape == (2, 4, 4, 16, 16) and full.shape == (2, 4, 4, 32, 32)
    assert torch.allclose(full, upsample(raw.flatten(1, 2)).unflatten(1, (4, 4)), atol=1e-5)
    assert torch.equal(full, generator.planes(ws))
    with torch.no_grad():
        generator.fine.torgb.weight.normal_()
    changed = generator.planes(ws) - full
    assert changed[:, :3].abs().mean() > 0.01 and changed[:, 3].abs().max() == 0


def test_hair_lies_where_its_style_has_it_and_looks_as_w_says():
    torch.manual_seed(0)
    generator = HeadGenerator(TINY)
    hair, ws = generator.hair, torch.randn(2, generator.num_ws, 16)
    plain = HeadGenerator(replace(TINY, hair_styles=0))
    state = generator.state_dict()
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith("hair.")})
    with torch.no_grad():
        hair.maps[1, 0, 4:8] = 1.0  # style 1 has hair in four rows of the front plane
        assert torch.equal(generator.planes(ws), plain.planes(ws))  # without a look yet
        hair.to_look.bias[:4] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        hair.to_style.weight.zero_()
        hair.to_style.bias.copy_(torch.tensor([-50.0, 50.0, -50.0]))
        added = generator.raw(ws)[1] - plain.raw(ws)[1]
        assert torch.allclose(added[0, 0, :, 5, 3], torch.arange(1.0, 5), atol=1e-4)
        assert added[:, 1:].abs().max() == 0 and added[:, 0, :, 9:].abs().max() < 1e-5
        hair.to_style.bias.copy_(torch.tensor([50.0, -50.0, -50.0]))
        assert (generator.raw(ws)[1] - plain.raw(ws)[1]).abs().max() < 1e-5
        told = torch.eye(3)[[0, 1]]  # whatever w+ says, the second head has style 1
        added = generator.raw(ws, told)[1] - plain.raw(ws)[1]
        assert added[0].abs().max() < 1e-5 and added[1, 0, :, 5].abs().min() > 0.9


def test_without_the_new_parts_nothing_is_new():
    generator = HeadGenerator(replace(TINY, fine_channels=0, hair_styles=0))
    assert not any(name.startswith(("fine", "hair")) for name in generator.state_dict())
    raw, full = generator.both(torch.randn(1, generator.num_ws, 16))
    assert raw is full


def test_shapes_of_mapping_and_discriminator():
    nets, net = make_nets()
    ws = nets.mapping(torch.randn(3, nets.mapping.z_dim), torch.randn(3, SHAPE))
    assert ws.shape == (3, nets.generator.num_ws, 16)
    assert torch.allclose(ws.square().mean(-1), torch.ones(3, len(ws[0])), atol=1e-3)
    assert nets.mapping.average(torch.randn(1, SHAPE)).shape == ws.shape[1:]
    whole, patches, features = net(
        torch.randn(4, 3, 64, 64), torch.randn(4, 3, 32, 32), torch.randn(4, 3)
    )
    assert whole.shape == (4,) and patches.shape == (4, 4, 4) and len(features) == 3
    with pytest.raises(ValueError, match="levels"):
        HeadDiscriminator(64, (8, 8, 8, 8))


def test_the_discriminator_asks_where_a_picture_was_taken_from():
    _, net = make_nets()
    x = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 32, 32)
    front, back = torch.tensor([[0.0, 0, 1]] * 2), torch.tensor([[0.0, 0, -1]] * 2)
    assert not torch.allclose(net(*x, front)[0], net(*x, back)[0])


def test_a_canvas_paints_what_its_points_show():
    batch = sittings()
    canvas = Canvas(batch.known, batch.place)
    # A colour made of the place comes back where that place is seen; nothing is painted elsewhere.
    picture = canvas.paint(canvas.points + 0.5)
    expected = (batch.place * 2).permute(0, 1, 4, 2, 3)
    assert torch.allclose(picture, expected * batch.known[:, :, None], atol=1e-6)
    fewer = batch.known.clone()
    fewer[0, 0] = False  # rows of different lengths
    canvas = Canvas(fewer, batch.place)
    assert canvas.paint(torch.ones_like(canvas.points))[0, 0].abs().max() == 0
    assert canvas.paint(torch.ones_like(canvas.points)).sum() == 3 * fewer.sum()


def test_softening_keeps_even_colours_and_the_outline():
    known = torch.zeros(1, 16, 16, dtype=torch.bool)
    known[:, 3:12, 2:13] = True
    picture = torch.full((1, 3, 16, 16), 0.7) * known
    soft = softened(picture, known)
    inside = known[:, ::2, ::2]
    assert torch.allclose(soft[0, :, inside[0]], torch.tensor(0.7))
    assert soft[0, :, ~inside[0]].abs().max() == 0


def test_perfect_pictures_cost_nothing():
    views = Views(sittings())
    batch = views.batch
    perfect = reconstruction(Seen(batch.picture, views.soft, torch.zeros(())), views)
    assert float(perfect["gradient"]) == 0 and float(perfect["colour"]) < 0.004
    grey = reconstruction(Seen(batch.picture * 0, views.soft, torch.zeros(())), views)
    assert float(grey["colour"]) > 0.1 and float(grey["gradient"]) > 0


def test_gradients_reach_every_part_and_leave_the_judge_alone():
    nets, net = make_nets()
    with torch.no_grad():  # what starts at zero would hide what lies behind it
        nets.generator.fine.torgb.weight.normal_()
        nets.mapping.to_offsets.weight.normal_()
    net.requires_grad_(False)
    losses, _, fakes = GeneratorStep(nets)(*inputs(), net)
    assert {"fooled", "invented", "matching", "energy", "colour", "shift"} <= set(losses)
    losses["invented"].backward(retain_graph=True)
    for name in ("mapping.to_w.weight", "mapping.embed.weight", "generator.fine.conv0.weight",
                 "generator.fine_mean", "generator.synthesis.b8.conv0.weight"):  # fmt: skip
        assert nets.get_parameter(name).grad.abs().max() > 0, name
    assert nets.encoder.mix.weight.grad is None  # invented heads are not the encoder's
    losses["colour"].backward()
    assert nets.encoder.colour.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in net.parameters())
    assert len(fakes) == 2 and not any(x.requires_grad for fake in fakes for x in fake)
    net.requires_grad_(True)
    values = DiscriminatorStep(net)(inputs()[0], fakes, True)
    sum(values.values()).backward()
    assert all(p.grad is not None for p in net.parameters())


class Linear(nn.Module):
    """whole: 3 times the sum of the picture; patches: twice that of the raw one."""

    def forward(self, picture, raw, direction):
        patches = 2 * raw.sum((1, 2, 3))
        return 3 * picture.sum((1, 2, 3)), patches[:, None, None].expand(-1, 4, 4), []


def test_r1_of_a_known_function():
    views = Views(sittings())
    n = 3 * PIXELS**2
    assert float(r1(Linear(), views)) == pytest.approx(9 * n + 4 * n / 4, rel=1e-5)


def test_realness_is_the_logistic_loss():
    verdict = Verdict(torch.zeros(2), torch.zeros(2, 4, 4), [], torch.ones(2, 4, 4))
    assert float(verdict.realness(1)) == pytest.approx(1.5 * np.log(2), rel=1e-5)
    sure = replace(verdict, whole=torch.full((2,), 9.0), patches=torch.full((2, 4, 4), 9.0))
    assert float(sure.realness(1)) < 0.001 and float(sure.realness(-1)) > 13


def test_the_energy_score_is_least_for_the_same_distribution():
    class Normal(nn.Module):
        z_dim = 32

        def __init__(self, size: float) -> None:
            super().__init__()
            self.size = size

        def forward(self, z, shape):
            return (self.size * z).unflatten(1, (2, 16))

    torch.manual_seed(0)
    shape, ws = torch.zeros(4000, 1), torch.randn(4000, 2, 16)
    narrow, right, wide = (float(energy_score(Normal(s), shape, ws)) for s in (0.5, 1.0, 1.7))
    assert right < narrow and right < wide


def test_a_few_steps_lower_the_supervised_loss(tmp_path):
    trainer = make_trainer(tmp_path / "a")
    trainer.batches.kinds, trainer.rate = 1, 6e-3
    wild, seen = [], []
    for _ in range(10):
        trainer.run.losses.clear()
        trainer.step(1, 2, 2, False, 1.0)
        wild.append(trainer.run.losses["wild colour"])
        seen.append(trainer.run.losses["colour"])
    assert seen[-1] < 0.8 * seen[0]
    assert wild[-1] < 0.8 * wild[0]


def test_runs_are_seeded_and_go_on_where_they_stopped(tmp_path):
    first, second = make_trainer(tmp_path / "a"), make_trainer(tmp_path / "b")
    for trainer in (first, second):
        torch.manual_seed(5)
        for _ in range(2):
            trainer.step(1, 2, 2, True, 1.0)
    assert first.run.losses == second.run.losses
    first.run.save()
    again = make_trainer(tmp_path / "a")
    assert again.run.step == 2
    again.batches.rng = copy.deepcopy(first.batches.rng)
    again.known = first.known  # else encoded anew, by better weights
    for trainer in (first, again):
        torch.manual_seed(6)
        trainer.run.losses.clear()
        trainer.step(1, 2, 2, True, 1.0)
    assert first.run.losses == again.run.losses
    for a, b in zip(first.nets.parameters(), again.nets.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(a, b)


def _gradients(step: nn.Module, rank: int) -> list[torch.Tensor]:
    """Of the discriminator's side on this process's batch, its penalty included."""
    step.zero_grad(set_to_none=True)
    views = Views(sittings(rank))
    torch.manual_seed(rank)
    fake = torch.randn_like(views.batch.picture), torch.randn_like(views.soft)
    sum(step(views, [fake], True).values()).backward()
    return [p.grad.clone() for p in step.parameters()]


def _both(step: nn.Module, rank: int, net: HeadDiscriminator) -> list[torch.Tensor]:
    """Of the generator's side, which wants an untouched discriminator."""
    step.zero_grad(set_to_none=True)
    torch.manual_seed(rank)
    losses, _, _ = step(*inputs(rank), net)
    sum(losses.values()).backward()
    return [p.grad.clone() for p in step.parameters()]


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    from torch import distributed as dist
    from torch.nn.parallel import DistributedDataParallel as DDP

    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    nets, net = make_nets()
    net.requires_grad_(False)
    got = _both(DDP(GeneratorStep(nets)), rank, net)
    net.requires_grad_(True)
    got += _gradients(DDP(DiscriminatorStep(net)), rank)
    torch.save(got, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_take_the_mean_of_their_gradients(tmp_path, restored_process):
    torch.set_num_threads(1)  # sums in bfloat16 depend on it
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    a, b = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    nets, net = make_nets()
    alone = []
    for rank in range(2):
        net.requires_grad_(False)
        one = _both(GeneratorStep(nets), rank, net)
        net.requires_grad_(True)
        alone.append(one + _gradients(DiscriminatorStep(net), rank))
    for x, y, p, q in zip(a, b, *alone, strict=True):
        assert torch.equal(x, y)
        assert torch.allclose(x, (p + q) / 2, atol=1e-4 * float(p.abs().max() + 1e-3))
    assert any(not torch.allclose(p, q, rtol=1e-2) for p, q in zip(*alone, strict=True))


def test_sizes_are_read_from_the_tensors():
    nets = HeadGAN(replace(train_gan.CONFIG), SHAPE)
    assert config_of(nets.state_dict()) == train_gan.CONFIG
    del nets
    assert config_of({}) == HeadConfig()


def test_heads_from_seeds_with_a_mapping():
    model = load_default()
    space, n = model.space, model.generator.num_ws
    torch.manual_seed(0)
    dim = len(space.identity) + len(space.expression) + space.styles
    mapping = HeadMapping(dim, n, model.generator.config.w_dim).eval().requires_grad_(False)
    without = BuiltInSampler(model=replace(model, mapping=None))
    sampler = BuiltInSampler(model=replace(model, mapping=mapping, sha256="another"))
    assert sampler.sha256 != without.sha256 and sampler.rows == without.rows
    code, plain = (s.map(s.z(3)) for s in (sampler, without))
    # The shape of a seed is the prior's; only the colours are the mapping's.
    assert torch.equal(code[:3], plain[:3]) and not torch.allclose(code[3:], plain[3:])
    assert torch.equal(code, sampler.map(sampler.z(3)))
    z = sampler.z(3)
    whole, flat = (sampler.prior.unpack(sampler.map(z, psi)) for psi in (1.0, 0.0))
    shape, mean = (
        shape_vector(p.identity, p.expression, p.hair)[None] for p in (whole, flat)
    )
    assert torch.allclose(whole.ws, mapping(z[None, sampler.prior.z_dim :], shape)[0], atol=1e-5)
    assert torch.allclose(flat.ws, mapping.average(mean), atol=1e-5)
    # In between, while the style stays, w+ lies between that and the average of its shape.
    between = mapping.average(shape).lerp(whole.ws, 0.7)
    assert torch.allclose(code[3:], between, atol=0.02)
