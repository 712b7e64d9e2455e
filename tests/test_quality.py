"""The quality score and its warnings: quiet for a clean portrait, loud for what is spoilt.

The spoilt portraits are those of engine/training/calibrate_quality.py, on whose heads' truth the
score was calibrated; here they are made of the example photo, which no calibration has seen.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from engine import device
from engine.checkpoints.default import load_default
from engine.errors import TriplaneError, WeightsError
from engine.inversion import evidence, quality
from engine.inversion.quality import Evidence
from engine.inversion.reconstruct import CROP, Steps, reconstruct
from engine.portrait.align import align
from engine.portrait.image import Photo, load_photo
from engine.training import calibrate_quality

# What the detector says of the example.
POINTS = np.array([[204.3, 101.0], [246.9, 103.7], [224.6, 128.6], [201.6, 139.4], [245.1, 141.5]])
QUICK = Steps(silhouette=8, latent=0, tuning=0, planes=0, pixels=96)


@pytest.fixture(scope="module")
def usual() -> Evidence:
    """A clean portrait's, by the calibration."""
    medians = {name: pair[0] for name, pair in quality.calibration()["usual"].items()}
    return Evidence(**medians, odd=0.05, chroma=15.0, faces=1.0)


def judged(rgb: np.ndarray, points: np.ndarray) -> quality.Quality | None:
    """Of a head made of a picture; None where the reconstruction itself says that there is none."""
    model, compute = load_default(), device.choose("cpu", threads=1)
    aligned = align(Photo(rgb, None, Path()), points, CROP, model.config["widen"])
    try:
        made = reconstruct(model, aligned, QUICK, compute, lambda f, s: None, lambda f, c: None)
    except TriplaneError:
        return None
    return quality.judge(evidence.measure(model, aligned, made, compute, points))


def spoilt(photo: Path, kind: str, seed: int = 0) -> quality.Quality | None:
    rng = np.random.default_rng(seed)
    return judged(*calibrate_quality.SPOILS[kind](load_photo(photo).rgb, POINTS, rng))


@pytest.mark.usefixtures("restored_process")
class TestPictures:
    def test_a_clean_portrait_is_trusted_without_a_word(self, photo):
        found = judged(load_photo(photo).rgb, POINTS)
        assert found.score > 0.6 and found.warnings == []

    def test_a_covered_half_is_warned_of(self, photo):
        rgb = load_photo(photo).rgb.copy()
        rgb[50:180, 226:290] = 60
        found = judged(rgb, POINTS)
        assert found.score < 0.4
        assert found.warnings[0] == quality.UNLIKELY
        assert any("covers part of the face" in w for w in found.warnings)

    @pytest.mark.parametrize("kind", ["nobody", "off"])
    def test_no_face_at_the_points_is_warned_of(self, photo, kind):
        found = spoilt(photo, kind)
        assert found is None or (found.score < 0.4 and found.warnings[0] == quality.UNLIKELY)

    def test_a_photo_that_ends_in_the_face_is_warned_of(self, photo):
        found = judged(np.ascontiguousarray(load_photo(photo).rgb[:, 225:]), POINTS - [225, 0])
        assert found.score < 0.5
        assert any("beyond the edge of the photo" in w for w in found.warnings)

    @pytest.mark.slow
    def test_a_negative_is_warned_of(self, photo):
        found = spoilt(photo, "negative")
        assert found.score < 0.5 and len(found.warnings) > 1

    @pytest.mark.slow
    def test_grey_and_dark_photos_are_usable_and_told(self, photo):
        rgb = load_photo(photo).rgb
        grey = judged(rgb.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8), POINTS)
        assert any("no colours" in w for w in grey.warnings)
        dark = judged((rgb * 0.1).astype(np.uint8), POINTS)
        assert any("dark" in w for w in dark.warnings)

    @pytest.mark.slow
    def test_a_small_photo_is_usable_and_told(self, photo):
        rgb = load_photo(photo).rgb
        few = judged(rgb.reshape(128, 4, 128, 4, 3).mean((1, 3)).astype(np.uint8), POINTS / 4)
        assert few.score > 0.5 and any("small in the photo" in w for w in few.warnings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outside": 0.3}, "beyond the edge"),
        ({"odd": 0.6}, "covers part"),
        ({"foreign": 0.5}, "covers part"),
        ({"glasses": 1.0, "odd": 0.6}, "glasses were left off"),
        ({"yaw": 60.0}, "turned by about 60"),
        ({"pixels": 90.0}, "90 pixels"),
        ({"detail": 0.05}, "blurred"),
        ({"light": 0.03}, "dark"),
        ({"chroma": 0.5}, "no colours"),
        ({"faces": 2.0}, "2 faces"),
        ({"outline": 0.5}, "outline"),
        ({"shape": 2.5}, "unusual"),
        ({"points": 9.0, "marks": 5.0, "mirror": 5.0}, "hard to read"),
    ],
)
def test_each_flaw_has_its_sentence(usual, change, words):
    warnings = quality.judge(replace(usual, **change)).warnings
    assert any(words in w for w in warnings)
    assert all(w[0].isupper() and w.endswith(".") for w in warnings)


