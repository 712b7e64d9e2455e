"""One step of the head model's adversarial stage, without the loop around it (train_gan.py).

No ray is marched. Planes lie in canonical space and the canonical place of every pixel of a
training view is known, so a picture is planes decoded at those places: of the head itself, to be
compared with the truth (reconstruction), or of another w+ on the same geometry, for the
discriminator alone (sample). Both share the generator, so encoder and generator stay matched and
inversion keeps working. EG3D's density regularisation has no meaning for a distance: that the fine
planes leave the residual of the distance alone takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.systems.head.discriminator import HeadDiscriminator
from engine.systems.head.mapping import HeadMapping
from engine.systems.head.model import HeadConfig, HeadGenerator
from engine.training.gan_data import Canvas, Sittings, softened
from engine.training.train_appearance import Model

FACE, FACE_WEIGHT = (0.055, 0.055, 0.055), 3.0  # metres; what counts for more, and how much more
JITTER = 0.0004  # metres: a colour holds a little above and below its surface too


class HeadGAN(Model):
    """Generator, encoder and mapping: what ships. shape_dim: of the mapping's condition."""

    def __init__(self, config: HeadConfig, shape_dim: int) -> None:
        super().__init__(config)
        self.mapping = HeadMapping(shape_dim, self.generator.num_ws, config.w_dim)

    def raw_planes(self, ws: Tensor, hair: Tensor | None = None) -> Tensor:
        """Raw planes alone, as planes()."""
        with torch.autocast(ws.device.type, dtype=torch.bfloat16):
            return self.generator.raw(ws, hair)[1].float()

    def planes(self, ws: Tensor, hair: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Raw and full planes of w+ in bfloat16 arithmetic, float32."""
        with torch.autocast(ws.device.type, dtype=torch.bfloat16):
            raw, full = self.generator.both(ws, hair)
        return raw.float(), full.float()

    def encode(self, picture: Tensor) -> Tensor:
        """w+ [B, n, w] of aligned masked pictures."""
        with torch.autocast(picture.device.type, dtype=torch.bfloat16):
            ws = self.encoder(picture.contiguous(memory_format=torch.channels_last))
        return ws.float()


@dataclass
class Seen:
    """Pictures of some planes: picture [B, V, 3, P, P], raw [B, V, 3, P / 2, P / 2] in -1..1, and
    how far the fine planes change the residual of the distance, as a share of its bound."""

    picture: Tensor
    raw: Tensor
    shift: Tensor


class Views:
    """The geometry of a batch of sittings, made once for all planes that are seen on it."""

    def __init__(self, batch: Sittings) -> None:
        self.batch = batch
        self.full = Canvas(batch.known, batch.place)
        self.half = Canvas(batch.known[..., ::2, ::2], batch.place[:, :, ::2, ::2])
        self.soft = softened(batch.picture.flatten(0, 1), batch.known.flatten(0, 1))
        self.soft = self.soft.unflatten(0, batch.picture.shape[:2])
        # Eyes and mouth are few pixels of a head and most of a face.
        x, y, z = batch.place.unbind(-1)
        face = (x.abs() < FACE[0]) & (y.abs() < FACE[1]) & (z > FACE[2])
        self.weight = batch.known * (1 + FACE_WEIGHT * face)

    def show(self, generator: HeadGenerator, raw: Tensor, full: Tensor) -> Seen:
        """Planes [B, 4, C, r, r] and [B, 4, C, 2 r, 2 r] on this geometry."""
        jitter = torch.randn_like(self.full.points) * JITTER
        colour, _ = generator(full, self.full.points + jitter)
        coarse, residual = generator(raw, self.half.points)
        _, refined = generator(full, self.half.points)
        shift = (refined - residual.detach()).abs().mean()
        return Seen(self.full.paint(colour), self.half.paint(coarse), shift)


def reconstruction(seen: Seen, views: Views) -> dict[str, Tensor]:
    """Charbonnier of colours (of 0..1) and of the raw planes', and colour differences between
    neighbouring pixels; weighted means."""
    known = views.weight
    error = (seen.picture - views.batch.picture) / 2
    out = {"colour": (((error**2).sum(2) + 1e-5).sqrt() * known).sum() / known.sum()}
    gradient = error.new_zeros(())
    for axis in (2, 3):
        n = known.shape[axis] - 1
        pair = torch.minimum(known.narrow(axis, 1, n), known.narrow(axis, 0, n))
        d = error.narrow(axis + 1, 1, n) - error.narrow(axis + 1, 0, n)
        gradient = gradient + (d.abs().sum(2) * pair).sum() / known.sum()
    half = known[..., ::2, ::2]
    coarse = ((seen.raw - views.soft) / 2).square().sum(2)
    out["raw"] = ((coarse + 1e-5).sqrt() * half).sum() / half.sum()
    return out | {"gradient": gradient, "shift": seen.shift}


@dataclass
class Verdict:
    """Of the discriminator on pictures: whole [N], patches [N, p, p], features, and which patches
    show any head [N, p, p]."""

    whole: Tensor
    patches: Tensor
    features: list[Tensor]
    headed: Tensor

    def realness(self, sign: float) -> Tensor:
        """Non-saturating logistic loss: sign 1 where the picture should be found real, -1 fake."""
        patch = (F.softplus(-sign * self.patches) * self.headed).sum() / self.headed.sum()
        return 0.5 * F.softplus(-sign * self.whole).mean() + patch


def judge(net: nn.Module, picture: Tensor, raw: Tensor, views: Views) -> Verdict:
    """The discriminator's verdict on pictures [B, V, ...] of some views' geometry."""
    with torch.autocast(picture.device.type, dtype=torch.bfloat16):
        whole, patches, features = net(
            picture.flatten(0, 1), raw.flatten(0, 1), views.batch.direction.flatten(0, 1)
        )
    known = views.batch.known.flatten(0, 1)[:, None].float()
    headed = F.adaptive_avg_pool2d(known, patches.shape[-1])[:, 0] > 0.05
    return Verdict(whole, patches, features, headed.float())


def feature_distance(a: Verdict, b: Verdict) -> Tensor:
    """Mean difference of two verdicts' features in spreads of b's (Wang et al. 2018, "feature
    matching"); no gradient to b's."""
    total = a.whole.new_zeros(())
    for x, y in zip(a.features, b.features, strict=True):
        y = y.detach().float()
        total = total + (x.float() - y).abs().mean() / y.std().clamp_min(1e-3)
    return total / len(a.features)


def r1(net: nn.Module, views: Views) -> Tensor:
    """Mean squared gradient of the verdict with respect to real pictures (Mescheder et al. 2018),
    full and raw together. The caller scales it by gamma / 2 and by how seldom it is asked for."""
    picture = views.batch.picture.flatten(0, 1).detach().requires_grad_()
    raw = views.soft.flatten(0, 1).detach().requires_grad_()
    whole, patches, _ = net(picture, raw, views.batch.direction.flatten(0, 1))
    total = whole.sum() + patches.mean((1, 2)).sum()
    slopes = torch.autograd.grad(total, (picture, raw), create_graph=True)
    return sum(s.square().sum((1, 2, 3)).mean() for s in slopes)


def energy_score(mapping: HeadMapping, shape: Tensor, ws: Tensor) -> Tensor:
    """How badly the mapping's w+ [B, n, w] for some shapes [B, D] fit what the encoder found there:
    E|a - w| - E|a - a'| / 2 (Gneiting and Raftery 2007). A proper score: least where both have the
    same distribution, and it needs neither picture nor discriminator, so that the adversarial stage
    begins with a mapping that already speaks the generator's language."""
    two = [
        mapping(torch.randn(len(shape), mapping.z_dim, device=shape.device), shape)
        for _ in range(2)
    ]
    a, b, w = (x.flatten(1) for x in (*two, ws))

    def apart(x: Tensor, y: Tensor) -> Tensor:
        return ((x - y).square().mean(1) + 1e-8).sqrt().mean()

    return 0.5 * (apart(a, w) + apart(b, w) - apart(a, b))


def told(nets: HeadGAN, ws: Tensor, styles: Tensor) -> Tensor:
    """Hair weights [B, S] to paint heads with: the true styles' [B] of every other head, or those
    that w+ [B, n, w] speaks of: photos are read both ways."""
    own = nets.generator.hair.styles(ws).softmax(1)
    even = torch.arange(len(ws), device=ws.device)[:, None] % 2 == 0
    return torch.where(even, F.one_hot(styles, own.shape[1]).to(own), own)


def style_loss(nets: HeadGAN, ws: Tensor, styles: Tensor) -> Tensor:
    """Cross entropy of the hair styles [B] that w+ [B, n, w] speak of."""
    return F.cross_entropy(nets.generator.hair.styles(ws), styles)


class GeneratorStep(nn.Module):
    """The generator's side of a step, as one module: DistributedDataParallel needs one forward."""

    def __init__(self, nets: HeadGAN) -> None:
        super().__init__()
        self.nets = nets

    def forward(
        self,
        views: Views,
        wild: Tensor,
        styles: Tensor,
        points: Tensor,
        known: tuple[Tensor, Tensor],
        net: HeadDiscriminator | None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
        """views: of the studio; wild [B, 4, 128, 128]: masked pictures in any light, their hair
        styles [B], and points [B, N, 3] on them; known: shapes [K, D] and their encoded w+
        [K, n, w], for the mapping; net: the discriminator, None for none.

        Returns the losses, what the wild heads show there (colour, residual, ws), and the fake
        pictures for the discriminator's side.
        """
        nets, batch = self.nets, views.batch
        count = len(wild)
        ws = nets.encode(torch.cat([wild, batch.input]))
        hair = told(nets, ws, torch.cat([styles, batch.style]))
        colour, residual = nets.generator(nets.raw_planes(ws[:count], hair[:count]), points)
        studio = views.show(nets.generator, *nets.planes(ws[count:], hair[count:]))
        losses = reconstruction(studio, views)
        losses["energy"] = energy_score(nets.mapping, *known)
        losses["style"] = style_loss(nets, ws, torch.cat([styles, batch.style]))
        losses["offsets"] = (ws - ws.mean(1, keepdim=True)).square().mean()
        shown = {"colour": colour, "residual": residual, "ws": ws}
        if net is None:
            return losses, shown, []
        z = torch.randn(len(batch.shape), nets.mapping.z_dim, device=ws.device)
        invented = nets.mapping(z, batch.shape)
        losses["style"] = losses["style"] + style_loss(nets, invented, batch.style)
        known_hair = F.one_hot(batch.style, nets.generator.config.hair_styles).float()
        made = nets.planes(invented, known_hair)
        sample = views.show(nets.generator, *made)
        with torch.no_grad():
            truth = judge(net, batch.picture, views.soft, views)
        again = judge(net, studio.picture, studio.raw, views)
        losses["matching"] = feature_distance(again, truth)
        losses["fooled"] = again.realness(1)
        losses["invented"] = judge(net, sample.picture, sample.raw, views).realness(1)
        losses["shift"] = losses["shift"] + sample.shift
        fakes = [(s.picture.detach(), s.raw.detach()) for s in (studio, sample)]
        return losses, shown, fakes


class DiscriminatorStep(nn.Module):
    """The discriminator's side of a step, as one module."""

    def __init__(self, net: HeadDiscriminator) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, views: Views, fakes: list[tuple[Tensor, Tensor]], penalise: bool
    ) -> dict[str, Tensor]:
        """Losses: real, fake and, if asked for, r1."""
        truth = judge(self.net, views.batch.picture, views.soft, views)
        losses = {"real": truth.realness(1)}
        wrong = [judge(self.net, *fake, views).realness(-1) for fake in fakes]
        losses["fake"] = sum(wrong) / len(wrong)
        if penalise:
            losses["r1"] = r1(self.net, views)
        return losses
