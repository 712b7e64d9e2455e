"""From synthetic heads to training batches: fusing, the linear bases, canonical labels, portraits.

Needs numba; what looks at real synthetic heads needs the head data pack as well.
"""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from safetensors.torch import save_file

from engine.cameras import orbit
from engine.checkpoints.default import load_default
from engine.headspace import lattice
from engine.headspace.mirror import mirror_landmarks, mirror_of, mirror_pose
from engine.headspace.space import SHAPES, HeadSpace
from engine.inversion import pose as poses
from engine.portrait.perception import Perception, PerceptionNet
from engine.training import build_headspace, data, degrade, fuse, prepare, train_perception
from engine.training.heads import dataset
from engine.training.heads.pack import Pack
from engine.training.heads.scene import Studio
from engine.training.heads.textures import Atlas
from engine.training.heads.views import input_camera

BOUNDS = np.array([[-0.2] * 3, [0.2] * 3])


@pytest.fixture(scope="module")
def space() -> HeadSpace:
    return load_default().space


def uv_sphere(radius: float, rings: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles, counter-clockwise from outside."""
    polar, turn = np.meshgrid(
        np.linspace(0, math.pi, rings + 1), np.linspace(0, 2 * math.pi, 2 * rings + 1)[:-1]
    )
    v = radius * np.stack(
        [np.sin(polar) * np.cos(turn), np.cos(polar), np.sin(polar) * np.sin(turn)], -1
    )
    i, j = np.meshgrid(np.arange(2 * rings), np.arange(rings), indexing="ij")
    a, b = i * (rings + 1) + j, (i + 1) % (2 * rings) * (rings + 1) + j
    tri = np.stack([a, b, b + 1, a, b + 1, a + 1], -1).reshape(-1, 3)
    return v.reshape(-1, 3).astype(np.float32), tri.astype(np.int32)


def test_fusing_finds_the_distance_to_a_sphere():
    v, f = uv_sphere(0.12)
    d = fuse.signed_distance(v, f, BOUNDS, 40, views=80, image=320, spacing=0.002)
    exact = np.linalg.norm(fuse.grid_points(BOUNDS, 40), axis=-1) - 0.12
    near = np.abs(exact) < 0.02
    assert np.abs(d - exact)[near].mean() < 0.001
    assert ((d > 0) == (exact > 0))[np.abs(exact) > 0.004].all()


def test_an_opening_does_not_turn_the_inside_out():
    """A sphere without its lowest part, like a head without a neck: rays that enter there first
    see the inside of the other wall, which decides nothing."""
    v, f = uv_sphere(0.12)
    f = f[(v[f][:, :, 1] > -0.1).all(1)]
    d = fuse.signed_distance(v, f, BOUNDS, 40, views=80, image=320, spacing=0.002)
    inner = np.linalg.norm(fuse.grid_points(BOUNDS, 40), axis=-1) < 0.08
    assert (d[inner] < 0).mean() > 0.98


def test_views_are_unit_vectors_that_leave_out_the_steepest():
    d = fuse.directions(500, lowest=-50)
    assert np.allclose(np.linalg.norm(d, axis=1), 1)
    assert d[:, 1].min() > math.sin(math.radians(-50)) and d[:, 1].max() > 0.99
    assert 380 < len(d) < 500


def test_grid_points_are_in_lattice_order():
    p = fuse.grid_points(BOUNDS, 5)
    assert p.shape == (5, 5, 5, 3)
    assert np.allclose(p[0, 0, 4], [0.2, -0.2, -0.2]) and np.allclose(p[4, 0, 0], [-0.2, -0.2, 0.2])


@pytest.fixture(scope="module")
def low_rank() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Displacements [N, V, 3] of three hidden directions, their hidden numbers, and a weight."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3, 60, 3)) * [[[0.003]], [[0.002]], [[0.001]]]
    numbers = rng.normal(size=(80, 3))
    weight = rng.uniform(0.5, 2, 60).astype(np.float32)
    return np.tensordot(numbers, directions, 1), numbers, weight


def test_a_basis_explains_the_data_in_standard_deviations(low_rank):
    moved, _, weight = low_rank
    basis = build_headspace.linear_basis(moved, weight, 3)
    found = build_headspace.coefficients(basis, weight, moved)
    assert np.abs(np.tensordot(found, basis, 1) - moved).max() < 1e-6
    assert np.allclose((found**2).mean(0), 1, atol=1e-4)
    size = np.linalg.norm(basis, axis=(1, 2))
    assert (np.diff(size) < 0).all()  # the largest first
    fewer = build_headspace.linear_basis(moved, weight, 2)
    rest = moved - np.tensordot(build_headspace.coefficients(fewer, weight, moved), fewer, 1)
    assert 0 < np.abs(rest).mean() < 0.5 * np.abs(moved).mean()


def test_the_bust_is_cut_below_the_neck():
    inside = np.array([[0, 0.05, 0], [0, -0.1, -0.05], [0.0, -0.06, 0.07]])
    outside = np.array([[0, -0.19, 0], [0.15, -0.13, 0], [0, -0.13, 0.18]])
    assert (build_headspace.bust_cut(inside) < 0).all()
    assert (build_headspace.bust_cut(outside) > 0).all()


def test_smooth_max():
    a, b = np.linspace(-1, 1, 101), np.zeros(101)
    m = build_headspace.smooth_max(a, b, 0.2)
    assert (m >= np.maximum(a, b) - 1e-12).all() and (m - np.maximum(a, b)).max() < 0.051
    assert np.array_equal(m[np.abs(a) > 0.2], np.maximum(a, b)[np.abs(a) > 0.2])


def test_the_face_weighs_most():
    nose, crown, bust = build_headspace.vertex_weight(
        np.array([[0, 0, 0.1], [0, 0.12, -0.03], [0, -0.14, -0.05]])
    )
    assert nose > crown > bust > 0


# Batches, from a shard made by hand: marks painted where the landmarks are.


@pytest.fixture(scope="module")
def folder(tmp_path_factory, space):
    """Two shards of two heads each: one to train with, one held out."""
    path = tmp_path_factory.mktemp("heads")
    for first in (0, dataset.HELD_OUT):
        write_shard(path, space, first, 2)
    return path


def write_shard(folder, space: HeadSpace, first: int, n: int) -> None:
    rng = np.random.default_rng(first)
    identity = rng.normal(size=(n, len(space.identity))).astype(np.float32)
    expression = np.zeros((n, len(space.expression)), np.float32)
    rgba = np.zeros((n, 3, 176, 176, 4), np.uint8)
    classes = np.zeros((n, 3, 176, 176), np.uint8)
    marks, vectors = np.zeros((n, 3, 84, 2), np.float32), np.zeros((n, 3, 25), np.float32)
    solid = np.zeros((n, 84, 3), np.float32)
    for i in range(n):
        vertices = space.vertices(torch.from_numpy(identity[i]), torch.from_numpy(expression[i]))
        solid[i] = space.landmarks(vertices).numpy()
        for view in range(3):
            camera = input_camera(rng)
            vectors[i, view] = camera.to_eg3d()
            marks[i, view] = camera.project(solid[i].astype(float))[0]
            rgba[i, view, 40:140, 40:140] = 200, 120, 80, 255
            for u, v in marks[i, view, [8, 30, 36, 45]]:
                part = slice(int(v) - 3, int(v) + 4), slice(int(u) - 3, int(u) + 4)
                classes[i, view][part] = 1
                rgba[i, view][part] = 0, 0, 255, 255
    np.savez(
        dataset.shard_path(folder, first),
        seed=np.arange(first, first + n),
        input_rgba=rgba,
        input_class=classes,
        input_landmarks=marks,
        input_camera=vectors,
        landmarks=solid,
    )
    np.savez(
        folder / f"prep_{first:08d}.npz",
        identity=identity,
        expression=expression,
        hair=np.full(n, 3, np.uint8),
    )


def test_held_out_heads_are_kept_apart(folder):
    training, held_out = data.Shards(folder), data.Shards(folder, held_out=True)
    assert training.refresh() == held_out.refresh() == 2
    assert {int(s["seed"][i]) for s, _, i in map(training.at, range(2))} == {0, 1}
    assert int(held_out.at(0)[0]["seed"][0]) == dataset.HELD_OUT
    with pytest.raises(IndexError):
        training.at(2)
    rng = np.random.default_rng(0)
    assert {training.pick(rng)[2] for _ in range(20)} == {0, 1}


def test_new_shards_are_taken_in(folder, tmp_path, space):
    shards = data.Shards(tmp_path)
    assert shards.refresh() == 0
    write_shard(tmp_path, space, 100, 1)
    assert shards.refresh() == 1 == shards.refresh()
    (tmp_path / "prep_00000100.npz").unlink()
    assert data.Shards(tmp_path).refresh() == 0  # an unprepared shard is no use


@pytest.fixture(scope="module")
def shards(folder) -> data.Shards:
    return data.Shards(folder)


def test_a_batch_is_aligned_and_its_truth_with_it(shards):
    batch = data.portraits(shards, 2, np.random.default_rng(0), augment=False, indices=[0, 1])
    assert batch.picture.shape == (2, 3, 128, 128) and batch.classes.shape == (2, 128, 128)
    assert -1 <= batch.picture.min() and batch.picture.max() <= 1
    assert batch.tone.shape == (2, 3, 2) and (batch.tone == 1).all()
    for k, (shard, _, i) in enumerate(batch.heads):
        # The alignment put the eyes and the mouth where it always does.
        five = data.five_points(batch.landmarks[k].numpy())
        assert np.abs(five[:2].mean(0) - [0.5, 0.5]).max() < 0.08
        assert five[0, 0] < five[1, 0] and five[3, 1] > five[2, 1] > five[0, 1]
        # What was painted at the landmarks lies at the landmarks, in labels and in colours.
        for u, v in (batch.landmarks[k, [8, 30, 36, 45]] * 128).long().tolist():
            assert batch.classes[k, v, u] == 1
            blue, red = batch.picture[k, 2, v, u], batch.picture[k, 0, v, u]
            assert blue > 0.5 and red < 0
        # And the pose puts the head's own landmarks there, through a lens other than the real one.
        solid = torch.from_numpy(np.array(shard["landmarks"][i]))
        error = (poses.project(solid, batch.pose[k]) - batch.landmarks[k]).norm(dim=1)
        assert error.mean() < 0.008 and error[17:68].max() < 0.02


def test_a_mirrored_batch_is_the_mirror_image_of_a_batch(shards, space):
    """Picture, classes, landmarks and camera; and they fit the mirrored head."""
    options = {"augment": False, "indices": [0, 1] * 6}
    plain = data.portraits(shards, 12, np.random.default_rng(0), **options)
    batch = data.portraits(shards, 12, np.random.default_rng(0), mirror=True, **options)
    turned = batch.mirrored
    assert turned.any() and not turned.all() and not plain.mirrored.any()
    head = plain.picture[:, 2] > 0.99  # backgrounds are others, painted marks are not
    assert torch.equal(batch.classes[turned], plain.classes[turned].flip(-1))
    assert torch.equal(batch.classes[~turned], plain.classes[~turned])
    assert ((batch.picture[:, 2] > 0.99) & head.flip(-1))[turned].any()
    assert torch.equal(batch.landmarks[turned], mirror_landmarks(plain.landmarks[turned]))
    assert torch.equal(batch.pose[turned], mirror_pose(plain.pose[turned]))
    mirror = mirror_of(space)
    for k in turned.nonzero()[:, 0].tolist():
        _, prep, i = batch.heads[k]
        identity = torch.from_numpy(np.array(prep["identity"][i])) @ mirror.identity
        solid = space.landmarks(space.vertices(identity, torch.zeros(len(space.expression))))
        error = (poses.project(solid, batch.pose[k]) - batch.landmarks[k]).norm(dim=1)
        assert error.mean() < 0.01


def test_the_truth_costs_nothing_mirrored_or_not(shards, space):
    """Losses compare with the mirrored head where the picture is mirrored."""
    losses = train_perception.Losses(space)
    options = {"augment": False, "indices": [0, 1] * 4, "mirror": True}
    batch = data.portraits(shards, 8, np.random.default_rng(0), **options)
    truth = losses.truth(batch)
    assert batch.mirrored.any() and len(truth["hair"].unique()) == 2
    got = Perception(
        classes=torch.nn.functional.one_hot(batch.classes, 5).permute(0, 3, 1, 2) * 30.0,
        landmarks=batch.landmarks,
        spread=torch.full((8, 84), 0.01),
        identity=truth["identity"],
        expression=truth["expression"],
        hair=torch.nn.functional.one_hot(truth["hair"], space.styles) * 30.0,
        pose=batch.pose,
    )
    found = losses(got, batch)
    for name in ("classes", "landmarks", "identity", "expression", "hair", "pose"):
        assert found[name] < 1e-2, name
    assert found["together"] < 0.015  # landmarks seen through another lens than the assumed one
    unmirrored = torch.stack(
        [torch.from_numpy(np.array(p["identity"][i])) for _, p, i in batch.heads]
    )
    wrong = losses(dataclasses.replace(got, identity=unmirrored), batch)
    assert wrong["identity"] > 0.5 and wrong["together"] > found["together"]
    # Half of the maps, all of the numbers.
    half = dataclasses.replace(
        got, classes=got.classes[:4], landmarks=got.landmarks[:4], spread=got.spread[:4]
    )
    assert losses(half, batch)["landmarks"] == 0 and losses(half, batch)["pose"] == 0


def test_a_training_step_sees_half_the_maps(space):
    net = PerceptionNet(len(space.identity), len(space.expression), space.styles)
    pictures = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, whole = train_perception.see(net, pictures), net(pictures)
    assert len(got.classes) == len(got.landmarks) == 2
    for name in ("identity", "expression", "hair", "pose"):
        assert torch.allclose(getattr(got, name), getattr(whole, name), atol=1e-5), name


def test_augmented_batches_vary_and_stay_in_range(shards):
    a = data.portraits(shards, 4, np.random.default_rng(1))
    b = data.portraits(shards, 4, np.random.default_rng(1))
    c = data.portraits(shards, 4, np.random.default_rng(2))
    assert torch.equal(a.picture, b.picture) and not torch.equal(a.picture, c.picture)
    assert -1 <= a.picture.min() and a.picture.max() <= 1 and torch.isfinite(a.picture).all()
    assert set(a.classes.unique().tolist()) <= set(range(5))
    assert (a.tone > 0).all() and a.tone.std() > 0


@pytest.mark.parametrize(
    "numbers", [[0.0, 0.0, 0.0, 0.5, 0.5, -0.8], [0.6, -0.2, 0.3, 0.4, 0.55, -1.0]]
)
def test_pose_of_is_the_inverse_of_to_camera(numbers):
    camera = poses.to_camera(torch.tensor(numbers), 300)
    scale = data.SIZE / 300
    found = data.pose_of(camera.to_eg3d(), np.diag([scale, scale, 1]), 300)
    assert np.allclose(found, numbers, atol=1e-4)


def test_pose_of_follows_the_crop():
    camera = orbit(0.3, 0.1, 1.5, 0.3, width=200, height=200)
    c, s = 0.7 * math.cos(0.4), 0.7 * math.sin(0.4)
    turn = np.array([[c, -s], [s, c]])
    matrix = np.eye(3)  # the picture's middle, where the principal point is, stays in the middle
    matrix[:2, :2], matrix[:2, 2] = turn, data.SIZE / 2 - turn @ [100, 100]
    found = torch.from_numpy(data.pose_of(camera.to_eg3d(), matrix, 200))
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (20, 3))
    pixels = np.c_[camera.project(points)[0], np.ones(20)] @ matrix.T
    places = poses.project(torch.from_numpy(points).float(), found).numpy() * data.SIZE
    assert np.abs(places - pixels[:, :2]).max() < 1.0  # another lens, hence other perspective
    assert np.abs(places - pixels[:, :2]).mean() < 0.4


@pytest.mark.parametrize("shift", [(0, 0), (25, -15), (-10, 30)])
@pytest.mark.parametrize("fov", [0.2, 0.5])
def test_pose_of_sees_the_head_from_where_it_was_seen(shift, fov):
    """Crops off the photo's middle, and lenses other than the assumed one, leave the side of the
    head that is seen, its place and its size as they are."""
    camera = orbit(0.4, -0.2, 1.4, fov, (0.02, -0.01, 0.03), 400, 400)
    c, s = 0.32 * math.cos(0.2), 0.32 * math.sin(0.2)
    matrix = np.array([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1.0]])
    found = torch.from_numpy(data.pose_of(camera.to_eg3d(), matrix, 400)).double()
    made = poses.to_camera(found, data.SIZE)
    towards = [x.position / np.linalg.norm(x.position) for x in (camera, made)]
    assert np.allclose(*towards, atol=1e-5)
    # Small things at the origin: same places in the crop, so the same turn and scale too.
    points = np.array([[0.0, 0, 0], [0.002, 0, 0], [0, 0.002, 0], [0, 0, 0.002]])
    pixels = (np.c_[camera.project(points)[0], np.ones(4)] @ matrix.T)[:, :2]
    places = made.project(points)[0]
    assert np.allclose(places[0], pixels[0], atol=1e-3)
    moved, expected = places[1:] - places[0], pixels[1:] - pixels[0]
    assert np.abs(moved - expected).max() < 0.02 * np.abs(expected).max()


def test_tone_curves():
    x = torch.tensor([[[0.25], [0.5], [1.0]]])
    assert torch.equal(degrade.apply_tone(x, torch.ones(1, 3, 2)), x)
    tone = torch.tensor([[[2.0, 1.0], [1.0, 2.0], [0.5, 1.0]]])
    expected = torch.tensor([[[0.5], [0.25], [0.5]]])
    assert torch.allclose(degrade.apply_tone(x, tone), expected)


@pytest.fixture(scope="module")
def clear() -> torch.Tensor:
    """Twelve equal pictures with hard edges and fine stripes."""
    picture = torch.zeros(3, 128, 128)
    picture[0], picture[1, 64:], picture[2, :, ::4] = torch.linspace(0, 1, 128), 0.8, 0.6
    return picture.expand(12, 3, 128, 128).clone()


def test_degraded_pictures_vary_stay_in_range_and_repeat(clear):
    a, tone = degrade.degrade(clear, np.random.default_rng(0))
    b, _ = degrade.degrade(clear, np.random.default_rng(0))
    assert torch.equal(a, b) and tone.shape == (12, 3, 2) and (tone > 0).all()
    assert 0 <= a.min() and a.max() <= 1 and torch.isfinite(a).all()
    assert min((a[0] - other).abs().max() for other in a[1:]) > 0.05
    # But what is in the picture can still be told.
    assert ((a[:, 1, 80:].mean((1, 2)) > a[:, 1, :48].mean((1, 2))).float().mean()) > 0.8


def test_jpeg_makes_blocks_and_better_ones_at_better_quality(clear):
    grey = clear[0].mean(0).expand(3, -1, -1)  # colours are kept at half the resolution anyway
    rough, fine = (degrade.jpeg(grey, q) for q in (10, 95))
    assert rough.shape == grey.shape
    assert (rough - grey).abs().mean() > 2 * (fine - grey).abs().mean() > 0


def test_shake_blurs_along_one_direction_and_keeps_light(clear):
    rng = np.random.default_rng(1)
    dot = torch.zeros(3, 128, 128)
    dot[:, 64, 64] = 1
    for _ in range(5):
        out = degrade._shaken(dot, rng)
        assert out.sum() == pytest.approx(3, rel=1e-4)
        y, x = (out[0] > 0.02).nonzero().T.float() - 64
        inertia = torch.linalg.eigvalsh(torch.cov(torch.stack([x, y])))
        assert len(x) > 2 and inertia[0] < 0.5 * inertia[1]


def test_something_in_front_covers_a_part(clear):
    rng = np.random.default_rng(2)
    share = [
        (degrade._covered(clear[0], rng) - clear[0]).abs().amax(0).gt(0.05).float().mean()
        for _ in range(40)
    ]
    assert np.median(share) > 0.01 and max(share) < 0.5


def test_canonical_places_undo_a_warp(space):
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(len(space.identity), generator=generator)
    expression = torch.zeros(len(space.expression))
    spread = lattice.Spread(space.mean, space.bounds, 48)
    forward = lattice.blur(spread(space.displacement(identity, expression)))
    back = prepare.to_canonical(forward, space.vertices(identity, expression), space.bounds)
    upper = space.mean[:, 1] > -0.1
    assert (back - space.mean)[upper].norm(dim=1).mean() < 8e-4


# Real synthetic heads.


@pytest.fixture(scope="module")
def prepared(heads_pack, tmp_path_factory, space):
    """A shard of two heads and what `prepare` adds to it."""
    folder = tmp_path_factory.mktemp("shard")
    pack = Pack(heads_pack)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "_worker", (pack, Studio(Atlas(pack))))
        dataset.make_shard(folder, 0, 2)
    headspace = folder / "headspace.safetensors"
    save_file({n: getattr(space, n).contiguous() for n in SHAPES}, headspace)
    threads = torch.get_num_threads()
    # The mean of few heads is a little off; the program's own is that of two thousand.
    prepare._start(str(headspace), str(heads_pack), mean_heads=30)
    torch.set_num_threads(threads)
    said = prepare.prepare(dataset.shard_path(folder, 0))
    return folder, said


@pytest.mark.slow
class TestPrepared:
    def test_files_and_shapes(self, prepared, space):
        folder, said = prepared
        assert "prep_00000000.npz" in said
        shard = dataset.load_shard(dataset.shard_path(folder, 0))
        prep = dataset.load_shard(folder / "prep_00000000.npz")
        assert {k: (v.shape, v.dtype.name) for k, v in prep.items()} == {
            "identity": ((2, len(space.identity)), "float32"),
            "expression": ((2, len(space.expression)), "float32"),
            "hair": ((2,), "uint8"),
            "place": ((2, 8, 128, 128, 3), "int16"),
            "residual": ((2, 8, 128, 128), "float16"),
        }
        assert np.abs(prep["identity"]).max() < 8
        assert prep["hair"].max() < space.styles
        for i in range(2):
            mirrored = json.loads(str(shard["params"][i])).get("hair_warp", {}).get("mirror")
            style, n = int(shard["hair"][i]), len(space.hair_distance) - 1
            expected = 2 * n if style == n else style + n * bool(mirrored)
            assert prep["hair"][i] == expected
        before = (folder / "prep_00000000.npz").stat().st_mtime_ns
        assert "is there" in prepare.prepare(dataset.shard_path(folder, 0))
        assert (folder / "prep_00000000.npz").stat().st_mtime_ns == before
        assert not list(folder.glob(".prep*"))

    def test_the_linear_head_is_near_the_real_one(self, prepared, space):
        folder, _ = prepared
        shard = dataset.load_shard(dataset.shard_path(folder, 0))
        prep = dataset.load_shard(folder / "prep_00000000.npz")
        for i in range(2):
            vertices = space.vertices(
                torch.from_numpy(np.array(prep["identity"][i])),
                torch.from_numpy(np.array(prep["expression"][i])),
            )
            error = space.landmarks(vertices).numpy() - shard["landmarks"][i]
            mean = space.landmarks(space.mean).numpy() - shard["landmarks"][i]
            assert np.linalg.norm(error, axis=1).mean() < 0.003
            assert np.linalg.norm(error, axis=1).mean() < np.linalg.norm(mean, axis=1).mean()

    def test_bare_skin_lies_on_the_canonical_skin(self, prepared, space):
        folder, _ = prepared
        shard = dataset.load_shard(dataset.shard_path(folder, 0))
        prep = dataset.load_shard(folder / "prep_00000000.npz")
        place = torch.from_numpy(np.array(prep["place"])).float() * dataset.SKIN_UNIT
        half = space.bounds[1, 0]
        for i in range(2):
            known = place[i].abs().sum(-1) > 0
            assert known.float().mean() > 0.1
            assert place[i].abs().max() <= half * 1.2
            assert (shard["target_alpha"][i][known.numpy()] > 127).all()
            assert (prep["residual"][i][~known.numpy()] == 0).all()
            skin = known & (torch.from_numpy(np.array(shard["target_class"][i])) == 1)
            residual = torch.from_numpy(np.array(prep["residual"][i])).float()[skin]
            assert residual.abs().median() < 0.002

    def test_they_make_a_batch(self, prepared):
        shards = data.Shards(prepared[0])
        batch = data.portraits(shards, 3, np.random.default_rng(0))
        assert batch.picture.shape == (3, 3, 128, 128)
        assert (batch.classes > 0).float().mean() > 0.1
        skin = batch.classes == 1
        assert skin.any() and torch.isfinite(batch.pose).all()
        assert (batch.landmarks[:, 30] - 0.5).abs().max() < 0.3


def test_a_head_as_the_head_space_sees_it(heads_pack):
    """Without expression and with it: both in the one frame, the eyes' middle at its place."""
    pack = Pack(heads_pack)
    neutral, posed = build_headspace.sample_pair(pack, 3)
    assert neutral.shape == posed.shape == (len(pack.rest), 3)
    eyes = [neutral[pack.group_vertices[g]].mean(0) for g in ("eye_l", "eye_r")]
    middle = (eyes[0] + eyes[1]) / 2
    assert np.abs(middle[:2] - [0, 0.02]).max() < 0.004 and eyes[0][0] > 0.02 > eyes[1][0]
    tri = build_headspace.outer_triangles(pack)
    assert tri.max() < len(pack.rest) and len(tri) > 10_000
    again = build_headspace.sample_pair(pack, 3)
    assert np.array_equal(again[0], neutral)
