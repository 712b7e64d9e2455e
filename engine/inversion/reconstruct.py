"""From a photo to a head field: the stages of the default system, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from engine.cameras import Camera
from engine.checkpoints.default import DefaultModel
from engine.device import Compute
from engine.fields.head import HeadField
from engine.inversion import appearance, fit, pose, shape
from engine.inversion.beard import beard_of
from engine.inversion.beyond import beyond
from engine.inversion.colours import (
    POINTS,
    QUICK_POINTS,
    Fitted,
    planes_of,
    quick_planes,
    see_photo,
    sided,
    strands_of,
    target_of,
)
from engine.inversion.cut import QUICK, cut_out, without_glasses
from engine.inversion.hair import likely_mass
from engine.inversion.inpaint import inpainted_views, with_views
from engine.inversion.outline import pictures, to_outline
from engine.inversion.perceive import look_at, refined, signed
from engine.inversion.pseudo import SIZE as VIEW
from engine.inversion.pseudo import PseudoView
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte
from engine.portrait.perception import CLASSES, SIZE, Perception

CROP = 512
COARSE_VIEW, COARSE_STEPS = 96, 6  # pixels a side; steps of colours
SKIN, HAIR = CLASSES.index("skin"), CLASSES.index("hair")


@dataclass(frozen=True)
class Steps:
    """How much work each stage does (optimisation steps), on how many pixels a side the appearance
    is fitted, and yaw and pitch (degrees) of the views that are inpainted. coarse: matte and
    views have fewer pixels a side, and what the steps leave of the outline is put right in one
    (see outline.to_outline)."""

    silhouette: int
    latent: int
    tuning: int
    planes: int
    pixels: int
    views: tuple[tuple[float, float], ...] = ()
    coarse: bool = False


PRESETS = {
    "fast": Steps(silhouette=40, latent=5, tuning=0, planes=0, pixels=128),
    "balanced": Steps(silhouette=90, latent=30, tuning=50, planes=60, pixels=192),
    "best": Steps(silhouette=140, latent=60, tuning=200, planes=300, pixels=256),
}


@dataclass
class Reconstruction:
    """The field, the camera of the aligned crop in its space, the matte, the fitted shape, and how
    far each pixel of the crop may colour the head: float32 [512, 512] in 0..1; ws [1, n, w]: the
    w+ whose colours the field has, or was tuned from; views: pseudo-views that it learned from."""

    field: HeadField
    camera: Camera
    matte: Matte
    shape: shape.Shape
    trust: np.ndarray
    ws: Tensor
    views: list[PseudoView] = dataclasses.field(default_factory=list)


Report = Callable[[float, str], None]


def perceive(model: DefaultModel, crop: np.ndarray, compute: Compute) -> Perception:
    """The small network's view of an aligned crop uint8 [512, 512, 3]."""
    with torch.no_grad():
        seen = look_at(model.space, model.perception, crop, compute)
        return refined(model.space, model.perception, seen)


def first_guess(model: DefaultModel, seen: Perception) -> shape.Shape:
    """The network's numbers as a shape."""
    r = shape.RESIDUAL
    return shape.Shape(
        identity=seen.identity[0].float().clamp(-2.5, 2.5),
        expression=seen.expression[0].float().clamp(-3, 3),
        hair=hair_weights(seen.hair[0].float()),
        offset=torch.zeros(()),
        residual=torch.zeros(1, r, r, r),
        pose=seen.pose[0].float(),
    )


def hair_weights(logits: Tensor) -> Tensor:
    """Weights of the hair styles, mirrored styles and bald [styles] from the network's logits.

    Between styles softened, the more the less sure the network is: on photos it is often wrong, and
    a mix has no braid that nobody saw. Between a style and its mirror image sharpened, since their
    mix fits neither side.
    """
    n = len(logits) // 2
    sides = logits[: 2 * n].reshape(2, n)
    styles = torch.cat([sides.logsumexp(0), logits[2 * n :]])
    sure = styles.softmax(0).max()
    weights = ((0.4 + 0.8 * sure**4) * styles).softmax(0)
    return torch.cat([((2 * sides).softmax(0) * weights[:n]).flatten(), weights[n:]])


