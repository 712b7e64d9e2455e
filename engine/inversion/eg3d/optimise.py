"""What is optimised to bring a model's view to a photo: the code w+, the camera, the weights.

Sources: projection with Adam and a ramp (StyleGAN2, Karras et al. 2020, section 5), pose
optimisation (EG3D, Chan et al. 2022, supplement; Ko et al. 2023), pivotal tuning with locality
regularisation (Roich et al. 2021, sections 3.2 and 3.3).

Two things differ. The decoder stays as it is: only the layers that make planes are tuned. So the
planes of a tuned head mean what they did before, and an edit is a difference of planes. And
locality is asked of planes, not of pictures, which needs no rendering.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from engine.cameras import Camera
from engine.device import Compute
from engine.inversion.eg3d.likeness import Likeness
from engine.inversion.eg3d.view import PlaneView, view
from engine.inversion.optim import Adam
from engine.sampling.eg3d import EG3DSampler
from engine.systems.eg3d.generator import EG3DGenerator

CODES = 256  # seeds whose codes say how far codes usually are from the average
RATE = 0.08  # of w+, in usual distances a step
WARM_UP, COOL_DOWN = 0.1, 0.4  # shares of the steps
NEAR_AVERAGE = 0.01  # weight of the squared usual distances from the average
CAMERA_RATE = 0.1  # of the camera, in usual errors of the first one a step
# These errors: turns about three axes in radians; shifts right, down and forward in field units.
# They are what our perception network is wrong by (3 to 4 degrees, 5 mm, 3 % of the size).
USUAL = (0.065, 0.065, 0.065, 0.015, 0.015, 0.08)
CAMERA_PRIOR = 0.001
# Of weights, times the root of how many numbers they take, which is what a coherent step changes:
# published are 350 steps of 3e-4 on 512 channels of 3 x 3: 0.02; fewer may be longer, to 0.05.
TUNING_PATH, TUNING_RATES = 350 * 0.02, (0.02, 0.05)
SETTLED = 30  # steps from which such long ones settle down; fewer are shorter
PUBLISHED_INPUTS = 512 * 9  # whose rate biases and the like get
LOCALITY, LOCAL_EVERY = 0.1, 4  # weight, and after how many steps codes near by are looked at
HALFWAY = 0.5  # from the pivot to a random code: where planes have to stay

Report = Callable[[float, Tensor | None], None]


@dataclass
class Seen:
    """A picture to bring a view to: its camera, and the loss of views through it."""

    camera: Camera
    likeness: Likeness


class MovingCamera(nn.Module):
    """A camera that can be turned about a point and shifted along its own axes."""

    def __init__(self, camera: Camera, pivot: Sequence[float], device: torch.device) -> None:
        super().__init__()
        like = {"dtype": torch.float32, "device": device}
        self._camera, self._start = camera, torch.tensor(camera.cam2world, **like)
        self.intrinsics = torch.tensor(camera.intrinsics, **like)
        self._pivot, self._usual = torch.tensor(pivot, **like), torch.tensor(USUAL, **like)
        self.moved = nn.Parameter(torch.zeros(6, **like))  # in usual errors, see USUAL

    def forward(self) -> Tensor:
        """cam2world [4, 4]."""
        turn, shift = (self.moved * self._usual).split(3)
        x, y, z = turn.unbind()
        none = torch.zeros_like(x)
        rows = [torch.stack(row) for row in ((none, -z, y), (z, none, -x), (-y, x, none))]
        turn = torch.linalg.matrix_exp(torch.stack(rows))
        rotation = turn @ self._start[:3, :3]
        place = turn @ (self._start[:3, 3] - self._pivot) + self._pivot + rotation @ shift
        last = self._start[3:]
        return torch.cat([torch.cat([rotation, place[:, None]], 1), last])

    def prior(self) -> Tensor:
        """How unlikely the movement is."""
        return self.moved.square().sum()

    def camera(self) -> Camera:
        """The camera where it now is; its rotation exactly orthonormal."""
        moved = self().detach().double().cpu().numpy()
        left, _, right = np.linalg.svd(moved[:3, :3])
        moved[:3, :3] = left @ right
        return replace(self._camera, cam2world=moved)


@torch.no_grad()
def usual_codes(sampler: EG3DSampler) -> tuple[Tensor, Tensor]:
    """The average code [1, R, W] and how far codes usually are from it, number by number [W]."""
    average = sampler.map(sampler.z(0), psi=0.0)[None]
    z = np.random.RandomState(1).randn(CODES, sampler.config.z_dim)
    c = torch.from_numpy(sampler.front().to_eg3d())[None, : sampler.config.c_dim]
    device = sampler.compute.device
    drawn = torch.from_numpy(z).float().to(device)
    rows = sampler.generator.mapping(drawn, c.expand(CODES, -1).to(device))[:, 0]
    away = (rows - average[:, 0].to(device)).square().mean(0).sqrt()
    return average.to(device), away.clamp_min(1e-3 * float(away.max()) + 1e-8)


def fit_code(
    sampler: EG3DSampler,
    target: Seen,
    steps: int,
    size: int,
    samples: int,
    moves: bool,
    report: Report,
) -> tuple[Tensor, Camera]:
    """The code w+ [1, R, W] whose view comes nearest to the photo, from the average code on, and
    the photo's camera, refined if it `moves`. size: pixels a side of the views; samples: as in
    view(). report(fraction, view [3, size, size]) is called at every step and may raise."""
    generator, compute = sampler.generator, sampler.compute
    average, usual = usual_codes(sampler)
    offset = torch.zeros_like(average).requires_grad_()
    pivot = sampler.config.field.orbit_pivot
    camera = MovingCamera(target.camera, pivot, compute.device).requires_grad_(moves)
    groups = [{"params": [offset], "lr": 0.0}]
    if moves:
        groups.append({"params": [camera.moved], "lr": 0.0})
    optimiser = Adam(groups, betas=(0.9, 0.99))
    for step in range(steps):
        done = step / steps
        pace = ramp(done)
        groups[0]["lr"] = RATE * pace
        if moves:
            groups[1]["lr"] = CAMERA_RATE * pace
        head = _head(generator, generator.backbone.synthesis, average + offset * usual, compute)
        image = view(head, camera(), camera.intrinsics, size, samples)[0]
        loss = target.likeness(image) + NEAR_AVERAGE * offset.square().mean()
        if moves:
            loss = loss + CAMERA_PRIOR * camera.prior()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        report(done, image.detach())
    return (average + offset * usual).detach(), camera.camera() if moves else target.camera


def tune(
    sampler: EG3DSampler,
    ws: Tensor,
    targets: Sequence[Seen],
    steps: int,
    size: int,
    samples: int,
    report: Report,
    seed: int = 0,
) -> nn.Module:
    """A copy of the synthesis network tuned so that the pivot ws [1, R, W] shows the pictures: the
    first of the targets, the photo, at every other step, one of the others in between. Codes near
    by keep their planes. The rest as in fit_code()."""
    generator, compute = sampler.generator, sampler.compute
    network = copy.deepcopy(generator.backbone.synthesis).requires_grad_(True)
    rate = float(np.clip(TUNING_PATH / max(steps, 1), *TUNING_RATES)) * min(1.0, steps / SETTLED)
    groups = [{"params": [p], "lr": 0.0} for p in network.parameters()]
    rates = [rate / math.sqrt(_inputs(p)) for p in network.parameters()]
    optimiser = Adam(groups, betas=(0.9, 0.99))
    rng = np.random.RandomState(seed)
    for step in range(steps):
        for group, own in zip(groups, rates):
            group["lr"] = own * ramp(step / steps)
        others = targets[1:]
        target = others[rng.randint(len(others))] if others and step % 2 else targets[0]
        camera = MovingCamera(target.camera, (0.0, 0.0, 0.0), compute.device).requires_grad_(False)
        head = _head(generator, network, ws, compute)
        image = view(head, camera(), camera.intrinsics, size, samples)[0]
        loss = target.likeness(image)
        if step % LOCAL_EVERY == 0:
            loss = loss + LOCALITY * LOCAL_EVERY * drift(sampler, network, ws, rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if target is targets[0]:
            report(step / steps, image.detach())
        else:
            report(step / steps, None)
    return network.requires_grad_(False)


def _inputs(parameter: Tensor) -> int:
    """How many numbers each of a layer's outputs is made of."""
    return parameter[0].numel() if parameter.ndim in (2, 4) else PUBLISHED_INPUTS


