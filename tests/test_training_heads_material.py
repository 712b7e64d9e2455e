"""Material 2 of the synthetic heads: what it adds, and that the first seeds stay what they were."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("scipy")

from engine.cameras import orbit
from engine.training.heads import dataset
from engine.training.heads.backgrounds import KINDS, background, backgrounds
from engine.training.heads.build import build, build_head, head_rng, person
from engine.training.heads.extras import material_of
from engine.training.heads.headgear import dome
from engine.training.heads.lighting import DIRECTIONS
from engine.training.heads.parts import GARMENT, GLASSES, HAIR, SKIN, quad_normals
from engine.training.heads.scene import Scene
from engine.training.heads.studio_light import studio_light
from engine.training.heads.views import input_camera

# Made with the code as it was before there was a material 2: parameters, every 1500th skin vertex
# (metres), mean colours of two target views and of an input, classes of that input.
BEFORE = {
    17: (
        "6a9bed9701cf4506",
        [[-0.03332, 0.022, 0.09136], [-0.03556, -0.18818, 0.01562], [0.02474, -0.04552, 0.10152],
         [0.05678, -0.01796, 0.06368], [-0.0096, -0.03384, 0.08822], [-0.09564, -0.27532, 0.07034]],
        [[44.6, 34.5, 30.1], [33.1, 29.6, 26.7]], [53.1, 37.8, 40.3, 140.2],
        [14008, 6606, 5604, 4758, 0],
    ),
    1_000_002: (
        "50cb04fe04f93407",
        [[-0.03452, 0.01254, 0.0912], [-0.00998, -0.1911, 0.03602], [0.0228, -0.0454, 0.0954],
         [0.0605, -0.01744, 0.06378], [-0.01112, -0.03204, 0.08474], [-0.02692, -0.2904, 0.11422]],
        [[78.9, 61.0, 51.4], [66.5, 49.4, 40.5]], [69.5, 55.2, 49.0, 102.0],
        [18621, 5191, 4520, 2644, 0],
    ),
}  # fmt: skip


def plain(x):
    """Rounded, so that the last bits of another machine's arithmetic do not count."""
    if isinstance(x, float):
        return round(x, 5) + 0.0
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    return [plain(v) for v in x] if isinstance(x, list) else x


@pytest.fixture(scope="module")
def people(pack) -> list[dict]:
    return [person(pack, seed) for seed in range(3000, 3300)]


def shown(pack, studio, params: dict, yaw: float = 0.0, dressed: bool = True, size: int = 128):
    scene = Scene(studio, build(pack, params), studio_light(np.random.default_rng(3)))
    camera = orbit(np.radians(yaw), 0, 1.35, np.radians(18), width=size, height=size)
    return scene.view(camera, dressed=dressed)


