"""How far to trust a reconstruction: a score, and what the artist should know, in sentences.

Nobody knows the true head behind a photo, but several witnesses speak of it who do not copy each
other: the detector's five points and the network's 84; the network before the photo and before its
mirror image; the fitted shape and the outline; the encoder's colours, learned on whole faces, and
the photo's. Where they disagree, something is wrong. evidence.py collects the disagreements and
what the photo lacks; `judge` turns them into a score and warnings. How much each counts was learned
on held-out synthetic heads whose truth is known, whole and spoilt in many ways
(engine/training/calibrate_quality.py, which writes engine/weights/quality.json).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engine.errors import WeightsError

PATH = Path(__file__).resolve().parents[1] / "weights" / "quality.json"
FAR = 3.0  # how many usual spreads count at most
UNLIKELY = "This head may be far from the person in the photo."
DOUBTFUL = 0.45  # a score below it is worth a warning of its own
# Mean spreads beyond the usual of what says how well the face was read, and a score that is good
# all the same.
UNREAD, READ = 1.2, 0.75
UNUSUAL = 2.0  # spreads beyond the usual of the shape
OUTLINE = 0.1  # 1 - intersection over union
PROFILE = 38.0  # degrees of yaw: the fit, drawn to the front, gives less than there are
OUTSIDE = 0.1  # share of the face beyond the photo
COVERED = 0.38, 0.12  # shares of the face: odd, foreign
FEW_PIXELS = 150  # along the crop: some 50 across the face
SOFT = 0.16  # detail
GREY, DARK = 2.0, 0.12  # chroma, light


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against a reconstruction; nan where it is not known. The face is the
    hull of the fitted head's 68 landmarks in the crop; % are of the crop's side.

    points: mean distance of the five points from the fitted head's, %.
    marks: mean distance of the network's landmarks from the fitted head's, %.
    spread: the network's own doubt about the landmarks, %.
    mirror: mean distance between its landmarks of the picture and of the mirror image, %.
    doubt: entropy of its classes in the face, nats.
    foreign: share of the face that it takes for something else than skin, hair or glasses.
    unlike: rms difference in 0..1 between the photo's face and the encoder's, in the photo's tone.
    odd: share of the face more than ODD off that.
    outline: 1 - intersection over union of the field's outline and the matte.
    likeness: rms difference in 0..1 between the field's face and the photo's.
    shape: rms of the coefficients; 1 is usual.
    yaw: degrees from the front.
    outside: share of the face that lies beyond the photo.
    pixels: the photo's pixels along the crop's side.
    detail: share of contrast that the face's finest octave (2 to 4 pixels of 256) has of the next
        ones; 0 for a blurred photo.
    chroma: rms distance from grey of the face, CIE L*a*b* units.
    light: mean brightness of the face, 0..1.
    faces: how many the detector found.
    glasses: 1 where a pair in the photo colours nothing on the head, 0 else.
    """

    points: float = math.nan
    marks: float = math.nan
    spread: float = math.nan
    mirror: float = math.nan
    doubt: float = math.nan
    foreign: float = math.nan
    unlike: float = math.nan
    odd: float = math.nan
    outline: float = math.nan
    likeness: float = math.nan
    shape: float = math.nan
    yaw: float = math.nan
    outside: float = math.nan
    pixels: float = math.nan
    detail: float = math.nan
    chroma: float = math.nan
    light: float = math.nan
    faces: float = math.nan
    glasses: float = math.nan


@dataclass(frozen=True)
class Quality:
    """score: 0..1, about the chance that the head is as good as those of clean portraits usually
    are. warnings: sentences for the artist, the most important first."""

    score: float
    warnings: list[str]

    def to_json(self) -> dict:
        return {"score": round(self.score, 3), "warnings": list(self.warnings)}


@lru_cache(maxsize=1)
def calibration(path: Path = PATH) -> dict:
    """usual: figure -> [median, spread] of clean portraits; weights: figure -> how much a spread
    beyond the median counts against the head; bias. Raises WeightsError."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            "The quality score's calibration is missing.", "Install the extension again."
        ) from error


def deviations(evidence: Evidence, usual: dict[str, list[float]]) -> dict[str, float]:
    """How many spreads each figure of `usual` lies beyond the median of clean portraits, on the bad
    side, 0 to FAR; 0 where it is not known. usual: figure -> [median, spread to the bad side]; the
    spread of a figure that is bad when small is negative."""
    out = {}
    for name, (median, spread) in usual.items():
        value = getattr(evidence, name)
        off = (value - median) / spread if math.isfinite(value) else 0.0
        out[name] = min(max(off, 0.0), FAR)
    return out


def score(evidence: Evidence, learned: dict) -> float:
    """The score 0..1 by a calibration (see there): a logistic function of the deviations."""
    off = deviations(evidence, learned["usual"])
    risk = learned["bias"] + sum(learned["weights"][name] * off[name] for name in off)
    return 1 / (1 + math.exp(risk))


def judge(evidence: Evidence) -> Quality:
    """The score of a head and what to say of it. Raises WeightsError without calibration()."""
    learned = calibration()
    value = score(evidence, learned)
    found = _warnings(evidence, deviations(evidence, learned["usual"]), value)
    if value < DOUBTFUL:
        found.insert(0, UNLIKELY)
        if len(found) == 1:
            found[0] += " A sharp photo of the whole face, seen from the front, works best."
    return Quality(value, found)


def _warnings(seen: Evidence, off: dict[str, float], value: float) -> list[str]:
    """What is wrong with the photo and with what was read from it, the worst first."""
    found = []
    if seen.outside > OUTSIDE:
        found.append("Part of the face lies beyond the edge of the photo and is invented.")
    reading = [off[name] for name in ("points", "marks", "spread", "mirror")]
    if sum(reading) / len(reading) > UNREAD and value < READ:
        found.append(
            "The face was hard to read: it may be covered, or no photo of a face. Check the head's "
            "shape, or place the five points by hand."
        )
    if seen.glasses > 0:
        found.append(
            "The glasses were left off the head, and the face under them is invented: they are an "
            "object of their own."
        )
    elif seen.odd > COVERED[0] or seen.foreign > COVERED[1]:
        found.append(
            "Something covers part of the face, or its colours are not those of skin: they are on "
            "the head as they are in the photo."
        )
    if seen.yaw > PROFILE:
        found.append(
            f"The face is turned by about {seen.yaw:.0f} degrees or more: what the photo does not "
            "show is made from the side that it does."
        )
    if seen.outline > OUTLINE:
        found.append("The head's outline differs from the one in the photo.")
    if off["shape"] > UNUSUAL:
        found.append("The head's shape is unusual: something in the photo may have misled it.")
    if seen.pixels < FEW_PIXELS:
        found.append(
            f"The face is small in the photo (the head is {seen.pixels:.0f} pixels wide at most): "
            "choose a larger picture for detail."
        )
    elif seen.detail < SOFT:
        found.append("The face is blurred: choose a sharper photo for detail.")
    if seen.light < DARK:
        found.append("The photo is very dark, and so is the head: brighten the photo first.")
    if seen.chroma < GREY:
        found.append("The photo has no colours, so the head is grey.")
    if seen.faces > 1:
        found.append(
            f"The photo shows {seen.faces:.0f} faces: this head is one of them. Choose another by "
            "its number."
        )
    return found
