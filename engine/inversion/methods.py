"""Ways from one portrait to a head, each a short recipe over the same parts.

All but the first share the fitted shape (`reconstruct.fit_head`), so what differs is what a method
is about: where colours come from, and what happens on the sides that the photo does not show. The
papers' own networks, losses and schedules are theirs; a recipe here is a method's idea on our
model, whose shape no colour loss moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.cameras import Camera
from engine.checkpoints.default import DefaultModel
from engine.device import Compute
from engine.fields.head import HeadField
from engine.inversion import appearance, colours, fuse, pseudo
from engine.inversion import pose as poses
from engine.inversion.align_camera import align_camera
from engine.inversion.reconstruct import (
    PRESETS,
    Reconstruction,
    Report,
    Steps,
    encode_only,
    fit_head,
    reconstruct,
)
from engine.inversion.warp import mirrored
from engine.portrait.align import Aligned
from engine.systems.head.model import HeadGenerator

RESIDUALS = 12000  # points of the photo and its mirror image that the planes' offsets come from
OUTLINE = 24  # steps of WarpGAN's recipe where a preset tunes nothing
SIDES = ((30, 0), (-30, 0), (60, 0), (-60, 0))  # degrees: HFGI3D's views, on a wider arc


@dataclass
class Work:
    """What a recipe works on, see invert(). Times are shares of the job."""

    model: DefaultModel
    aligned: Aligned
    steps: Steps
    compute: Compute
    report: Report
    preview: Callable[[HeadField, Camera], None]
    seed: int
    check: Callable[[], None]

    def head(self) -> colours.Fitted:
        """The photo's head with its shape fitted, in the encoder's colours."""
        head = fit_head(
            self.model, self.aligned, self.steps.silhouette, self.compute, self.report, self.seed,
            self.check,
        )  # fmt: skip
        self.preview(head.field, head.camera)
        self.report(0.4, "reading the photo's colours")
        return head

    def see(self, head: colours.Fitted) -> appearance.Seen:
        return colours.see_photo(head, self.aligned, self.steps.pixels)

    def refine(self, head: colours.Fitted, seen: appearance.Seen) -> Tensor:
        """w+ moved to the photo."""
        return appearance.refine_latent(
            self.model.generator, head.ws, seen, self.steps.latent, self.compute,
            lambda f: self.report(0.42 + 0.18 * f, "refining the style code"), head.hair,
        )  # fmt: skip

    def tune(
        self, head: colours.Fitted, ws: Tensor, target: appearance.Target, begin: float, end: float,
        steps: int | None = None, start: HeadGenerator | None = None,
    ) -> HeadGenerator:  # fmt: skip
        """The generator (or `start`, one tuned before) tuned to a target at the pivot ws."""
        return appearance.tune(
            start or self.model.generator, ws, target,
            self.steps.tuning if steps is None else steps, self.compute,
            lambda f: self.report(begin + (end - begin) * f, "tuning to the photo"),
            self.seed, head.hair,
        )  # fmt: skip

    def planes(
        self, head: colours.Fitted, ws: Tensor, generator: HeadGenerator | None = None
    ) -> Tensor:
        return colours.planes_of(generator or self.model.generator, ws, head.hair, self.compute)

    def pivot(
        self,
        head: colours.Fitted,
        ws: Tensor,
        seen: appearance.Seen,
        generator: HeadGenerator | None = None,
    ) -> appearance.Target:
        """The photo, and everywhere else the colours of w+ itself: tuning's locality."""
        everywhere = appearance.surface_points(head.field, colours.POINTS, self.seed)
        generator = generator or self.model.generator
        with torch.no_grad():
            own = generator(self.planes(head, ws, generator), everywhere[None])[0][0]
        return appearance.Target(seen, everywhere, own)

    def sources(self, head: colours.Fitted) -> tuple[pseudo.Source, pseudo.Source]:
        """The photo and its mirror image, to be warped."""
        picture = torch.from_numpy(self.aligned.crop).float() / 255
        return pseudo.sources_of(
            head.field, picture, torch.from_numpy(head.trust), head.camera, check=self.check
        )

    def views(
        self, head: colours.Fitted, angles: tuple = pseudo.AROUND, size: int = pseudo.SIZE
    ) -> list[pseudo.PseudoView]:
        """Pseudo-views round the head."""
        sources = self.sources(head)
        cameras = pseudo.cameras_around(angles, size, without=head.camera)
        return [pseudo.pseudo_view(head.field, sources, c, self.check) for c in cameras]

    def with_mirror(
        self, head: colours.Fitted, seen: appearance.Seen
    ) -> tuple[appearance.Seen, pseudo.PseudoView]:
        """What is seen, and, believed less, the mirrored photo where the photo shows nothing; and
        the view from the mirrored camera that says so."""
        _, camera = mirrored(torch.zeros(1, 1), head.camera)
        camera = camera.resized(pseudo.SIZE, pseudo.SIZE)
        view = pseudo.pseudo_view(head.field, self.sources(head), camera, self.check)
        view.compose(mirror=1.0)
        share = pseudo.MIRRORED * view.mirror_visible * (1 - view.visible)
        return fuse.together([seen, fuse.seen_in(head.field, view, share)]), view

    def done(
        self,
        head: colours.Fitted,
        ws: Tensor,
        planes: Tensor,
        generator: HeadGenerator | None = None,
        views: list[pseudo.PseudoView] | None = None,
    ) -> Reconstruction:
        """The head in the colours of planes [1, 4, C, P, P], decoded by the generator's decoder."""
        head.field.planes = planes[0].detach()
        head.field.decoder = (generator or self.model.generator).decoder
        self.preview(head.field, head.camera)
        return Reconstruction(
            head.field, head.camera, head.matte, head.shape, head.trust, ws, views or []
        )