@pytest.mark.parametrize("seed", BEFORE)
def test_first_seeds_are_what_they_were(pack, studio, seed):
    made = dataset.sample(pack, studio, seed)
    digest, skin, targets, given, classes = BEFORE[seed]
    params = json.loads(str(made["params"]))
    text = json.dumps(plain(params), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest
    assert np.abs(made["skin"][::1500] * dataset.SKIN_UNIT - skin).max() < 5e-5
    colours = made["target_rgb"][[0, 4]].astype(float).mean((1, 2))
    assert np.abs(colours - targets).max() < 0.3
    assert np.abs(made["input_rgba"][0].astype(float).mean((0, 1)) - given).max() < 0.3
    counts = np.bincount(made["input_class"][0].ravel(), minlength=5)
    assert np.abs(counts - classes).max() < 30


def test_material_by_seed():
    assert [material_of(s) for s in (0, 1999, 1_000_000, 1_000_099)] == [1] * 4
    assert [material_of(s) for s in (2000, 999_999, 1_000_100)] == [2] * 3


def test_seed_decides_and_the_person_stays(pack):
    first, again, old = (person(pack, 5, m) for m in (2, 2, 1))
    assert first == again and json.loads(json.dumps(first)) == first
    assert "material" not in old and first["material"] == 2
    for key in ("gender", "years", "ethnicity", "weight", "gaze", "neck", "brow"):
        assert first[key] == old[key]
    assert np.array_equal(build_head(pack, 5, 2).skin, build_head(pack, 5, 2).skin)


def test_everything_new_appears_and_extremes_are_rare(people):
    n = len(people)
    hats = [p["headgear"]["kind"] for p in people if p["headgear"]]
    assert set(hats) == {"cap", "beanie", "brim", "scarf"} and 0.05 < len(hats) / n < 0.25
    frames = [p["glasses"] for p in people if p["glasses"]]
    assert {f["style"] for f in frames} == {"round", "box", "aviator", "cat", "brow", "rimless"}
    assert any(f["density"] > 0.7 for f in frames) and any(f["density"] == 0 for f in frames)
    for key in ("makeup", "collar", "earrings"):
        assert 0.05 < sum(p[key] is not None for p in people) / n < 0.6
    surface = [p["surface"] for p in people]
    for key in ("freckles", "moles", "spots", "blemishes", "beard_shade"):
        assert any(s[key] > 0 for s in surface) and any(s[key] == 0 for s in surface)
    lines = np.array([s["creases"]["forehead"] for s in surface])
    years = np.array([p["years"] for p in people])
    assert lines[years > 60].mean() > 0.3 and lines[years < 28].max() == 0
    sliders = np.array([x for p in people for x in p["sliders"].values()])
    assert np.abs(sliders).max() < 0.75 and (np.abs(sliders) > 0.6).mean() < 0.02
    calm = sum(p["expression_name"] in ("neutral", "smile", "smirk", "purse") for p in people)
    assert calm / n > 0.5
    tones = np.array([s["tone"] for s in surface])
    assert (tones[:, 0] > tones[:, 1]).all() and (tones[:, 1] > tones[:, 2]).all()  # skin colours


@pytest.mark.parametrize("kind", ["cap", "beanie", "brim"])
def test_hats_sit_on_the_head(pack, studio, kind):
    gear = {"kind": kind, "colour": [0.3, 0.02, 0.02], "cloth": "plain", "scale": 1.0,
            "height": 0.5, "tilt": 0.0, "turn": 0.0, "brim": 0.6}  # fmt: skip
    params = person(pack, 2, 2) | {"headgear": gear, "glasses": None, "collar": None}
    bald = params | {"hair": "bald"}
    head = build(pack, bald)
    marks = dict(zip(pack.landmark_names, head.landmarks, strict=True))
    hat, skin = head.parts["hat"], head.parts["skin"].vertices
    # the scalp is inside: seen from the hat's middle, the hat is further out everywhere
    skull = dome(skin * 10, {k: v * 10 for k, v in marks.items()}, gear)
    local = (skin * 10 - skull.origin) @ skull.axes
    above = local[local[:, 1] > 0.15]
    turn, rise = (
        np.arctan2(above[:, 0], above[:, 2]),
        np.arctan2(above[:, 1], np.hypot(above[:, 0], above[:, 2])),
    )
    assert np.quantile(np.linalg.norm(above, axis=1) - skull.at(turn, rise), 0.99) < 0.035
    assert hat.vertices[:, 1].max() > marks["head_top"][1]
    rim = hat.vertices[np.abs(hat.vertices[:, 0]) < 0.02]
    assert rim[rim[:, 2] > 0.06][:, 1].min() > marks["ibug27"][1]  # the eyes stay free
    assert np.isfinite(quad_normals(hat.vertices, hat.faces)).all()
    dressed, bare = (shown(pack, studio, bald, dressed=d) for d in (True, False))
    assert (dressed.labels == GARMENT).sum() > (dressed.labels.size // 25)
    assert not (bare.labels == GARMENT).any()
    top = np.nonzero(dressed.labels.any(1))[0][0]
    assert (dressed.labels[top][dressed.labels[top] > 0] == GARMENT).all()
    # hair goes under it, and is its old self without it
    params["hair"] = "afro01"
    head = build(pack, params)
    assert (head.parts["pressed"].vertices[:, 1].max()) < head.parts["hat"].vertices[:, 1].max()
    assert head.parts["hair"].vertices[:, 1].max() > head.parts["pressed"].vertices[:, 1].max()
    assert (shown(pack, studio, params, dressed=False).labels == HAIR).sum() > (
        shown(pack, studio, params).labels == HAIR
    ).sum()


def test_glasses_and_scarf_are_labelled(pack, studio, people):
    wear = next(p["glasses"] for p in people if p["glasses"] and p["glasses"]["density"] > 0.8)
    params = person(pack, 2, 2) | {"headgear": None, "glasses": wear, "hair": "bald"}
    view = shown(pack, studio, params)
    assert (view.labels == GLASSES).sum() > 0.02 * (view.labels == SKIN).sum()
    clear = params | {"glasses": wear | {"density": 0.0, "tint": [1.0, 1.0, 1.0]}}
    lens = (view.labels == GLASSES) & (shown(pack, studio, clear).labels == SKIN)
    assert lens.any()
    assert view.rgba[lens][:, :3].mean() < 0.8 * shown(pack, studio, clear).rgba[lens][:, :3].mean()
    gear = {"kind": "scarf", "colour": [0.2, 0.1, 0.1], "cloth": "plain", "scale": 1.0,
            "height": 0.5}  # fmt: skip
    view = shown(pack, studio, params | {"headgear": gear, "glasses": None, "hair": "long01"})
    assert not (view.labels == HAIR).any() and (view.labels[50:75, 58:70] == SKIN).any()
    assert (view.labels == GARMENT).sum() > (view.labels == SKIN).sum()


def test_skin_is_painted_where_it_should_be(pack, studio):
    box = studio.atlas._paintbox
    params = person(pack, 4, 2) | {"makeup": None, "lips": None}
    creases = dict.fromkeys(params["surface"]["creases"], 0.0)
    clean = {"creases": creases, "freckles": 0.0, "moles": 0.0, "spots": 0.0, "blemishes": 0.0}
    params["surface"] = params["surface"] | clean

    def painted(**change) -> np.ndarray:
        out, _ = box.paint(params | {"surface": params["surface"] | change})
        assert np.isfinite(out).all() and out[..., :3].min() > 0 and out[..., :3].max() < 1
        return out

    plain_skin = painted()
    lined = painted(creases=creases | {"forehead": 1.0})
    where = np.abs(lined - plain_skin).max(2) > 0.01
    assert where.sum() > 300 and box.map.y[where].min() > 7.4  # decimetres: the forehead
    assert (lined[..., 3] < plain_skin[..., 3] - 0.003).sum() > 100  # and it has depth
    freckled = painted(freckles=1.0)
    where = np.abs(freckled - plain_skin).max(2) > 0.02
    assert where.sum() > 200 and (freckled - plain_skin)[where][:, :3].max() < 1e-3
    tone = np.array(params["surface"]["tone"])
    cheek = box.map.cheeks > 0.7
    assert np.abs(plain_skin[cheek][:, :3].mean(0) / tone - 1).max() < 0.3


def test_pictures_have_no_holes(pack, studio):
    for seed in (3001, 3002, 3003):
        made = dataset.sample(pack, studio, seed)
        assert np.isfinite(made["target_depth"].astype(np.float32)).all()
        assert np.isfinite(made["input_landmarks"]).all()
        assert set(np.unique(made["target_class"])) <= {0, SKIN, HAIR}
        assert made["input_class"].max() <= GLASSES
        skin = made["target_rgb"][:2][made["target_class"][:2] == SKIN]
        assert 20 < skin.mean() < 235 and skin.std() > 5


def test_light_is_exposed_for_the_face():
    levels = []
    for seed in range(60):
        light = studio_light(np.random.default_rng(seed))
        assert np.isfinite(light.env).all() and light.env.min() >= 0
        assert abs(np.linalg.norm(light.key[:3]) - 1) < 1e-4
        w = np.clip(DIRECTIONS[..., 2], 0, None)
        level = (light.env.mean(2) * w).sum() / w.sum()
        if light.sun is not None:
            rays, brought = light.sun_rays(8)
            assert np.allclose(brought.sum(0), light.sun[3:6], rtol=1e-4)
            assert np.degrees(np.arccos(rays @ light.sun[:3])).max() < light.sun[6] + 0.1
        levels.append(level)
    assert 0.4 < np.median(levels) < 1.8
    assert np.std(levels) > 0.1


def test_cameras_go_further_round():
    rng = np.random.default_rng(0)
    backs = np.array([-input_camera(rng, 2).cam2world[:3, 2] for _ in range(400)])
    yaws = np.degrees(np.abs(np.arctan2(backs[:, 0], backs[:, 2])))
    assert yaws.max() > 75 and np.median(yaws) < 25 and (yaws > 60).mean() < 0.2
    before = np.random.default_rng(1)
    assert np.array_equal(
        input_camera(np.random.default_rng(1)).cam2world, input_camera(before, 1).cam2world
    )


def test_backgrounds():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        a, b = (background(rng, kind, 96) for _ in range(2))
        assert a.shape == (96, 96, 3) and a.dtype == np.float32
        assert np.isfinite(a).all() and 0 <= a.min() and a.max() <= 1
        assert np.abs(a - b).mean() > 0.01
    assert backgrounds(rng, 5, 64).shape == (5, 64, 64, 3)
    assert np.array_equal(backgrounds(head_rng(1, 9), 2, 64), backgrounds(head_rng(1, 9), 2, 64))