def test_the_usual_is_trusted_and_unknown_figures_count_for_nothing(usual):
    found = quality.judge(usual)
    assert found.score > 0.75 and found.warnings == []
    assert quality.judge(Evidence()).score == pytest.approx(found.score, abs=0.02)


def test_a_disagreement_never_speaks_for_a_head(usual):
    learned = quality.calibration()
    for name, (median, spread) in learned["usual"].items():
        scores = [
            quality.score(replace(usual, **{name: median + k * spread}), learned)
            for k in (-2, 0, 1, 2, 9)
        ]
        assert scores == sorted(scores, reverse=True)
        assert all(0 < x < 1 for x in scores)


def test_a_low_score_has_a_warning_whatever_lowered_it(usual):
    learned = quality.calibration()
    worst = {name: median + 9 * spread for name, (median, spread) in learned["usual"].items()}
    found = quality.judge(replace(usual, **worst))
    assert found.score < 0.05 and found.warnings[0].startswith(quality.UNLIKELY)
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_the_calibration_holds_on_heads_that_it_was_not_fitted_on():
    learned = quality.calibration()
    assert set(learned["usual"]) == set(learned["weights"]) <= set(asdict(Evidence()))
    assert all(weight >= 0 for weight in learned["weights"].values())
    assert learned["held_out"]["right"] >= 0.8


def test_the_calibration_learns_from_rows_what_tells_bad_heads():
    rng, rows = np.random.default_rng(0), []
    for number in range(120):
        bad = number % 2 == 1
        seen = {name: 1.0 + 0.1 * rng.random() for name in calibrate_quality.SIGNS}
        seen["marks"] += 3.0 * bad
        kind = "box" if bad else "clean"
        rows.append({"seed": number, "kind": kind, "usable": not bad, "evidence": seen})
    learned = calibrate_quality.fit(rows)
    assert max(learned["weights"], key=learned["weights"].get) == "marks"
    report = calibrate_quality.report(rows, learned)
    assert (
        report["right"] > 0.98 and report["kinds: heads, mean score, share usable"]["clean"][2] == 1
    )


def test_without_its_calibration_the_score_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(WeightsError, match="calibration"):
        quality.calibration(tmp_path / "none.json")


def test_a_blurred_face_has_less_detail(photo):
    picture = Image.fromarray(load_photo(photo).rgb[40:200, 145:305]).resize((512, 512))
    hull = evidence.face_hull(0.5 + 0.3 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]]))
    sharp, soft = (
        evidence._detail(np.asarray(x), hull)
        for x in (picture, picture.filter(ImageFilter.GaussianBlur(12)))
    )
    assert soft < quality.SOFT < sharp
    assert math.isfinite(evidence._detail(np.zeros((512, 512, 3), np.uint8), hull))
