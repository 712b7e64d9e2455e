"""Find faces and their five points: MTCNN, a cascade of three small networks.

Zhang et al., Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks,
2016 (the networks: engine/portrait/mtcnn.py). A fully convolutional network proposes windows on an
image pyramid, a second one rejects most of them, a third one answers the final box and five points.

Coordinates are continuous pixels: the first pixel covers 0..1, its centre is at 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from engine.errors import NoFaceError, ParameterError
from engine.portrait.mtcnn import networks

WORKING_SIDE = 2048  # long side of the copy that is searched; faces from 1/100 of it are found
TURNED_SIDE = 1024  # of the copy that is searched lying on its side, when nothing stands upright
SMALLEST_FACE = 20  # pixels of that copy
PYRAMID_STEP = 0.709  # about sqrt(1/2): the area halves from level to level, as in the paper
THRESHOLDS = (0.6, 0.7, 0.9)  # score needed to pass each network; the last one decides
CANDIDATES = 2000  # windows that go on from the first network, the best ones

POINT_NAMES = (
    "eye on the left of the image",
    "eye on the right of the image",
    "tip of the nose",
    "corner of the mouth on the left of the image",
    "corner of the mouth on the right of the image",
)
_MIRRORED_POINTS = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class Face:
    """A found face, in continuous pixels of the photo.

    box: (x0, y0, x1, y1). score: 0..1. points: float32 [5, 2], in the order of POINT_NAMES: the
    image's left is the subject's right.
    """

    box: tuple[float, float, float, float]
    score: float
    points: np.ndarray

    @property
    def area(self) -> float:
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


def find_points(
    rgb: np.ndarray,
    points: Sequence[float] | np.ndarray = (),
    face_index: int = 0,
    check: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, list[Face]]:
    """The five points to go on with, and the faces that were found.

    rgb: uint8 [H, W, 3]. points: ten numbers or [5, 2], placed by the user: taken as they are,
    nothing is searched. Empty: the faces are searched and face_index chooses, 0 being the largest.

    Returns (float32 [5, 2], faces). Raises NoFaceError when none is found, ParameterError when
    face_index is out of range or the points are not five usable points on the photo.
    """
    given = np.asarray(points, dtype=np.float32)
    if given.size:
        return _checked_points(given, rgb.shape[1], rgb.shape[0]), []
    faces = detect_faces(rgb, check)
    if not faces:
        raise NoFaceError(
            "No face was found in the photo.",
            "Place the five points by hand (both eyes, the tip of the nose, both corners of the "
            "mouth, in pixels of the photo) or choose a photo that shows the face from the front.",
        )
    if not 0 <= face_index < len(faces):
        count = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
        raise ParameterError(
            f"There is no face number {face_index}: {count} found.",
            f"Choose a number from 0 (the largest face) to {len(faces) - 1}.",
        )
    return faces[face_index].points, faces


def _checked_points(points: np.ndarray, width: int, height: int) -> np.ndarray:
    remedy = "Give x and y, in pixels of the photo, of: the " + ", the ".join(POINT_NAMES) + "."
    if points.size != 10 or not np.isfinite(points).all():
        raise ParameterError("The points of the face must be five pairs of numbers.", remedy)
    points = points.reshape(5, 2).copy()
    size = np.array([width, height])
    if (points < -0.5 * size).any() or (points > 1.5 * size).any():
        raise ParameterError(f"A point lies far outside the photo ({width} x {height}).", remedy)
    across = points[1] - points[0]
    down = points[3:].mean(0) - points[:2].mean(0)
    if min(np.hypot(*across), np.hypot(*down)) < 4.0:
        raise ParameterError("The points of the face lie on top of one another.", remedy)
    if across[0] * down[1] - across[1] * down[0] < 0:  # the subject's left and right, swapped
        points = points[_MIRRORED_POINTS]
    return points


def detect_faces(rgb: np.ndarray, check: Callable[[], None] = lambda: None) -> list[Face]:
    """Every face in a photo, the largest box first.

    rgb: uint8 [H, W, 3]. Where nothing is found upright the photo is searched turned by a quarter
    and by half (scans, and pictures that lost their orientation tag). check is called between
    steps of at most a few tenths of a second and may raise to cancel.
    """
    faces = _detect_upright(rgb, WORKING_SIDE, check)
    for quarters in (1, 3, 2):
        if faces:
            break
        turned = _detect_upright(np.rot90(rgb, quarters), TURNED_SIDE, check)
        faces = [_turned_back(face, quarters, rgb.shape[1], rgb.shape[0]) for face in turned]
    return sorted(faces, key=lambda face: -face.area)


def _turned_back(face: Face, quarters: int, width: int, height: int) -> Face:
    """A face found in np.rot90(photo, quarters), in the photo's own pixels."""

    def back(xy: np.ndarray) -> np.ndarray:
        x, y = xy[..., 0], xy[..., 1]
        if quarters == 1:
            return np.stack([width - y, x], -1)
        if quarters == 2:
            return np.stack([width - x, height - y], -1)
        return np.stack([y, height - x], -1)

    corners = back(np.array(face.box).reshape(2, 2))
    low, high = corners.min(0), corners.max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return Face(box, face.score, back(face.points).astype(np.float32))


