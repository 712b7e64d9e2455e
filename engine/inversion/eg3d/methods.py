"""Ways from a photo to a head of an added EG3D model: recipes over the parts, named as those of the
built-in model (engine/inversion/methods.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.cameras import Camera
from engine.checkpoints.default import DefaultModel
from engine.errors import ParameterError
from engine.fields.base import Origin
from engine.fields.triplane import TriplaneField
from engine.inversion import pseudo
from engine.inversion.eg3d import optimise
from engine.inversion.eg3d.align import Portrait
from engine.inversion.eg3d.likeness import Likeness
from engine.inversion.eg3d.optimise import Seen
from engine.inversion.reconstruct import Report
from engine.portrait.matte import Matte
from engine.portrait.perception import PerceptionNet
from engine.sampling.eg3d import EG3DSampler

# Yaw and pitch in degrees of pseudo-views: within HFGI3D's 0.35 and 0.25 radians.
AROUND = ((-20, 0), (20, 0), (-12, 12), (12, 12), (-12, -12), (12, -12), (-20, 8), (20, 8))
MIRROR = 0.8  # how far SPI believes the photo's mirror image where the photo shows nothing
PHOTO = "photo"  # what stands for the head in a recipe


@dataclass(frozen=True)
class Steps:
    """latent: of w+ and camera; tuning: of the weights; pixels: a side of the views compared;
    samples: of each pass along their rays."""

    latent: int
    tuning: int
    pixels: int
    samples: int


PRESETS = {
    "fast": Steps(latent=40, tuning=0, pixels=64, samples=24),
    "balanced": Steps(latent=100, tuning=60, pixels=64, samples=24),
    "best": Steps(latent=300, tuning=250, pixels=96, samples=32),
}


@dataclass
class Inverted:
    """The field with its origin, the camera of the portrait's crop in it, the matte, how far each
    pixel of the crop may colour the head (float32 [S, S] in 0..1), the pivot ws [1, R, W], and the
    pseudo-views that helped."""

    field: TriplaneField
    camera: Camera
    matte: Matte
    trust: np.ndarray
    ws: Tensor
    views: list[pseudo.PseudoView]


class Work:
    """What a recipe works on: the arguments of invert()."""

    def __init__(
        self,
        sampler: EG3DSampler,
        net: PerceptionNet,
        portrait: Portrait,
        steps: Steps,
        report: Report,
        preview: Callable[[np.ndarray], None],
        seed: int,
        check: Callable[[], None],
    ) -> None:
        self.sampler, self.portrait, self.steps = sampler, portrait, steps
        self.report, self.preview, self.seed, self.check = report, preview, seed, check
        self.device = sampler.compute.device
        self.net = copy.deepcopy(net).to(self.device) if self.device.type != "cpu" else net

    def photo(self, camera: Camera | None = None) -> Seen:
        """The portrait, through its first camera or a refined one."""
        picture = torch.from_numpy(self.portrait.aligned.crop).float() / 255
        weight = torch.from_numpy(self.portrait.weight)
        return self.seen(camera or self.portrait.camera, picture, weight)

    def seen(self, camera: Camera, picture: Tensor, weight: Tensor) -> Seen:
        """A picture [H, W, 3] in 0..1 with a weight [H, W] as a target, at the steps' size."""
        size = (self.steps.pixels, self.steps.pixels)
        small = F.interpolate(picture.permute(2, 0, 1)[None], size, mode="area")[0]
        weight = F.interpolate(weight[None, None].float(), size, mode="area")[0, 0]
        likeness = Likeness(small.to(self.device), weight.to(self.device), self.net)
        return Seen(camera, likeness)

    def code(self, moves: bool, end: float) -> tuple[Tensor, Camera]:
        """w+ [1, R, W] of the photo and its camera; until `end` of the work."""
        name = "finding style code and camera" if moves else "finding the style code"
        return optimise.fit_code(
            self.sampler, self.photo(), self.steps.latent, self.steps.pixels, self.steps.samples,
            moves, self.showing(0.0, end, name),
        )  # fmt: skip

    def tune(
        self, ws: Tensor, camera: Camera, others: list[Seen], start: float, end: float
    ) -> nn.Module:
        """The synthesis network tuned to the photo, and to further pictures."""
        return optimise.tune(
            self.sampler, ws, [self.photo(camera), *others], self.steps.tuning, self.steps.pixels,
            self.steps.samples, self.showing(start, end, "tuning to the photo"), self.seed,
        )  # fmt: skip

    def views(
        self, ws: Tensor, camera: Camera, mirror: float, start: float
    ) -> list[pseudo.PseudoView]:
        """Pseudo-views of a code's head: the photo, warped, over its own views."""
        field, views = self.field(ws), []
        picture = torch.from_numpy(self.portrait.aligned.crop).float() / 255
        trust = torch.from_numpy(self.portrait.matte.alpha) * torch.from_numpy(
            self.portrait.aligned.valid
        )
        size = self.sampler.config.neural_resolution
        sources = pseudo.sources_of(field, picture, trust, camera, size, self.check)
        for count, (yaw, pitch) in enumerate(AROUND):
            self.report(start + 0.1 * count / len(AROUND), "looking from other sides")
            around = self.sampler.camera(yaw, pitch, size)
            made = pseudo.pseudo_view(field, sources, around, self.check)
            made.compose(mirror=mirror)
            views.append(made)
        return views

    def targets(self, views: list[pseudo.PseudoView]) -> list[Seen]:
        """Pseudo-views as targets, by their confidence."""
        return [self.seen(v.camera, v.picture, v.confidence) for v in views]

    def showing(self, start: float, end: float, name: str) -> optimise.Report:
        """A report of an optimisation's steps, with its view now and then."""

        def report(fraction: float, image: Tensor | None) -> None:
            self.report(start + (end - start) * fraction, name)
            if image is not None:
                shown = (image.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0)
                self.preview(shown.cpu().numpy())

        return report

    @torch.no_grad()
    def field(self, ws: Tensor, network: nn.Module | None = None) -> TriplaneField:
        """The head of a code, of a tuned network if there is one."""
        generator = self.sampler.generator
        with self.sampler.compute.autocast():
            planes = (network or generator.backbone.synthesis)(ws).float()
        return generator.field(planes[0].unflatten(0, (3, generator.config.plane_channels)))

    def done(
        self,
        ws: Tensor,
        camera: Camera,
        network: nn.Module | None = None,
        views: list[pseudo.PseudoView] | None = None,
    ) -> Inverted:
        field = self.field(ws, network)
        recipe = {"model": self.sampler.name, "sha256": self.sampler.sha256, "heads": [PHOTO]}
        field.origin = Origin(ws[0].cpu(), recipe)
        trust = self.portrait.matte.alpha * self.portrait.aligned.valid
        return Inverted(
            field, camera, self.portrait.matte, trust.astype(np.float32), ws, views or []
        )