def drift(
    sampler: EG3DSampler, network: nn.Module, ws: Tensor, rng: np.random.RandomState
) -> Tensor:
    """How far a tuned synthesis network's planes have moved at a code between the pivot ws
    [1, R, W] and a random one, in usual distances of planes: a number."""
    generator, compute = sampler.generator, sampler.compute
    c = torch.from_numpy(sampler.front().to_eg3d())[None, : sampler.config.c_dim]
    z = torch.from_numpy(rng.randn(1, sampler.config.z_dim)).float()
    with torch.no_grad():
        other = generator.mapping(z.to(ws), c.to(ws), psi=0.7)
        near = torch.lerp(ws, other, HALFWAY)
        with compute.autocast():
            before = generator.backbone.synthesis(near).float()
    with compute.autocast():
        after = network(near).float()
    return (after - before).abs().mean() / before.std().clamp_min(1e-6)


def ramp(done: float) -> float:
    """The pace at a share of the steps: rising, even, falling to nothing."""
    return min(1.0, (done + 0.02) / WARM_UP, (1 - done) / COOL_DOWN)


def _head(generator: EG3DGenerator, network: nn.Module, ws: Tensor, compute: Compute) -> PlaneView:
    with compute.autocast():
        planes = network(ws).float()
    planes = planes[0].unflatten(0, (3, generator.config.plane_channels))
    return PlaneView(planes, generator.decoder.folded(), generator.config.field)
