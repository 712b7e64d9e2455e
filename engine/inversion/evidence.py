"""What speaks for and against a reconstruction: the figures that the quality score is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull
from torch import Tensor

from engine.checkpoints.default import DefaultModel
from engine.device import Compute
from engine.inversion import appearance, fit, perceive
from engine.inversion.cut import has_glasses
from engine.inversion.quality import Evidence
from engine.inversion.reconstruct import CROP, Reconstruction, encode, first_guess
from engine.inversion.reconstruct import perceive as perceive_portrait
from engine.inversion.shape import Shape
from engine.portrait.align import Aligned, align
from engine.portrait.image import Photo
from engine.portrait.perception import CLASSES, SIZE
from engine.portrait.segment import lab
from engine.surface.metrics import iou

FACE = slice(17, 68)  # landmarks of brows, nose, eyes, mouth
FIVE = (range(36, 42), range(42, 48), (30,), (48,), (54,))  # MTCNN's points among the landmarks
ODD = 0.16  # a pixel's distance in 0..1 from the colour that a whole face would have there


@torch.no_grad()
def measure(
    model: DefaultModel,
    aligned: Aligned,
    made: Reconstruction,
    compute: Compute,
    points: np.ndarray | None = None,
    faces: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Evidence:
    """The evidence about a head made of an aligned crop [512, 512].

    points: [5, 2] in the photo's pixels, on which the crop was aligned; faces: how many were found
    there. Costs three runs of the perception network, one of encoder and generator, and a render at
    128 pixels.
    """
    found, rgb, face = _of_photo(model, aligned, made.shape, compute, points, faces)
    check()
    outline, likeness = _through_camera(aligned, made, rgb, face, check)
    glasses = made.matte.glasses > 0.5
    left = has_glasses(made.matte) and made.trust[glasses].mean() < 0.1
    found = replace(found, outline=outline, likeness=likeness, glasses=float(left))
    check()
    off = _unlike(model, aligned, made, compute, rgb, face)
    if len(off) > 100:
        rms, odd = float(off.square().mean().sqrt()), float((off > ODD).float().mean())
        found = replace(found, unlike=rms, odd=odd)
    return found


@torch.no_grad()
def measure_photo(
    model: DefaultModel,
    photo: Photo,
    compute: Compute,
    points: np.ndarray,
    faces: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Evidence:
    """What can be said of a photo whatever head is made of it: `model`'s own is fitted to the
    landmarks only. The rest as in measure()."""
    aligned = align(photo, points, CROP, model.config["widen"])
    seen = perceive_portrait(model, aligned.crop, compute)
    check()
    shape = fit.fit_landmarks(
        model.space, first_guess(model, seen), seen.landmarks[0].float(), seen.spread[0].float(),
        model.perception.refine.error, check,
    )  # fmt: skip
    return _of_photo(model, aligned, shape, compute, points, faces)[0]


def _of_photo(
    model: DefaultModel,
    aligned: Aligned,
    shape: Shape,
    compute: Compute,
    points: np.ndarray | None,
    faces: int,
) -> tuple[Evidence, Tensor, Tensor]:
    """Evidence that needs no field; the crop [SIZE, SIZE, 3] in 0..1; the face that the photo
    shows, bool [SIZE, SIZE]."""
    picture = torch.from_numpy(aligned.crop).permute(2, 0, 1)[None].float() / 255
    picture = F.interpolate(picture, (SIZE, SIZE), mode="area")
    with compute.autocast():
        seen = perceive.look(model.space, model.perception, picture * 2 - 1)
        alone = model.perception(picture * 2 - 1).landmarks.float()
    numbers = shape.identity[None], shape.expression[None], shape.pose[None]
    fitted = perceive.project(model.space, *numbers)[0]
    hull = face_hull(fitted[:68].numpy())
    inside = torch.from_numpy(hull)
    classes = seen.classes.float().softmax(1)[0]
    own = sum(classes[CLASSES.index(name)] for name in ("skin", "hair", "glasses"))
    entropy = -(classes * classes.clamp_min(1e-6).log()).sum(0)
    valid = np.array(Image.fromarray(aligned.valid).resize((SIZE, SIZE), Image.Resampling.NEAREST))
    rgb = picture[0].permute(1, 2, 0)
    colour = lab(rgb.numpy()[hull])
    off = math.nan
    if points is not None:
        moved = points @ aligned.to_crop[:2, :2].T + aligned.to_crop[:2, 2]
        five = np.stack([fitted[list(i)].mean(0).numpy() for i in FIVE])
        off = float(np.linalg.norm(moved / len(aligned.crop) - five, axis=1).mean())
    found = Evidence(
        points=100 * off,
        marks=100 * _apart(seen.landmarks[0], fitted),
        spread=100 * float(seen.spread[0, FACE].mean()),
        mirror=200 * _apart(alone[0], seen.landmarks[0]),
        doubt=float(entropy[inside].mean()),
        foreign=float((own[inside] < 0.5).float().mean()),
        shape=float(torch.cat([shape.identity, shape.expression]).square().mean().sqrt()),
        yaw=abs(math.degrees(float(shape.pose[0]))),
        outside=float((~valid[hull]).mean()),
        pixels=len(aligned.crop) / float(np.hypot(*aligned.to_crop[0, :2])),
        detail=_detail(aligned.crop, hull),
        chroma=float(np.sqrt((colour[:, 1:] ** 2).sum(1).mean())),
        light=float(rgb[inside].mean()),
        faces=float(faces),
    )
    return found, rgb, inside & torch.from_numpy(valid)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b)[FACE].norm(dim=1).mean())


def face_hull(places: np.ndarray) -> np.ndarray:
    """The face: mask [SIZE, SIZE] of the convex hull of places [N, 2] in 0..1, without its rim."""
    around = places[ConvexHull(places).vertices] * SIZE - 0.5
    mask = Image.new("1", (SIZE, SIZE))
    ImageDraw.Draw(mask).polygon([tuple(p) for p in around.tolist()], fill=1)
    mask = np.array(mask)
    inner = ndimage.binary_erosion(mask, iterations=3)
    return inner if inner.sum() > 60 else mask | (np.indices(mask.shape).sum(0) == SIZE)


def _through_camera(
    aligned: Aligned, made: Reconstruction, rgb: Tensor, face: Tensor, check: Callable[[], None]
) -> tuple[float, float]:
    """What field and photo disagree in, seen through its camera: 1 - intersection over union of
    the outlines, where the photo can tell, and the rms difference in the face."""
    seen = made.field.render(made.camera.resized(SIZE, SIZE), check)
    alpha = seen.alpha.float().cpu().reshape(SIZE, SIZE)
    image = seen.image.float().cpu().reshape(SIZE, SIZE, 3)

    def small(x: np.ndarray) -> np.ndarray:
        step = len(x) // SIZE
        return x.reshape(SIZE, step, SIZE, step).mean((1, 3)) > 0.5

    known = small(aligned.valid & ~made.matte.clothes)
    outline = 1 - iou((alpha.numpy() > 0.5) & known, small(made.matte.alpha) & known)
    face = face & (alpha > 0.5)
    off = (image - rgb)[face] if face.any() else torch.ones(1)
    return outline, float(off.square().mean().sqrt())


def _detail(crop: np.ndarray, hull: np.ndarray) -> float:
    half = np.asarray(Image.fromarray(crop).convert("L").resize((256, 256), Image.BOX), float)
    mask = np.kron(hull, np.ones((2, 2), bool))
    octaves, smooth = [], half
    for sigma in (0.8, 1.6, 3.2):
        broader = ndimage.gaussian_filter(half, sigma)
        octaves.append(np.sqrt(((smooth - broader)[mask] ** 2).mean()))
        smooth = broader
    return float(octaves[0] / (octaves[1] + octaves[2] + 1.0))


def _unlike(
    model: DefaultModel,
    aligned: Aligned,
    made: Reconstruction,
    compute: Compute,
    picture: Tensor,
    mask: Tensor,
) -> Tensor:
    """How far the photo's pixels [N] in `mask` [SIZE, SIZE] are from the encoder's colours there,
    once these have the photo's tone: its median, and as much of its contrast as it can explain."""
    camera = made.camera.resized(SIZE, SIZE)
    seen = appearance.see(made.field, camera, picture, mask.float())
    if len(seen.colour) < 100:
        return torch.zeros(0)
    ws = encode(model, aligned.crop, made.matte.alpha, compute)
    with compute.autocast():
        planes = model.generator.planes(ws, made.shape.hair[None]).float()
    colour = model.generator(planes, seen.canonical[None])[0][0]
    a, b = colour - colour.median(0).values, seen.colour - seen.colour.median(0).values
    gain = ((a * b).sum(0) / (a * a).sum(0).clamp_min(1e-6)).clamp(0.5, 1.5)
    return (b - gain * a).norm(dim=1)