def _code(work: Work) -> Inverted:
    """W+ projection (StyleGAN2): the code alone, through the first camera."""
    return work.done(*work.code(moves=False, end=1.0))


def _pose(work: Work) -> Inverted:
    """W+ and the camera together (Ko et al. 2023)."""
    return work.done(*work.code(moves=True, end=1.0))


def _tuned(work: Work) -> Inverted:
    """Pivotal tuning (Roich et al. 2021) at the code and the camera of `pose`."""
    ws, camera = work.code(moves=True, end=0.5)
    return work.done(ws, camera, work.tune(ws, camera, [], 0.5, 1.0))


def _with_views(work: Work, mirror: float) -> Inverted:
    ws, camera = work.code(moves=True, end=0.45)
    views = work.views(ws, camera, mirror, 0.45)
    network = work.tune(ws, camera, work.targets(views), 0.55, 1.0)
    return work.done(ws, camera, network, views)


def _warps(work: Work) -> Inverted:
    """HFGI3D (Xie et al. 2023): tuning on the photo and on pseudo-views from warps."""
    return _with_views(work, 0.0)


def _mirrors(work: Work) -> Inverted:
    """SPI (Yin et al. 2023): pseudo-views that believe the mirror image where the photo ends."""
    return _with_views(work, MIRROR)


METHODS: dict[str, Callable[[Work], Inverted]] = {
    "w+": _code,
    "pose": _pose,
    "pti": _tuned,
    "hfgi3d": _warps,
    "spi": _mirrors,
}
AUTO = "pti"  # on a picture of another model as good from the sides, and best in front
MISSING = {
    "encoder": "Its way goes through an encoder, and none is known for added models.",
    "triplanenet": "Its way goes through an encoder, and none is known for added models.",
    "warpgan": "Its way goes through an inpainting network that knows the model's codes, and none"
    " is known for added models.",
}


def check_method(name: str) -> None:
    """Raises ParameterError for a method that added models do not have."""
    if name == "auto" or name in METHODS:
        return
    why = MISSING.get(name, "There is no such method.")
    raise ParameterError(
        f"The method {name} does not work with this model. {why}",
        f"Choose one of {', '.join(METHODS)}, or the built-in model.",
    )


def invert(
    name: str,
    model: EG3DSampler,
    head: DefaultModel,
    portrait: Portrait,
    steps: Steps,
    report: Report,
    preview: Callable[[np.ndarray], None],
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Inverted:
    """The head of a portrait by one of METHODS, or "auto".

    head: the built-in model, whose perception network judges likeness; report(fraction of this
    function's work, step name); preview(uint8 [R, R, 3]): the view as it is now. check: called at
    every step, may raise to cancel; so may report. Raises ParameterError for methods that added
    models do not have.
    """
    check_method(name)
    if name == "auto":
        name = AUTO if steps.tuning else "pose"
    elif name not in ("w+", "pose") and not steps.tuning:
        steps = replace(steps, tuning=steps.latent // 2)

    def reporting(fraction: float, step: str) -> None:
        check()
        report(fraction, step)

    work = Work(model, head.perception, portrait, steps, reporting, preview, seed, check)
    return METHODS[name](work)
