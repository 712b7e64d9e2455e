"""A photo as an EG3D model's own training pictures look, with the camera that belongs to it.

EG3D's portraits were cropped by what a face reconstruction found: a head at its true size, ten
decimetres before a camera whose axis goes through the middle of the face; the cameras were then put
on a sphere round the field's origin (radius 2.7, so that a field unit is 1 / 2.7 m) with one focal
length for all (Chan et al. 2022, supplement, section 4). Here the same follows from our five points
and our perception network's pose:

- The picture is turned upright by the points (FFHQ's rule); what roll the network still sees stays
  in the camera, as do its yaw and pitch: our head space and EG3D's field share their axes.
- The middle of the face is the reconstruction's origin: FACE_DOWN of the way from the eyes to the
  mouth, FACE_BACK behind them. The crop is centred where our pose projects it.
- The crop's side is what the camera shows at its radius: radius / focal * metres a unit (2.7 /
  4.2647 / 2.7 = 0.2345 m for faces); our pose says how many metres a pixel of the photo is.
- The camera looks at the model's pivot from its sphere: at pivot - t * forward, where t solves
  |pivot - t * forward| = radius.

Then the model itself is asked: its average head is looked at through that camera, our detector
finds the five points in the picture, and the crop is moved so that the photo's lie there. That
settles what a checkpoint's own pictures were cropped like, whatever they were. Where no face is
found (or one that would move the crop too far to be believed) the crop stays as derived.

No published checkpoint was at hand to compare this with; the refinement of the camera (optimise.py)
takes up what is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.cameras import Camera
from engine.checkpoints.default import DefaultModel
from engine.errors import NoFaceError, ReconstructionError
from engine.headspace.space import HeadSpace
from engine.inversion import pose as poses
from engine.inversion.reconstruct import CROP, perceive
from engine.portrait.align import Aligned, align, cut
from engine.portrait.detect import find_points
from engine.portrait.image import Photo
from engine.portrait.matte import Matte, matte
from engine.sampling.eg3d import EG3DSampler
from engine.systems.eg3d.config import EG3DConfig

EYES, MOUTH = slice(36, 48), (48, 54)  # of the 68 landmarks
FACE_DOWN, FACE_BACK = 0.43, 0.018  # share of the way from eyes to mouth; metres
LEAST_HEAD = 0.03  # of the picture
# How far a model's own average face may move the crop: by this factor, these degrees, this share
# of its side.
BELIEVED = 1.35, 10.0, 0.15
BEHIND = 0.3  # weight of the background in a model that paints it, against the head's 1


@dataclass(frozen=True)
class Portrait:
    """A photo ready for inversion.

    aligned: the crop uint8 [S, S, 3] that the model's picture should equal, its background as the
    model was trained, and which pixels are the photo's; camera: of that crop, in the model's field,
    before any refinement; matte: of the head; weight: float32 [S, S] in 0..1, how much each pixel
    counts.
    """

    aligned: Aligned
    camera: Camera
    matte: Matte
    weight: np.ndarray


def face_middle(space: HeadSpace) -> torch.Tensor:
    """The middle of the mean head's face [3], metres of head space; see the top of this file."""
    marks = space.fixed_landmarks()[0]
    eyes, mouth = marks[EYES].mean(0), marks[list(MOUTH)].mean(0)
    middle = torch.lerp(eyes, mouth, FACE_DOWN)
    return middle * torch.tensor([0.0, 1.0, 1.0]) - torch.tensor([0.0, 0.0, FACE_BACK])


def orbit_pose(config: EG3DConfig, rotation: np.ndarray) -> np.ndarray:
    """cam2world [4, 4] of the camera turned like `rotation` [3, 3] (OpenCV axes) that stands on the
    model's sphere and looks at its pivot."""
    pivot, radius = np.asarray(config.field.orbit_pivot, float), config.field.orbit_radius
    forward = rotation[:, 2]
    along = float(pivot @ forward)
    away = along + math.sqrt(max(along**2 + radius**2 - float(pivot @ pivot), 0.0))
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rotation, pivot - away * forward
    return out


def crop_matrix(config: EG3DConfig, face: torch.Tensor, pose: torch.Tensor) -> np.ndarray:
    """The similarity [3, 3] from the wide crop's places (0..1) to the model's crop (0..1), for a
    pose [6] of a head whose face's middle is `face` [3]."""
    centre = poses.project(face[None], pose)[0].double().numpy()
    origin = float(poses.translation(pose)[2])
    depth = float((poses.rotation(pose).T @ face)[2]) + origin
    metres = math.exp(float(pose[5])) * depth / origin  # the wide crop's side, at the face
    field = config.field
    scale = metres * config.camera_focal / (field.orbit_radius * field.metres_per_unit)
    out = np.diag([scale, scale, 1.0])
    out[:2, 2] = 0.5 - scale * centre
    return out