@torch.no_grad()
def _detect_upright(rgb: np.ndarray, side: int, check: Callable[[], None]) -> list[Face]:
    nets = networks()
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    scale = min(1.0, side / max(picture.size))
    if scale < 1.0:
        size = tuple(max(1, round(n * scale)) for n in picture.size)
        picture = picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    to_photo = np.array([rgb.shape[1] / picture.size[0], rgb.shape[0] / picture.size[1]])
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    image = (image - 127.5) / 128.0

    boxes = _propose(nets["pnet"], image, check)
    boxes, out = _filter(nets["rnet"], image, boxes, 24, THRESHOLDS[1], check)
    boxes = _square(_moved(boxes, out["box"]))[_keep(boxes, out["score"], 0.7)]
    boxes, out = _filter(nets["onet"], image, boxes, 48, THRESHOLDS[2], check)
    boxes = _moved(boxes, out["box"])
    kept = _keep(boxes, out["score"], 0.7, of_smaller=True)
    faces = []
    for box, score in zip(boxes[kept], out["score"][kept], strict=True):
        check()
        points = _refined_points(nets["onet"], image, box) * to_photo
        corners = (box.reshape(2, 2) * to_photo).reshape(4)
        faces.append(Face(tuple(map(float, corners)), float(score), points.astype(np.float32)))
    return faces


def _propose(net: nn.Module, image: torch.Tensor, check: Callable[[], None]) -> np.ndarray:
    """Square windows [N, 4] where the first network sees a face, at all scales."""
    window, stride = 12, 2
    height, width = image.shape[1:]
    scale = window / SMALLEST_FACE
    found, scores = [np.zeros((0, 4))], [np.zeros(0)]
    while min(height, width) * scale >= window:
        check()
        size = (max(window, round(height * scale)), max(window, round(width * scale)))
        out = net(F.interpolate(image[None], size=size, mode="area"))
        score = out["score"][0].numpy()
        rows, columns = np.nonzero(score >= THRESHOLDS[0])
        corner = np.stack([columns, rows], 1) * float(stride)
        ratio = np.array([width / size[1], height / size[0]])
        boxes = np.concatenate([corner * ratio, (corner + window) * ratio], 1)
        boxes = _moved(boxes, out["box"][0, :, rows, columns].T.numpy())
        kept = _keep(boxes, score[rows, columns], 0.5)
        found.append(boxes[kept])
        scores.append(score[rows, columns][kept])
        scale *= PYRAMID_STEP
    boxes, score = np.concatenate(found), np.concatenate(scores)
    return _square(boxes[_keep(boxes, score, 0.7)[:CANDIDATES]])