def encoder(work: Work) -> Reconstruction:
    """What the networks alone say: no landmark, outline or colour is fitted (pSp, Richardson et
    al. 2021; EG3D's encoders)."""
    work.report(0.0, "reading the portrait")
    made = encode_only(work.model, work.aligned, work.compute)
    work.preview(made.field, made.camera)
    return made


def w_plus(work: Work) -> Reconstruction:
    """The style code alone is optimised (Image2StyleGAN, Abdal et al. 2019; StyleGAN2's
    projection, Karras et al. 2020, appendix D), from the encoder's."""
    head = work.head()
    ws = work.refine(head, work.see(head))
    return work.done(head, ws, work.planes(head, ws))


def pti(work: Work) -> Reconstruction:
    """Pivotal tuning (Roich et al. 2021): w+, then the generator's weights around it. Held to the
    pivot where the photo shows nothing."""
    head = work.head()
    return _tuned(work, head)


def _tuned(work: Work, head: colours.Fitted) -> Reconstruction:
    seen = work.see(head)
    ws = work.refine(head, seen)
    tuned = work.tune(head, ws, work.pivot(head, ws, seen), 0.6, 1.0)
    return work.done(head, ws, work.planes(head, ws, tuned), tuned)


def pose_optimised(work: Work) -> Reconstruction:
    """Pivotal tuning after the camera has been refined by the photo's own colours (3D GAN
    inversion with pose optimisation, Ko et al. 2023)."""
    head = work.head()
    seen = work.see(head)
    ws = work.refine(head, seen)
    head.field.planes = work.planes(head, ws)[0]
    work.report(0.6, "refining the camera")
    return _tuned(work, with_better_camera(work, head))


def with_better_camera(work: Work, head: colours.Fitted) -> colours.Fitted:
    """The head with the camera refined by the colours that its field has."""
    pose = align_camera(
        work.model.space, head.field, head.shape, work.aligned.crop, head.trust,
        head.landmarks, head.spread, check=work.check,
    )  # fmt: skip
    camera = poses.to_camera(pose, head.camera.width)
    return replace(head, shape=replace(head.shape, pose=pose), camera=camera)


def hfgi3d(work: Work) -> Reconstruction:
    """Pseudo-multi-view tuning (HFGI3D, Xie et al. 2023): the photo warped to the sides, what it
    does not show filled by the generator, two rounds; the second fill is the tuned generator's."""
    head = work.head()
    seen = work.see(head)
    ws = work.refine(head, seen)
    generator = None
    head.field.planes = work.planes(head, ws)[0]
    for begin in (0.6, 0.8):
        views = work.views(head, SIDES, 128)
        many = fuse.together([seen, *(fuse.seen_in(head.field, view) for view in views)])
        target = work.pivot(head, ws, many, generator)
        generator = work.tune(head, ws, target, begin, begin + 0.2, _half(work), generator)
        head.field.planes = work.planes(head, ws, generator)[0]
        head.field.decoder = generator.decoder
    return work.done(head, ws, head.field.planes[None], generator)