def align_portrait(
    model: DefaultModel,
    sampler: EG3DSampler,
    photo: Photo,
    points: np.ndarray,
    check: Callable[[], None] = lambda: None,
) -> Portrait:
    """The portrait that a model should be shown. points: [5, 2] pixels, as in alignment_matrix.
    Raises ReconstructionError if no head stands out in the photo."""
    config = sampler.config
    wide = align(photo, points, size=CROP, widen=model.config["widen"])
    seen = perceive(model, wide.crop, sampler.compute)
    check()
    probability = seen.classes.float().softmax(1)[0].numpy()
    found = matte(wide.crop, probability, alpha=wide.alpha, valid=wide.valid, check=check)
    if found.alpha.mean() < LEAST_HEAD:
        raise ReconstructionError(
            "The head could not be told from the background.",
            "Use a photo with a plainer background, or one with the background cut out.",
        )
    pose, size = seen.pose[0].float().cpu(), config.image_resolution
    unit = crop_matrix(config, face_middle(model.space), pose)
    to_crop = np.diag([size, size, 1.0]) @ unit @ np.diag([1 / CROP, 1 / CROP, 1.0])
    k = config.camera_focal
    camera = Camera(
        orbit_pose(config, poses.rotation(pose).double().numpy()),
        np.array([[k, 0, 0.5], [0, k, 0.5], [0, 0, 1]]),
        size,
        size,
        "photo",
    )
    whole = to_crop @ wide.to_crop
    placed = points @ whole[:2, :2].T + whole[:2, 2]
    to_crop = to_average_face(sampler, camera, placed, check) @ to_crop
    aligned = cut(photo, to_crop @ wide.to_crop, size)
    parts = (found.alpha, found.person, found.labels, found.glasses)
    own = Matte(*(_carried(m, to_crop, size) for m in parts))
    return posed(config, aligned, camera, own)


def to_average_face(
    sampler: EG3DSampler, camera: Camera, points: np.ndarray, check: Callable[[], None]
) -> np.ndarray:
    """The similarity [3, 3] from a crop's pixels, where a face has its points [5, 2], to where a
    camera sees those of the model's average head; the identity where that shows no face."""
    picture = sampler.picture(sampler.map(sampler.z(0), psi=0.0), camera, check)
    try:
        theirs = find_points(picture.image, check=check)[0]
    except NoFaceError:
        return np.eye(3)
    made = similarity(np.asarray(points, float), np.asarray(theirs, float))
    factor, turned = math.hypot(made[0, 0], made[1, 0]), math.atan2(made[1, 0], made[0, 0])
    middle = np.array([camera.width / 2, camera.height / 2, 1.0])
    away = np.linalg.norm((made @ middle - middle)[:2]) / camera.width
    believed = abs(math.log(factor)) < math.log(BELIEVED[0])
    believed &= abs(math.degrees(turned)) < BELIEVED[1] and away < BELIEVED[2]
    return made if believed else np.eye(3)


def similarity(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The similarity [3, 3] that takes points [N, 2] nearest to others, in the least squares."""
    p, q = (x[:, 0] + 1j * x[:, 1] for x in (points, to))
    away = p - p.mean()
    turn = (away.conj() * (q - q.mean())).sum() / max((abs(away) ** 2).sum(), 1e-12)
    shift = q.mean() - turn * p.mean()
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]]
    )


def posed(config: EG3DConfig, aligned: Aligned, camera: Camera, found: Matte) -> Portrait:
    """The portrait of an aligned crop: on white where the model was trained so (there all of the
    picture counts), else with its own background, which counts less than the head."""
    head = found.alpha.astype(np.float32)
    crop, background = aligned.crop, BEHIND
    if config.field.white_background:
        alpha = found.person[..., None]
        crop = (crop * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)
        background = 1.0
    weight = np.maximum(head, background) * (aligned.valid | (head > 0))
    return Portrait(replace(aligned, crop=crop), camera, found, weight.astype(np.float32))


def _carried(values: np.ndarray, to_crop: np.ndarray, size: int) -> np.ndarray:
    """Values [S, S] of the wide crop in the model's crop [size, size]: 0..1 smoothly, labels
    (uint8) from the nearest pixel; 0 beyond."""
    back = np.linalg.inv(to_crop)
    centres = np.arange(size) + 0.5
    at = np.stack(np.meshgrid(centres, centres), -1) @ back[:2, :2].T + back[:2, 2]
    grid = torch.from_numpy((at / len(values) * 2 - 1)[None].astype(np.float32))
    mode = "nearest" if values.dtype == np.uint8 else "bilinear"
    planes = torch.from_numpy(values)[None, None].float()
    got = torch.nn.functional.grid_sample(planes, grid, mode=mode, align_corners=False)
    return got[0, 0].numpy().astype(values.dtype)
