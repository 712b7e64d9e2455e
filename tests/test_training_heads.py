"""The head generator: shapes, spaces, labels and files. Needs the data pack, numba and scipy."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("scipy")

from scipy.spatial import cKDTree

from engine.cameras import from_eg3d, orbit
from engine.training.heads import dataset
from engine.training.heads.build import EYE_CENTRE, build, build_head, mean_head
from engine.training.heads.lighting import random_light
from engine.training.heads.pack import Pack
from engine.training.heads.parts import GARMENT, GLASSES, HAIR, SKIN, split_quads
from engine.training.heads.sampler import mean_params, sample_params
from engine.training.heads.scene import Scene
from engine.training.heads.views import TARGET_EXTENT, TARGET_FOV, distance


@pytest.fixture(scope="module")
def samples(pack, studio) -> list[dict]:
    return [dataset.sample(pack, studio, seed) for seed in range(6)]


def test_missing_pack_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="HEADS_PACK"):
        Pack(tmp_path)


def test_mean_head_is_a_symmetric_human(pack):
    head = mean_head(pack)
    assert "hair" not in head.parts and "shirt" not in head.parts
    eyes = head.eyes.reshape(2, 256, 3).mean(1)
    # the eyeballs' surfaces lie round the joints whose midpoint is the frame's anchor
    assert np.allclose(eyes.mean(0)[:2], EYE_CENTRE[:2], atol=1e-3)
    assert 0.055 < abs(eyes[0, 0] - eyes[1, 0]) < 0.07
    marks = dict(zip(pack.landmark_names, head.landmarks, strict=True))
    assert 0.18 < np.linalg.norm(marks["head_top"] - marks["chin"]) < 0.26
    assert marks["ear_top_l"][0] > 0.05 > -0.05 > marks["ear_top_r"][0]
    assert marks["nose_tip"][2] > marks["occiput"][2] + 0.15
    assert np.allclose(head.skin, head.neutral)


def test_bust_is_closed(pack):
    """Every edge of skin + cap has its opposite once corners at one place are merged."""
    parts = mean_head(pack).parts
    points = np.concatenate([parts[k].vertices for k in ("skin", "cap")])
    _, merged = np.unique(np.round(points, 6), axis=0, return_inverse=True)
    n = len(parts["skin"].vertices)
    tri = np.concatenate([split_quads(parts["skin"].faces), split_quads(parts["cap"].faces) + n])
    tri = merged.ravel()[tri]
    edges = np.concatenate([tri[:, [0, 1]], tri[:, [1, 2]], tri[:, [2, 0]]])
    forward = {(a, b) for a, b in edges.tolist()}
    lonely = [e for e in forward if e[::-1] not in forward]
    assert not lonely
    a, b, c = (points[np.unique(merged.ravel(), return_index=True)[1]][tri[:, k]] for k in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 > 0.005  # outward, over 5 litres


def test_seed_decides_everything(pack):
    a, b, c = build_head(pack, 7), build_head(pack, 7), build_head(pack, 8)
    assert a.params == b.params and np.array_equal(a.skin, b.skin)
    assert a.params != c.params
    assert json.loads(json.dumps(a.params)) == a.params
    assert 14 <= a.params["years"] <= 80


def test_expression_and_neutral_share_the_frame(pack):
    params = mean_params() | {"expression": {"mouth-open": 0.4}, "neck": [20.0, 0.0, 0.0]}
    head = build(pack, params)
    moved = np.linalg.norm(head.skin - head.neutral, axis=1)
    skull = pack.rest[:, 1] > pack.joint(pack.rest, "head_top")[1] - 0.5
    assert moved.max() > 0.005 and moved[skull].max() < 1e-6
    straight = build(pack, params | {"neck": [0.0, 0.0, 0.0]})
    assert np.abs(straight.skin - head.skin)[skull].max() < 1e-4  # the head stays, the torso turns
    assert np.abs(straight.skin - head.skin).max() > 0.02


def test_mirrored_hair_is_a_mirror(pack):
    params = next(
        p
        for s in range(200)
        if (p := sample_params(pack, np.random.default_rng(s)))["hair"] == "bob01"
    )
    base = mean_params()
    calm = {"inflate": 1.0, "length": 1.0, "noise": 0.0, "seed": 0}
    both = [build(pack, params | base | {"hair_warp": calm | {"mirror": m}}) for m in (False, True)]
    left, right = (h.parts["hair"].vertices for h in both)
    tree = cKDTree(left * [-1, 1, 1])
    assert np.quantile(tree.query(right)[0], 0.9) < 0.003
    assert np.quantile(cKDTree(left).query(right)[0], 0.9) > 0.003


def test_hair_stays_outside_the_skull(pack):
    for seed in range(12):
        head = build_head(pack, seed)
        if "hair" not in head.parts:
            continue
        hair = head.parts["hair"].vertices
        marks = dict(zip(pack.landmark_names, head.landmarks, strict=True))
        inner = 0.5 * (marks["head_top"] + marks["chin"]) * [1, 1, 0.3]
        assert np.linalg.norm(hair - inner, axis=1).min() > 0.05
        assert np.abs(hair).max() < 0.6


def test_pictures_agree_with_the_geometry(pack, samples):
    """Depth pixels, carried back into space, lie on the head's surfaces."""
    for sample in samples:
        head = build_head(pack, int(sample["seed"]))
        shown = [head.parts[k] for k in ("skin", "cap", "hair", "eyes", "beard") if k in head.parts]
        dense = []
        for part in shown:
            corners = part.vertices[part.faces]
            for u, v in np.random.default_rng(0).random((24, 2)):
                w = np.array([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v])
                dense.append((corners * w[None, :, None]).sum(1))
        tree = cKDTree(np.concatenate(dense))
        for depth, alpha, vector in zip(
            sample["target_depth"], sample["target_alpha"], sample["target_camera"], strict=True
        ):
            camera = from_eg3d(vector, *depth.shape[::-1])
            origin, rays = camera.rays()
            z = depth.astype(float) + distance(TARGET_EXTENT, TARGET_FOV)
            scale = z / (rays @ camera.cam2world[:3, 2])
            points = (origin + rays * scale[..., None])[alpha >= 128]
            assert len(points) > 500
            assert np.quantile(tree.query(points)[0], 0.95) < 0.004
            assert (depth[alpha < 128] == 0).all()