def tidy_labels(labels: np.ndarray) -> np.ndarray:
    """Hair in specks (shadows on a neck, say) is skin: labels uint8 [S, S] without them."""
    parts, count = ndimage.label(labels == HAIR)
    if count == 0:
        return labels
    sizes = ndimage.sum_labels(np.ones_like(parts), parts, np.arange(1, count + 1))
    small = np.flatnonzero(sizes < 0.05 * sizes.max()) + 1
    return np.where(np.isin(parts, small), SKIN, labels)


def trusted_pixels(cut: Matte, labels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The matte, fading towards clothes and out over dark specks on the skin (where the tidy
    labels differ): a collar's shadow should not end in a line on the neck."""
    specks = labels != cut.labels
    fade = np.ones(cut.alpha.shape)
    for near, start, reach in ((cut.clothes, 0.012, 0.04), (specks, 0.008, 0.03)):
        if near.any():
            away = ndimage.distance_transform_edt(~near) / len(near)
            fade *= np.clip((away - start) / reach, 0, 1) ** 2
    return (cut.alpha * valid * fade).astype(np.float32)


def encode(model: DefaultModel, crop: np.ndarray, alpha: np.ndarray, compute: Compute) -> Tensor:
    """w+ [1, n, w] of the crop with all but the head blacked out."""
    x = signed(crop)
    mask = torch.from_numpy(alpha)[None, None].float()
    x = F.interpolate(torch.cat([x * mask, mask], 1), (SIZE, SIZE), mode="area")
    with torch.no_grad(), compute.autocast():
        return model.encoder(x).float()


def _planes(
    model: DefaultModel, aligned: Aligned, cut: Matte, compute: Compute
) -> tuple[Tensor, Tensor]:
    """w+ [1, n, w] of the photo and the generator's planes [1, 4, C, P, P] for it."""
    ws = encode(model, aligned.crop, cut.alpha, compute)
    with torch.no_grad(), compute.autocast():
        return ws, model.generator.planes(ws).float()


def _learned(model: DefaultModel, fitted: shape.Shape, planes: Tensor) -> Tensor:
    """The generator's residual of the distance, see shape.learned_lattice."""
    return shape.learned_lattice(
        model.space, fitted, lambda points: model.generator(planes, points[None])[1][0]
    )


def _field(
    model: DefaultModel,
    fitted: shape.Shape,
    learned: Tensor,
    planes: Tensor,
    check: Callable[[], None] = lambda: None,
    thicker: Callable[[Tensor], Tensor] | None = None,
) -> HeadField:
    """The head of a shape in the generator's colours; thicker: as shape.bake takes it."""
    distance, warp = shape.bake(model.space, fitted, learned, check=check, thicker=thicker)
    info = {"model": model.config.get("name", ""), "version": model.config.get("version")}
    info["coefficients"] = fitted.coefficients()
    return HeadField(distance, warp, planes[0], model.generator.decoder, model.space.bounds, info)


def encode_only(model: DefaultModel, aligned: Aligned, compute: Compute) -> Reconstruction:
    """What the networks alone say of an aligned crop: no landmark, outline or colour is fitted.

    The shape is the perception network's coefficients, hair style and camera, the colours the
    encoder's. For measuring the networks, and the start of every fit. Raises ReconstructionError
    if no head stands out in the photo.
    """
    seen = perceive(model, aligned.crop, compute)
    cut = cut_out(aligned, seen)
    ws, planes = _planes(model, aligned, cut, compute)
    guess = first_guess(model, seen)
    field = _field(model, guess, _learned(model, guess, planes), planes)
    trust = trusted_pixels(cut, tidy_labels(cut.labels), aligned.valid)
    return Reconstruction(field, pose.to_camera(guess.pose, CROP), cut, guess, trust, ws)


def fit_head(
    model: DefaultModel,
    aligned: Aligned,
    silhouette: int,
    compute: Compute,
    report: Report,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
    coarse: bool = False,
) -> Fitted:
    """Shape and camera of an aligned crop: landmarks, then `silhouette` steps on matte and
    hairline; in the encoder's colours. coarse: see Steps. Raises ReconstructionError if no head
    stands out."""
    report(0.0, "reading the portrait")
    seen = perceive(model, aligned.crop, compute)
    report(0.04, "cutting out the head")
    cut = cut_out(aligned, seen, check, QUICK if coarse else 0)
    report(0.12, "encoding the appearance")
    ws, planes = _planes(model, aligned, cut, compute)
    report(0.14, "fitting the shape")
    landmarks, spread = seen.landmarks[0].float(), seen.spread[0].float()
    guess = first_guess(model, seen)
    error = model.perception.refine.error
    guess = dataclasses.replace(guess, mass=likely_mass(model.space, guess.hair))
    fitted = fit.fit_landmarks(model.space, guess, landmarks, spread, error, check)
    learned = _learned(model, fitted, planes)
    labels, unknown = tidy_labels(cut.labels), ~aligned.valid | cut.clothes
    shown = pictures(cut.alpha, labels == HAIR, unknown)
    fitted = fit.fit_silhouette(
        model.space,
        fitted,
        cut.alpha,
        labels,
        unknown,
        landmarks,
        spread,
        learned,
        error,
        silhouette,
        seed,
        check,
        beyond(model, aligned, cut, compute, check),
        beard_of(model.space, fitted, *shown[1:]),
    )
    if coarse:
        canonical = shape.Canonical(model.space)
        learned = learned + to_outline(model.space, fitted, canonical, learned, *shown)
    report(0.36, "building the field")
    field = _field(model, fitted, learned, planes, check, shape.neck)
    camera = pose.to_camera(fitted.pose, CROP)
    trust = trusted_pixels(cut, labels, aligned.valid)
    return Fitted(field, camera, cut, labels, trust, fitted, learned, ws, landmarks, spread)


def reconstruct(
    model: DefaultModel,
    aligned: Aligned,
    steps: Steps,
    compute: Compute,
    report: Report,
    preview: Callable[[HeadField, Camera], None],
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Reconstruction:
    """The whole way from an aligned crop to a field.

    report(fraction of this function's work, step name); preview(field, camera) is called when
    there is something new to see. Raises ReconstructionError if no head stands out in the photo.
    """
    head = fit_head(model, aligned, steps.silhouette, compute, report, seed, check, steps.coarse)
    head = dataclasses.replace(head, trust=without_glasses(head.trust, head.matte))
    preview(head.field, head.camera)
    ws, views = _fit_appearance(model, head, aligned, steps, compute, report, seed, check)
    preview(head.field, head.camera)
    return Reconstruction(head.field, head.camera, head.matte, head.shape, head.trust, ws, views)


def _fit_appearance(
    model: DefaultModel,
    head: Fitted,
    aligned: Aligned,
    steps: Steps,
    compute: Compute,
    report: Report,
    seed: int,
    check: Callable[[], None],
) -> tuple[Tensor, list[PseudoView]]:
    """Gives the field the photo's colours: planes and decoder of the generator tuned to it, or, in
    no steps, the encoder's planes in the photo's tone; and strands on unseen hair. Where views are
    wanted, they are inpainted from w+'s colours, and learned from with the photo. Returns the
    refined w+ [1, n, w], and the views."""
    report(0.4, "reading the photo's colours")
    field, hair = head.field, head.hair
    seen = see_photo(head, aligned, steps.pixels)
    ws = appearance.refine_latent(
        model.generator,
        head.ws,
        seen,
        steps.latent,
        compute,
        lambda f: report(0.4 + 0.15 * f, "refining the style code"),
        hair,
    )
    quick = not (steps.tuning or steps.planes)
    planes = planes_of(model.generator, ws, hair, compute)
    target, covered = target_of(model, head, planes, seen, QUICK_POINTS if quick else POINTS, seed)
    check()
    strands = strands_of(head, aligned, target, covered)
    views = []
    if steps.views:
        report(0.55, "painting what the photo does not show")
        field.planes = planes[0]
        size = COARSE_VIEW if steps.coarse else VIEW
        views = inpainted_views(head, aligned, ws, steps.views, strands, check, size)
        target = with_views(target, field, views)
    if quick:
        few = COARSE_STEPS if steps.coarse else appearance.MATCH_STEPS
        field.planes = quick_planes(model, planes, target, check, few)[0]
    else:
        tuned = appearance.tune(
            model.generator,
            ws,
            target,
            steps.tuning,
            compute,
            lambda f: report(0.55 + 0.25 * f, "tuning to the photo"),
            seed,
            hair,
        )
        planes = appearance.sharpen(
            tuned,
            sided(planes_of(tuned, ws, hair, compute)),
            target,
            steps.planes,
            lambda f: report(0.8 + 0.2 * f, "sharpening the planes"),
            seed,
        )
        field.planes, field.decoder = planes[0], tuned.decoder
    field.strands = strands
    return ws, views
