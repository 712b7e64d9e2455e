"""From a photo to a head field: the stages of the default system, in order."""

from __future__ import annotations

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
from engine.errors import ReconstructionError
from engine.fields.head import HeadField
from engine.inversion import appearance, fit, pose, shape, unseen
from engine.inversion.perceive import look, refined
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte, matte
from engine.portrait.perception import CLASSES, SIZE, Perception

CROP = 512
SKIN, HAIR = CLASSES.index("skin"), CLASSES.index("hair")


@dataclass(frozen=True)
class Steps:
    """How much work each stage does (optimisation steps), and on how many pixels a side the
    appearance is fitted."""

    silhouette: int
    latent: int
    tuning: int
    planes: int
    pixels: int


PRESETS = {
    "fast": Steps(silhouette=40, latent=0, tuning=0, planes=0, pixels=128),
    "balanced": Steps(silhouette=90, latent=30, tuning=50, planes=60, pixels=192),
    "best": Steps(silhouette=140, latent=60, tuning=200, planes=300, pixels=256),
}


@dataclass
class Reconstruction:
    """The field, the camera of the aligned crop in its space, the matte, the fitted shape, and how
    far each pixel of the crop may colour the head: float32 [512, 512] in 0..1."""

    field: HeadField
    camera: Camera
    matte: Matte
    shape: shape.Shape
    trust: np.ndarray


Report = Callable[[float, str], None]


def perceive(model: DefaultModel, crop: np.ndarray, compute: Compute) -> Perception:
    """The small network's view of an aligned crop uint8 [512, 512, 3]."""
    with torch.no_grad():
        with compute.autocast():
            picture = F.interpolate(_signed(crop), (SIZE, SIZE), mode="area")
            seen = look(model.space, model.perception, picture)
        return refined(model.space, model.perception, seen)


def _signed(crop: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> [1, 3, H, W] in -1..1, as the networks take pictures."""
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1


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
    x = _signed(crop)
    mask = torch.from_numpy(alpha)[None, None].float()
    x = F.interpolate(torch.cat([x * mask, mask], 1), (SIZE, SIZE), mode="area")
    with torch.no_grad(), compute.autocast():
        return model.encoder(x).float()


def _cut_out(aligned: Aligned, seen: Perception, check: Callable[[], None] = lambda: None) -> Matte:
    """The head's matte. Raises ReconstructionError if no head stands out in the photo."""
    cut = matte(
        aligned.crop,
        seen.classes.float().softmax(1)[0].numpy(),
        alpha=aligned.alpha,
        valid=aligned.valid,
        check=check,
    )
    if cut.alpha.mean() < 0.03:
        raise ReconstructionError(
            "The head could not be told from the background.",
            "Use a photo with a plainer background, or one with the background cut out.",
        )
    return cut


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
) -> HeadField:
    """The head of a shape in the generator's colours."""
    distance, warp = shape.bake(model.space, fitted, learned, check=check)
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
    cut = _cut_out(aligned, seen)
    _, planes = _planes(model, aligned, cut, compute)
    guess = first_guess(model, seen)
    field = _field(model, guess, _learned(model, guess, planes), planes)
    trust = trusted_pixels(cut, tidy_labels(cut.labels), aligned.valid)
    return Reconstruction(field, pose.to_camera(guess.pose, CROP), cut, guess, trust)


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
    report(0.0, "reading the portrait")
    seen = perceive(model, aligned.crop, compute)
    report(0.04, "cutting out the head")
    cut = _cut_out(aligned, seen, check)
    report(0.12, "encoding the appearance")
    ws, planes = _planes(model, aligned, cut, compute)
    report(0.14, "fitting the shape")
    landmarks, spread = seen.landmarks[0].float(), seen.spread[0].float()
    guess = first_guess(model, seen)
    error = model.perception.refine.error
    fitted = fit.fit_landmarks(model.space, guess, landmarks, spread, error, check)
    learned = _learned(model, fitted, planes)
    labels = tidy_labels(cut.labels)
    fitted = fit.fit_silhouette(
        model.space,
        fitted,
        cut.alpha,
        labels,
        ~aligned.valid | cut.clothes,
        landmarks,
        spread,
        learned,
        error,
        steps.silhouette,
        seed,
        check,
    )
    report(0.36, "building the field")
    field = _field(model, fitted, learned, planes, check)
    camera = pose.to_camera(fitted.pose, CROP)
    preview(field, camera)
    trust = trusted_pixels(cut, labels, aligned.valid)
    _fit_appearance(
        model, field, camera, aligned, trust, labels, fitted, learned, ws, steps, compute, report,
        seed, check,
    )  # fmt: skip
    preview(field, camera)
    return Reconstruction(field, camera, cut, fitted, trust)