def test_landmarks_fall_on_the_face(pack, samples):
    chosen = [pack.landmark_names.index(n) for n in ("pupil_l", "pupil_r", "nose_tip", "chin")]
    on_skin = total = 0
    for sample in samples:
        for labels, marks, vector in zip(
            sample["input_class"], sample["input_landmarks"], sample["input_camera"], strict=True
        ):
            camera = from_eg3d(vector, *labels.shape[::-1])
            assert np.allclose(camera.project(sample["landmarks"])[0], marks, atol=0.01)
            for x, y in marks[chosen]:
                total += 1
                near = labels[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
                on_skin += (near != 0).all()
            left, right = marks[chosen[0]], marks[chosen[1]]
            assert left[0] > right[0]  # the subject's left is on the picture's right
    assert on_skin / total > 0.9


def test_labels_and_undressing(samples):
    inputs = np.stack([s["input_class"] for s in samples])
    targets = np.stack([s["target_class"] for s in samples])
    assert inputs.max() <= GLASSES and (inputs == GARMENT).any()
    assert set(np.unique(targets)) <= {0, SKIN, HAIR}
    for s in samples:
        assert ((s["target_alpha"] > 128) == (s["target_class"] > 0)).mean() > 0.995
        assert (s["input_rgba"][..., 3] > 200).mean() > 0.2


def test_faces_are_neither_black_nor_white(samples):
    for s in samples:
        skin = s["target_rgb"][:2][s["target_class"][:2] == SKIN]
        assert 25 < skin.mean() < 230


def test_camera_turns_the_right_way(pack, studio):
    """Seen from the subject's left (+x), the nose is on the picture's left."""
    params = sample_params(pack, np.random.default_rng(1)) | mean_params() | {"hair": "bald"}
    scene = Scene(studio, build(pack, params), random_light(np.random.default_rng(0)))
    radius = distance(TARGET_EXTENT, TARGET_FOV)
    view = scene.view(
        orbit(np.radians(90), 0, radius, TARGET_FOV, width=96, height=96), dressed=False
    )
    columns = np.nonzero(view.labels[40:56].any(0))[0]
    nose, back = 48 - columns.min(), columns.max() - 48
    assert nose > back


def test_shards(tmp_path, monkeypatch, pack, studio, samples):
    monkeypatch.setattr(dataset, "_worker", (pack, studio))
    dataset.make_shard(tmp_path, 0, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["heads_00000000.npz"]
    shard = dataset.load_shard(dataset.shard_path(tmp_path, 0))
    for key, array in shard.items():
        for i in range(2):
            assert array.shape[0] == 2 and np.array_equal(array[i], samples[i][key]), key
    params = json.loads(str(shard["params"][0]))
    assert params["hair"] == "bald" or shard["hair"][0] < 10
    error = shard["skin"][1] * dataset.SKIN_UNIT - build_head(pack, 1).skin
    assert np.abs(error).max() < 1.1e-5