def _filter(
    net: nn.Module,
    image: torch.Tensor,
    boxes: np.ndarray,
    size: int,
    threshold: float,
    check: Callable[[], None],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The boxes (rounded to whole pixels) whose score passes, and the network's answers there."""
    boxes = np.rint(boxes[(boxes[:, 2] - boxes[:, 0]) >= 2])
    kept_boxes: list[np.ndarray] = [boxes[:0]]
    answers: list[dict[str, np.ndarray]] = []
    for start in range(0, max(len(boxes), 1), 128):
        check()
        part = boxes[start : start + 128]
        out = {k: v.numpy() for k, v in net(_crops(image, part, size)).items()}
        good = out["score"] > threshold
        kept_boxes.append(part[good])
        answers.append({k: v[good] for k, v in out.items()})
    merged = {k: np.concatenate([a[k] for a in answers]) for k in answers[0]}
    return np.concatenate(kept_boxes), merged


def _crops(image: torch.Tensor, boxes: np.ndarray, size: int) -> torch.Tensor:
    """[N, 3, size, size] of whole-pixel boxes [N, 4]; black outside the image, as in training."""
    crops = torch.empty(len(boxes), 3, size, size)
    height, width = image.shape[1:]
    for i, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        inside = image[:, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        pad = (max(-x0, 0), max(x1 - width, 0), max(-y0, 0), max(y1 - height, 0))
        if 0 in inside.shape:
            crops[i] = -1.0
            continue
        crop = F.pad(inside, pad, value=-127.5 / 128)[None]
        grows = x1 - x0 < size
        mode = {"mode": "bilinear", "align_corners": False} if grows else {"mode": "area"}
        crops[i] = F.interpolate(crop, size=(size, size), **mode)[0]
    return crops


def _refined_points(net: nn.Module, image: torch.Tensor, box: np.ndarray) -> np.ndarray:
    """The five points [5, 2] as the mean of the third network's answers over shifted, scaled and
    mirrored windows: steadier than one answer, whose grid is only 48 pixels wide."""
    side = max(box[2] - box[0], box[3] - box[1])
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    windows = []
    for grow in (0.85, 0.95, 1.05):
        for shift in ((0, 0), (-0.04, 0), (0.04, 0), (0, -0.04), (0, 0.04)):
            half = max(1.0, np.rint(side * grow / 2))
            middle = np.rint(centre + np.array(shift) * side)
            windows.append(np.concatenate([middle - half, middle + half]))
    boxes = np.array(windows)
    crops = _crops(image, boxes, 48)
    answers = net(torch.cat([crops, crops.flip(3)]))
    offsets = np.stack([answers["points"][:, :5], answers["points"][:, 5:]], 2)  # all x, then all y
    straight, mirrored = np.split(offsets, 2)
    mirrored = mirrored[:, _MIRRORED_POINTS]
    mirrored[..., 0] = 1 - mirrored[..., 0]
    corner, extent = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
    points = np.concatenate([corner + straight * extent, corner + mirrored * extent])
    return np.median(points, 0)


def _moved(boxes: np.ndarray, regression: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] with their corners moved by fractions [N, 4] of their sizes."""
    extent = boxes[:, 2:] - boxes[:, :2]
    return boxes + regression * np.concatenate([extent, extent], 1)


def _square(boxes: np.ndarray) -> np.ndarray:
    """The squares around the boxes' centres with their longer sides."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True, initial=0) / 2
    return np.concatenate([centre - half, centre + half], 1)


def _keep(
    boxes: np.ndarray, scores: np.ndarray, limit: float, of_smaller: bool = False
) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes to keep, best first. A box goes when a better
    one overlaps it by more than `limit` of their union, or, of_smaller, of the smaller one."""
    order = np.argsort(-scores, kind="stable")
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), 1)
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.prod(np.maximum(high - low, 0), 1)
        smaller = np.minimum(area[best], area[rest])
        whole = smaller if of_smaller else area[best] + area[rest] - shared
        order = rest[shared <= limit * np.maximum(whole, 1e-9)]
    return np.array(kept, dtype=int)