def _fit_appearance(
    model: DefaultModel,
    field: HeadField,
    camera: Camera,
    aligned: Aligned,
    trust: np.ndarray,
    labels: np.ndarray,
    fitted: shape.Shape,
    learned: Tensor,
    ws: Tensor,
    steps: Steps,
    compute: Compute,
    report: Report,
    seed: int,
    check: Callable[[], None],
) -> None:
    """Gives the field the photo's colours: planes and decoder of the generator tuned to it, or, in
    no steps, the encoder's planes in the photo's tone; and strands on unseen hair."""
    report(0.4, "reading the photo's colours")
    hair = fitted.hair[None]  # known better than from w+
    size = steps.pixels
    picture = torch.from_numpy(aligned.crop).permute(2, 0, 1)[None].float() / 255
    picture = F.interpolate(picture, (size, size), mode="area")[0].permute(1, 2, 0)
    alpha = F.interpolate(torch.from_numpy(trust)[None, None].float(), (size, size), mode="area")
    seen = appearance.see(field, camera.resized(size, size), picture, alpha[0, 0])
    if len(seen.colour) < 0.005 * size * size:
        raise ReconstructionError(
            "The fitted head does not lie on the photo's.",
            "Place the five points by hand and try again.",
        )
    ws = appearance.refine_latent(
        model.generator,
        ws,
        seen,
        steps.latent,
        compute,
        lambda f: report(0.4 + 0.15 * f, "refining the style code"),
        hair,
    )
    quick = not (steps.tuning or steps.planes)
    with torch.no_grad(), compute.autocast():
        planes = model.generator.planes(ws, hair).float()
    target, covered = _target(
        model, field, fitted, learned, planes, seen, 12000 if quick else 40000, seed
    )
    check()
    pixel = float(np.linalg.norm(camera.position) / (camera.intrinsics[0, 0] * camera.width))
    in_photo = (labels == HAIR) & (trust > 0.9)
    strands = unseen.strands(
        target.everywhere, covered, seen, field.bounds, aligned.crop, in_photo, pixel
    )
    if quick:
        field.planes = _quickly(model, planes, target, check)[0]
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
        with torch.no_grad(), compute.autocast():
            planes = tuned.planes(ws, hair).float()
        planes = appearance.sharpen(
            tuned,
            planes,
            target,
            steps.planes,
            lambda f: report(0.8 + 0.2 * f, "sharpening the planes"),
            seed,
        )
        field.planes, field.decoder = planes[0], tuned.decoder
    field.strands = strands


def _quickly(
    model: DefaultModel, planes: Tensor, target: appearance.Target, check: Callable[[], None]
) -> Tensor:
    """The planes with the photo's colours where it sees, the expected ones elsewhere, broadly."""
    seen = target.seen
    few = torch.arange(0, len(seen.colour), max(1, len(seen.colour) // 5000))
    points = torch.cat([target.everywhere[::2], seen.canonical[few]])
    wanted = torch.cat([target.expected[::2], seen.colour[few]])
    weight = torch.cat([target.hidden[::2], seen.weight[few]])
    return appearance.match(model.generator, planes, points, wanted, weight, check)


@torch.no_grad()
def _target(
    model: DefaultModel,
    field: HeadField,
    fitted: shape.Shape,
    learned: Tensor,
    planes: Tensor,
    seen: appearance.Seen,
    count: int,
    seed: int,
) -> tuple[appearance.Target, Tensor]:
    """The photo's colours, and those of the generator's planes [1, 4, C, P, P] in the photo's tone
    everywhere else (at `count` points); and how far these lie under hair [count]."""
    everywhere = appearance.surface_points(field, count, seed)
    points = torch.cat([everywhere, seen.canonical])
    colour = model.generator(planes, points[None])[0][0]
    mass = model.space.hair(fitted.hair, fitted.offset)
    skin, hair = shape.skin_and_hair(model.space, points, mass, fitted.residual, learned)
    covered, n = unseen.under_hair(points, skin - hair), count
    toned = appearance.expected_colours(colour, covered, seen, colour[n:], covered[n:])
    expected = unseen.continued(
        everywhere, toned[:n], covered[:n], seen, toned[n:], covered[n:], field.bounds
    )
    return appearance.Target(seen, everywhere, expected), covered[:n]
