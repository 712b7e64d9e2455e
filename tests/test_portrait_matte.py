"""The matte: from a crude prior to the outline of the hair, on the example and on drawn heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from engine.errors import Cancelled
from engine.inversion.cut import has_glasses, without_glasses
from engine.portrait.align import align
from engine.portrait.detect import find_points
from engine.portrait.image import load_photo
from engine.portrait.matte import matte
from engine.portrait.segment import BACKGROUND, GARMENT, GLASSES, HAIR, SKIN, lab, resize, segment

ASTRONAUT = Path(__file__).parent.parent / "examples" / "astronaut.png"


def ellipse(x, y, cx, cy, rx, ry):
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def crude(shift=(0.0, 0.0), scale=1.0) -> np.ndarray:
    """What a poor network might answer for the example: five blurred ellipses and boxes."""
    y, x = (np.mgrid[:128, :128] + 0.5) * 4
    x, y = (x - 256 - shift[0]) / scale + 256, (y - 270 - shift[1]) / scale + 270
    labels = np.zeros((128, 128), int)
    labels[(y > 470) | ((y > 420) & (abs(x - 250) > 115))] = GARMENT
    neck = (abs(x - 255) < 100) & (y > 400) & (y < 480)
    labels[ellipse(x, y, 258, 310, 140, 165) & (y < 480) | neck] = SKIN
    hair = ellipse(x, y, 256, 180, 220, 190) & ~ellipse(x, y, 258, 320, 130, 160) & (y < 330)
    labels[hair] = HAIR
    return blurred(labels)


def blurred(labels: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    p = [ndimage.gaussian_filter((labels == c).astype(np.float32), sigma) for c in range(5)]
    p = np.stack(p) * 0.94 + 0.012
    return p / p.sum(0)


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    photo = load_photo(ASTRONAUT)
    return align(photo, find_points(photo.rgb)[0]).crop


# Left and right end of the head in rows of the crop, read off the enlarged picture by eye.
OUTLINE = {60: (116, 436), 150: (34, 473), 200: (41, 479), 250: (47, 467), 420: (147, 362)}


def outline_error(alpha: np.ndarray) -> float:
    errors = []
    for row, ends in OUTLINE.items():
        columns = np.nonzero(alpha[row] > 0.5)[0]
        errors += [abs(columns.min() - ends[0]), abs(columns.max() - ends[1])]
    return float(max(errors))


@pytest.mark.parametrize("prior", [((16, -10), 1.0), ((0, 0), 1.08)])
def test_follows_the_outline_of_the_example(crop, prior):
    result = matte(crop, crude(*prior))
    assert result.alpha.shape == result.person.shape == result.labels.shape == (512, 512)
    assert result.alpha.dtype == np.float32 and 0 <= result.alpha.min() <= result.alpha.max() <= 1
    assert outline_error(result.alpha) <= 5
    assert result.alpha[80:450, 200:320].min() > 0.95  # no holes: eyes, teeth, highlights
    assert result.alpha[:, :25].max() < 0.05 and result.alpha[100:380, 495:].max() < 0.05
    assert (result.alpha <= result.person + 1e-6).all()
    assert result.labels[100, 256] == HAIR and result.labels[300, 256] == SKIN
    assert result.labels[505, 100] == GARMENT and result.labels[50, 20] == BACKGROUND
    assert result.alpha[505, 100] < 0.05 and result.person[505, 100] > 0.95


def test_crude_prior_alone_would_fail(crop):
    labels = resize(crude((16, -10)), 512).argmax(0)
    assert outline_error(np.isin(labels, (SKIN, HAIR)).astype(float)) > 8


def drawn(background, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A head of flat colours with noise, and its class at each pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:512, :512]
    labels = np.zeros((512, 512), np.uint8)
    labels[y > 430 - 30 * np.cos((x - 256) / 120)] = GARMENT
    labels[ellipse(x, y, 256, 230, 150, 180)] = HAIR
    labels[ellipse(x, y, 256, 280, 110, 150) | ((abs(x - 256) < 70) & (y > 300) & (y < 440))] = SKIN
    colours = np.array([background, (214, 170, 140), (70, 48, 30), (40, 70, 140), (0, 0, 0)])
    picture = colours[labels] + rng.normal(0, 6, (512, 512, 3))
    return picture.clip(0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("background", [(20, 90, 40), (120, 110, 100)])
def test_drawn_heads(background):
    picture, labels = drawn(background)
    prior = blurred(np.roll(labels[2::4, 2::4], (3, -3), (0, 1)), 3.0)
    result = matte(picture, prior)
    head = np.isin(labels, (SKIN, HAIR))
    both = ((result.alpha > 0.5) & head).sum() / ((result.alpha > 0.5) | head).sum()
    assert both > 0.985
    assert (result.labels == labels).mean() > 0.98


def test_stray_pieces_and_holes_are_removed():
    picture, labels = drawn((240, 240, 240))
    prior_labels = labels[2::4, 2::4].copy()
    prior_labels[10:22, 10:22] = HAIR  # a stranger's hair in the corner
    prior_labels[60:66, 60:66] = BACKGROUND  # a hole in the face
    picture[40:88, 40:88] = (70, 48, 30)
    result = matte(picture, blurred(prior_labels, 1.0))
    assert result.alpha[:100, :100].max() < 0.02 and result.person[:100, :100].max() < 0.02
    assert result.alpha[230:280, 230:280].min() > 0.95
    assert ndimage.label(result.alpha > 0.5)[1] == 1


def test_own_alpha_decides():
    picture, labels = drawn((240, 240, 240))
    opaque = ((labels != BACKGROUND) * 255).astype(np.uint8)
    picture[labels == BACKGROUND] = (70, 48, 30)  # hair's colour where nothing is to be seen
    prior = blurred(np.roll(labels[2::4, 2::4], 4, 1), 3.0)
    result = matte(picture, prior, alpha=opaque)
    assert np.abs(result.person - opaque / 255.0).max() < 1e-6
    head = np.isin(labels, (SKIN, HAIR))
    assert ((result.alpha > 0.5) == head).mean() > 0.98


def test_outside_the_photo_is_nothing():
    picture, labels = drawn((240, 240, 240))
    valid = np.ones((512, 512), bool)
    valid[:90] = False
    result = matte(picture, blurred(labels[2::4, 2::4]), valid=valid)
    assert result.alpha[:90].max() == 0 and result.person[:90].max() == 0
    assert (result.labels[:90] == BACKGROUND).all()
    assert result.alpha[120, 256] > 0.95


def test_glasses_belong_to_the_head():
    picture, labels = drawn((240, 240, 240))
    prior_labels = labels[2::4, 2::4].copy()
    prior_labels[60:68, 40:88] = GLASSES
    picture[240:272, 160:352] = (15, 15, 15)
    result = matte(picture, blurred(prior_labels, 1.0))
    assert result.alpha[244:268, 170:340].min() > 0.95
    assert (result.labels[250:262, 180:330] == GLASSES).mean() > 0.9
    # But nothing of the photo is carried round the head from where they are.
    assert has_glasses(result)
    trust = without_glasses(result.alpha, result)
    assert trust[244:268, 170:340].max() < 0.05
    face = slice(300, 330), slice(200, 300)
    assert np.array_equal(trust[face], result.alpha[face]) and trust[face].min() > 0.95
    quick = matte(picture[::2, ::2], blurred(prior_labels, 1.0))
    assert has_glasses(quick)


def test_a_doubt_about_a_brow_is_no_pair_of_glasses():
    picture, labels = drawn((240, 240, 240))
    prior_labels = labels[2::4, 2::4].copy()
    prior_labels[60:63, 50:60] = GLASSES
    result = matte(picture, blurred(prior_labels, 0.5))
    assert result.glasses.max() > 0.3 and not has_glasses(result)
    assert without_glasses(result.alpha, result) is result.alpha


def test_nothing_seen_is_no_head():
    picture = np.full((512, 512, 3), 128, np.uint8)
    prior = np.zeros((5, 128, 128), np.float32)
    prior[BACKGROUND] = 1
    result = matte(picture, prior)
    assert result.alpha.max() == 0 and np.isfinite(result.person).all()


def test_head_without_hair_or_garment():
    y, x = np.mgrid[:512, :512]
    labels = np.where(ellipse(x, y, 256, 256, 150, 200), SKIN, BACKGROUND)
    picture = np.where((labels == SKIN)[..., None], (214, 170, 140), (60, 80, 90)).astype(np.uint8)
    result = matte(picture, blurred(labels[2::4, 2::4], 4.0))
    assert ((result.alpha > 0.5) == (labels == SKIN)).mean() > 0.995


def test_segment_answers_probabilities():
    picture, labels = drawn((20, 90, 40))
    belief = segment(picture, blurred(labels[2::4, 2::4]))
    assert belief.shape == (5, 256, 256) and np.allclose(belief.sum(0), 1, atol=1e-4)
    again = segment(picture, blurred(labels[2::4, 2::4]))
    assert (belief == again).all()


def test_cancel():
    def stop() -> None:
        raise Cancelled()

    with pytest.raises(Cancelled):
        matte(np.zeros((512, 512, 3), np.uint8), crude(), check=stop)


def test_lab_of_known_colours():
    rgb = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]], float)
    known = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]]
    assert np.allclose(lab(rgb), known, atol=0.1)