def _half(work: Work) -> int:
    return (work.steps.tuning + 1) // 2


def spi(work: Work) -> Reconstruction:
    """Symmetric prior (SPI, Yin et al. 2023): the mirrored photo is a second view, believed less,
    where the photo shows nothing."""
    head = work.head()
    seen = work.see(head)
    ws = work.refine(head, seen)
    head.field.planes = work.planes(head, ws)[0]
    many, view = work.with_mirror(head, seen)
    tuned = work.tune(head, ws, work.pivot(head, ws, many), 0.6, 1.0)
    return work.done(head, ws, work.planes(head, ws, tuned), tuned, [view])


def triplanenet(work: Work) -> Reconstruction:
    """Offsets of the planes from the residual and the mirrored residual (TriPlaneNet, Bhattarai et
    al. 2024). Theirs are predicted by a network; here a few least-squares steps find them, which
    needs no training."""
    head = work.head()
    seen = work.see(head)
    planes = work.planes(head, head.ws)
    head.field.planes = planes[0]
    many, view = work.with_mirror(head, seen)
    work.report(0.7, "correcting the planes")
    few = torch.randperm(len(many.weight), generator=torch.Generator().manual_seed(work.seed))
    few = few[:RESIDUALS]
    still = work.pivot(head, head.ws, many)
    part = slice(None, None, len(still.everywhere) // 6000)
    points = torch.cat([many.canonical[few], still.everywhere[part]])
    wanted = torch.cat([many.colour[few], still.expected[part]])
    weight = torch.cat([many.weight[few], 0.5 * still.hidden[part]])
    planes = colours.sided(planes)
    planes = appearance.match(work.model.generator, planes, points, wanted, weight, work.check)
    return work.done(head, head.ws, planes, views=[view])


def warpgan(work: Work) -> Reconstruction:
    """Warping-guided inversion (WarpGAN, arXiv 2511.08178): the photo warped round the head, what
    is missing inpainted by SVINet, and all of it back into one field. See reconstruct(). Where a
    preset tunes nothing, the shape is fitted coarsely and w+ moved a little, so that all of it
    costs less than three times the encoder alone."""
    steps = replace(work.steps, views=pseudo.AROUND)
    if not (steps.tuning or steps.planes):
        outline = min(steps.silhouette, OUTLINE)
        steps = replace(steps, silhouette=outline, coarse=True)
    return reconstruct(
        work.model, work.aligned, steps, work.compute, work.report, work.preview, work.seed,
        work.check,
    )  # fmt: skip


@dataclass(frozen=True)
class Method:
    """A recipe: its name for people, and what it does."""

    label: str
    run: Callable[[Work], Reconstruction]


METHODS = {
    "encoder": Method("Encoder", encoder),
    "w+": Method("W+ (SG2)", w_plus),
    "pti": Method("PTI", pti),
    "pose": Method("Pose-optimised", pose_optimised),
    "hfgi3d": Method("HFGI3D-like", hfgi3d),
    "spi": Method("SPI-like", spi),
    "triplanenet": Method("TriPlaneNet-like", triplanenet),
    "warpgan": Method("WarpGAN", warpgan),
}


def invert(
    name: str,
    model: DefaultModel,
    aligned: Aligned,
    steps: Steps,
    compute: Compute,
    report: Report = lambda fraction, step: None,
    preview: Callable[[HeadField, Camera], None] = lambda field, camera: None,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Reconstruction:
    """One portrait to a field by the method of that name (a key of METHODS, or "auto").

    steps: of the preset; where it tunes nothing, methods that do take the balanced preset's.
    report(fraction, step name); preview(field, camera) when there is something new to see; check:
    called often, raises to cancel. Raises KeyError for a name that is none, ReconstructionError if
    no head stands out in the photo.
    """
    if name == "auto":
        return reconstruct(model, aligned, steps, compute, report, preview, seed, check)
    method = METHODS[name]
    if name not in ("warpgan", "triplanenet") and not steps.tuning:
        usual = PRESETS["balanced"]
        steps = replace(steps, latent=usual.latent, tuning=usual.tuning)
    return method.run(Work(model, aligned, steps, compute, report, preview, seed, check))
