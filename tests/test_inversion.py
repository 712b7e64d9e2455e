"""Camera, shape and colours found again from pictures of heads that are known."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from engine.cameras import orbit
from engine.checkpoints.default import load_default
from engine.device import Compute
from engine.errors import Cancelled
from engine.fields.head import HeadField
from engine.headspace import lattice
from engine.headspace.space import HeadSpace
from engine.inversion import appearance, fit, pose, shape
from engine.inversion.optim import Adam
from engine.inversion.shape import Shape
from engine.networks.planes import PlaneDecoder
from engine.surface.metrics import iou

SIZE = 128
CPU = Compute(torch.device("cpu"), torch.float32)
POSE = torch.tensor([0.25, 0.05, 0.04, 0.5, 0.55, math.log(0.4)])
NOTHING_LEARNED = torch.zeros(1, 2, 2, 2)
# A start that knows nothing but what heads are like, and roughly where the camera is.
ERROR = torch.diag(torch.cat([torch.ones(84), torch.tensor([0.2, 0.1, 0.05, 0.02, 0.02, 0.05])]))
GRID = 96  # of the distance grids here: coarse, they are only looked at from afar


@pytest.mark.parametrize(
    "numbers",
    [
        [0.0, 0.0, 0.0, 0.5, 0.5, -0.8],
        [0.7, -0.3, 0.2, 0.45, 0.6, -1.0],
        [-2.9, 0.4, -1.0, 0.7, 0.2, -0.6],
    ],
)
def test_pose_projection_rays_and_camera_agree(numbers):
    p = torch.tensor(numbers, dtype=torch.float64)
    points = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    points = points * 0.2 - 0.1
    places = pose.project(points, p)
    camera = pose.to_camera(p, 200)
    assert np.allclose(camera.project(points.numpy())[0], places.numpy() * 200, atol=1e-6)
    origin, directions = pose.rays(p, places)
    assert np.allclose(origin, camera.position, atol=1e-9)
    assert torch.allclose(directions.norm(dim=1), torch.ones(40, dtype=torch.float64))
    off = torch.linalg.cross(points - origin, directions)
    assert off.norm(dim=1).max() < 1e-9  # the rays pass through the points
    assert (((points - origin) * directions).sum(1) > 0).all()
    grid = (torch.tensor([[10.5, 20.5]], dtype=torch.float64)) / 200
    assert np.allclose(pose.rays(p, grid)[1][0], camera.rays()[1][20, 10])


def test_pose_means_what_it_says():
    p = torch.tensor([0.5, 0.2, 0.0, 0.5, 0.5, math.log(0.4)])
    expected = orbit(0.5, 0.2, 0.4 * pose.FOCAL, pose.FOV)
    camera = pose.to_camera(p, 512)
    assert np.allclose(camera.cam2world, expected.cam2world, atol=1e-6)
    assert np.allclose(camera.intrinsics, expected.intrinsics)
    # The origin falls where the pose says, and the picture is 0.4 m high there.
    moved = torch.tensor([0.0, 0.0, 0.3, 0.6, 0.3, math.log(0.4)])
    assert torch.allclose(pose.project(torch.zeros(1, 3), moved), torch.tensor([[0.6, 0.3]]))
    top = pose.to_camera(p, 512).cam2world[:3, 1] * -0.2
    v = pose.project(torch.tensor(top, dtype=torch.float32)[None], p)[0, 1]
    assert v == pytest.approx(0.0, abs=1e-5)


def test_rolling_the_camera_turns_the_picture():
    p = torch.tensor([0.0, 0.0, 0.3, 0.5, 0.5, math.log(0.4)])
    left = pose.project(torch.tensor([[0.05, 0.0, 0.0]]), p)[0] - 0.5
    straight = pose.project(torch.tensor([[0.05, 0.0, 0.0]]), p * torch.tensor([1, 1, 0, 1, 1, 1]))
    assert left.norm() == pytest.approx(float((straight[0] - 0.5).norm()), abs=1e-5)
    assert abs(math.atan2(left[1], left[0])) == pytest.approx(0.3, abs=1e-4)


def test_pose_takes_gradients():
    p = POSE.clone().requires_grad_()
    pose.project(torch.rand(5, 3), p).square().sum().backward()
    assert (p.grad != 0).all()


@pytest.fixture(scope="module")
def space() -> HeadSpace:
    return load_default().space


def baked(space: HeadSpace, made: Shape) -> HeadField:
    distance, warp = shape.bake(space, made, NOTHING_LEARNED, GRID)
    decoder = PlaneDecoder(4, 8).requires_grad_(False)
    return HeadField(distance, warp, torch.zeros(4, 4, 8, 8), decoder, space.bounds)


def covered(space: HeadSpace, made: Shape) -> np.ndarray:
    """The silhouette of a shape in its own camera, bool [SIZE, SIZE]."""
    seen = baked(space, made).render(pose.to_camera(made.pose, SIZE))
    return seen.alpha.numpy() > 0.5


def marks(space: HeadSpace, made: Shape) -> torch.Tensor:
    """A shape's landmarks in its own picture [84, 2]."""
    return pose.project(space.landmarks(space.vertices(made.identity, made.expression)), made.pose)


@dataclass
class Portrait:
    """A head that is known, and what a perfect eye would see of it."""

    truth: Shape
    head: np.ndarray
    labels: np.ndarray
    landmarks: torch.Tensor


@pytest.fixture(scope="module")
def portrait(space) -> Portrait:
    generator = torch.Generator().manual_seed(3)
    hair = torch.zeros(space.styles)
    hair[1], hair[3] = 0.8, 0.2
    truth = Shape(
        0.9 * torch.randn(len(space.identity), generator=generator),
        0.5 * torch.randn(len(space.expression), generator=generator),
        hair,
        torch.tensor(0.0),
        torch.zeros(1, *(shape.RESIDUAL,) * 3),
        POSE,
    )
    field = baked(space, truth)
    camera = pose.to_camera(POSE, SIZE)
    seen = field.render(camera)
    origin, rays = (torch.from_numpy(np.asarray(x)).float() for x in camera.rays())
    rays = rays.reshape(-1, 3)
    along = seen.depth.reshape(-1) / (rays @ torch.tensor(camera.cam2world[:3, 2]).float())
    points = origin + along[:, None] * rays
    canonical = points + lattice.sample(field.warp, points, space.bounds)
    mass = space.hair(hair)
    skin, mass = shape.skin_and_hair(space, canonical, mass, truth.residual, NOTHING_LEARNED)
    kind = torch.where(mass < skin, fit.HAIR, fit.SKIN).reshape(SIZE, SIZE)
    labels = torch.where(seen.alpha > 0.5, kind, 0).numpy().astype(np.uint8)
    assert (labels == fit.HAIR).sum() > 500 and (labels == fit.SKIN).sum() > 500
    return Portrait(truth, seen.alpha.numpy(), labels, marks(space, truth))


@pytest.fixture(scope="module")
def mean_start(space) -> Shape:
    """The mean head under an even mix of hair, seen by a camera that is well off."""
    return Shape(
        torch.zeros(len(space.identity)),
        torch.zeros(len(space.expression)),
        torch.full((space.styles,), 1 / space.styles),
        torch.zeros(()),
        torch.zeros(1, *(shape.RESIDUAL,) * 3),
        POSE + torch.tensor([-0.2, 0.05, -0.03, 0.02, -0.02, 0.05]),
    )


@pytest.fixture(scope="module")
def by_landmarks(space, portrait, mean_start) -> Shape:
    spread = torch.full((84,), 0.01)
    return fit.fit_landmarks(space, mean_start, portrait.landmarks, spread, ERROR)


def follow(space: HeadSpace, portrait: Portrait, start: Shape, **options) -> Shape:
    ignore = options.pop("ignore", np.zeros((SIZE, SIZE), bool))
    return fit.fit_silhouette(
        space,
        start,
        portrait.head,
        portrait.labels,
        ignore,
        portrait.landmarks,
        torch.full((84,), 0.01),
        NOTHING_LEARNED,
        ERROR,
        **options,
    )


def test_landmarks_are_met(space, portrait, mean_start, by_landmarks):
    before = (marks(space, mean_start) - portrait.landmarks).norm(dim=1)
    after = (marks(space, by_landmarks) - portrait.landmarks).norm(dim=1)
    assert before.mean() > 0.04
    assert after[fit.FACE].mean() < 0.004 and after.mean() < 0.01
    assert (by_landmarks.pose - POSE)[:2].abs().max() < 0.1  # of yaw's 0.2 that were off
    assert torch.equal(by_landmarks.hair, mean_start.hair)


def test_fitted_necks_grow_and_faces_stay(space, portrait):
    plain, warp = shape.bake(space, portrait.truth, NOTHING_LEARNED, 64)
    grown, _ = shape.bake(space, portrait.truth, NOTHING_LEARNED, 64, thicker=shape.neck)
    more = (plain - grown).flatten()
    p = lattice.nodes(64, space.bounds)
    q = p + lattice.sample(warp, p, space.bounds)
    near = plain.flatten().abs() < 0.005
    assert (more[near & (q[:, 1] > shape.NECK_TOP)]).abs().max() < 1e-6
    nape = more[near & (q[:, 1] < -0.12) & (q[:, 2] < 0)]
    throat = more[near & (q[:, 1] < -0.12) & (q[:, 2] > 0.02)]
    for part in (nape, throat):
        assert part.mean() == pytest.approx(shape.NECK, abs=3e-4)


def test_the_silhouette_is_met(space, portrait, by_landmarks):
    before = iou(covered(space, by_landmarks), portrait.head > 0.5)
    fitted = follow(space, portrait, by_landmarks, steps=60)
    assert before < 0.85
    assert iou(covered(space, fitted), portrait.head > 0.5) > 0.96
    error = (marks(space, fitted) - portrait.landmarks).norm(dim=1)
    assert error.mean() < 0.005 and error[fit.FACE].max() < 0.015
    assert fitted.hair.sum() == pytest.approx(1, abs=1e-5) and (fitted.hair >= 0).all()
    assert fitted.identity.abs().max() <= 3
    # The shape itself came nearer to the truth, not just its outline.
    rigid = []
    for guess in (by_landmarks, fitted):
        off = space.vertices(guess.identity, guess.expression) - space.vertices(
            portrait.truth.identity, portrait.truth.expression
        )
        rigid.append((off - off.mean(0)).norm(dim=1).mean())
    assert rigid[1] < 0.006 and rigid[1] < 1.1 * rigid[0]


def test_equal_seeds_give_equal_shapes(space, portrait, by_landmarks):
    a, b, other = (follow(space, portrait, by_landmarks, steps=4, seed=s) for s in (7, 7, 8))
    for name in ("identity", "hair", "offset", "residual", "pose"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert not torch.equal(a.identity, other.identity)


def test_what_is_ignored_decides_nothing(space, portrait, by_landmarks):
    """A matte that is wrong below, where the picture is to be ignored, changes nothing."""
    ignore = np.zeros((SIZE, SIZE), bool)
    ignore[80:] = True
    wrong = replace(portrait, head=portrait.head.copy(), labels=portrait.labels.copy())
    wrong.head[96:] = 1 - wrong.head[96:]  # beyond the reach of an outline's neighbourhood
    wrong.labels[96:] = 0
    a = follow(space, portrait, by_landmarks, steps=3, ignore=ignore)
    b = follow(space, wrong, by_landmarks, steps=3, ignore=ignore)
    assert torch.allclose(a.residual, b.residual, atol=1e-7)
    assert torch.allclose(a.pose, b.pose, atol=1e-6)


def test_fitting_can_be_cancelled_at_every_step(space, portrait, mean_start):
    def after(calls: int):
        left = [calls]

        def check():
            left[0] -= 1
            if left[0] < 0:
                raise Cancelled()

        return check

    spread = torch.full((84,), 0.01)
    with pytest.raises(Cancelled):
        fit.fit_landmarks(space, mean_start, portrait.landmarks, spread, ERROR, after(3))
    with pytest.raises(Cancelled):
        follow(space, portrait, mean_start, check=after(2))
    with pytest.raises(Cancelled):
        shape.bake(space, mean_start, NOTHING_LEARNED, GRID, after(1))


def test_baking_agrees_with_the_distance_itself(space, portrait):
    """Up to the grid's light smoothing."""
    truth = portrait.truth
    distance, warp = shape.bake(space, truth, NOTHING_LEARNED, GRID)
    nodes = lattice.nodes(GRID, space.bounds)
    near = (distance.flatten().abs() < 0.006).nonzero()[::40, 0]
    canonical = nodes[near] + lattice.sample(warp, nodes[near], space.bounds)
    exact = shape.distance_at(
        space, canonical, space.hair(truth.hair), truth.residual, NOTHING_LEARNED
    )
    error = (exact - distance.flatten()[near]).abs()
    assert error.median() < 2e-4 and error.max() < 0.004


def test_the_learned_residual_counts_near_the_surface_only(space, portrait):
    truth = portrait.truth
    assert not shape.learned_lattice(space, truth, lambda p: torch.zeros(len(p))).any()
    learned = shape.learned_lattice(space, truth, lambda p: -torch.ones(len(p)))
    assert learned.max() <= 0 and -learned.min() <= space.residual_bound.max()
    nodes = lattice.nodes(learned.shape[-1], space.bounds)
    mass = space.hair(truth.hair)
    skin, hair = shape.skin_and_hair(space, nodes, mass, truth.residual, NOTHING_LEARNED)
    far = torch.minimum(skin, hair).abs() > 0.07
    assert far.any() and learned.flatten()[far].abs().max() < 1e-4
    plain, _ = shape.bake(space, truth, NOTHING_LEARNED, GRID)
    # A tenth of it: three millimetres do not bring a fringe down over the face.
    grown, _ = shape.bake(space, truth, 0.1 * learned, GRID)
    moved = plain - grown
    assert moved[plain.abs() < 0.002].min() > -1e-4
    # It moves hair: a bald head stays where the head space has it.
    assert moved[plain.abs() < 0.002].max() > 0.001
    bald = replace(truth, hair=torch.eye(space.styles)[-1], residual=0 * truth.residual)
    plain, _ = shape.bake(space, bald, NOTHING_LEARNED, GRID)
    grown, _ = shape.bake(space, bald, 0.1 * learned, GRID)
    head = (plain.abs() < 0.002) & (torch.linspace(-0.2, 0.2, GRID) > -0.08)[None, :, None]
    # (Thin ears come near the coarse mass.)
    assert (plain - grown)[head].abs().quantile(0.95) < 1e-4


def test_roughness():
    r = 6
    flat = torch.zeros(1, r, r, r)
    ramp = torch.linspace(0, 0.01, r).expand(1, r, r, r)
    bent = (torch.linspace(-1, 1, r) ** 2 * 0.01).expand(1, r, r, r)
    assert fit.roughness(flat) == 0
    assert fit.roughness(ramp) == pytest.approx(0, abs=1e-6)
    assert fit.roughness(bent) > 1


# Colours: a real generator's planes on the known head, photographed with other colours.


@pytest.fixture(scope="module")
def coloured(space, portrait) -> tuple[HeadField, appearance.Seen, torch.Tensor]:
    """A field with the shipped generator's colours, what a tinted photo shows of it, and w+."""
    model = load_default()
    ws = model.encoder(torch.zeros(1, 4, 128, 128))
    distance, warp = shape.bake(space, portrait.truth, NOTHING_LEARNED, GRID)
    planes = model.generator.planes(ws)[0]
    field = HeadField(distance, warp, planes, model.generator.decoder, space.bounds)
    camera = pose.to_camera(POSE, 64)
    seen = field.render(camera)
    picture = (seen.image * torch.tensor([0.9, 0.6, 0.5]) + 0.05).clamp(0, 1)
    return field, appearance.see(field, camera, picture, seen.alpha), ws


def test_seen_points_lie_on_the_surface_they_came_from(space, portrait, coloured):
    field, seen, _ = coloured
    mass = space.hair(portrait.truth.hair)
    at = shape.distance_at(space, seen.canonical, mass, portrait.truth.residual, NOTHING_LEARNED)
    assert at.abs().median() < 5e-4
    assert len(seen.canonical) == len(seen.colour) == len(seen.weight) == (seen.index >= 0).sum()
    assert len(seen.canonical) > 800
    assert 0 <= seen.weight.min() and 0.9 < seen.weight.max() <= 1
    listed = seen.index[seen.index >= 0]
    assert torch.equal(listed, torch.arange(len(listed)))


def test_surface_points_cover_the_whole_head(space, portrait, coloured):
    field, _, _ = coloured
    points = appearance.surface_points(field, 3000, seed=1)
    assert torch.equal(points, appearance.surface_points(field, 3000, seed=1))
    assert not torch.equal(points, appearance.surface_points(field, 3000, seed=2))
    mass = space.hair(portrait.truth.hair)
    at = shape.distance_at(space, points, mass, portrait.truth.residual, NOTHING_LEARNED)
    assert at.abs().median() < 6e-4 and at.abs().quantile(0.95) < 3e-3
    front, back = (points[:, 2] > 0.03).float().mean(), (points[:, 2] < -0.05).float().mean()
    assert front > 0.1 and back > 0.1


def test_visibility_tells_the_front_from_the_back(coloured):
    field, seen, _ = coloured
    assert appearance.visibility(seen.canonical[seen.weight > 0.5], seen).mean() == 1
    everywhere = appearance.surface_points(field, 4000)
    shown = appearance.visibility(everywhere, seen, cell=0.012)  # the picture's pixels are 6 mm
    assert shown[everywhere[:, 2] < -0.06].mean() < 0.05
    assert shown[everywhere[:, 2] > 0.05].mean() > 0.5


def test_expected_colours_take_the_photos_tone(coloured):
    _, seen, _ = coloured
    n = len(seen.canonical)
    grey = torch.full((n, 3), 0.5)
    skin = torch.zeros(n)
    tinted = replace(seen, colour=torch.tensor([0.6, 0.4, 0.3]).expand(n, 3))
    out = appearance.expected_colours(grey[:9], skin[:9], tinted, grey, skin)
    assert torch.allclose(out, torch.tensor([0.6, 0.4, 0.3]).expand(9, 3), atol=0.02)
    untouched = appearance.expected_colours(grey[:9], skin[:9] + 1, tinted, grey, skin)
    assert torch.allclose(untouched, grey[:9])  # no hair in the photo: nothing to go by
    assert 0 <= out.min() and out.max() <= 1


@pytest.fixture(scope="module")
def target(coloured) -> appearance.Target:
    field, seen, _ = coloured
    everywhere = appearance.surface_points(field, 2000)
    points = everywhere - lattice.sample(field.warp, everywhere, field.bounds)
    return appearance.Target(seen, everywhere, field.color(points))


def colours(generator, planes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return generator(planes, points[None])[0][0]


def test_every_stage_comes_nearer_to_the_photo(coloured, target, monkeypatch):
    """Style code, then generator, then planes; unseen surface stays what was expected there."""
    monkeypatch.setattr(appearance, "HELD_POINTS", 800)
    field, seen, ws = coloured
    model = load_default()
    weights = copy.deepcopy(model.generator.state_dict())
    refined = appearance.refine_latent(model.generator, ws, seen, 6, CPU)
    tuned = appearance.tune(model.generator, refined, target, 8, CPU)
    with torch.no_grad():
        stages = [model.generator.planes(w) for w in (ws, refined)] + [tuned.planes(refined)]
    stages.append(appearance.sharpen(tuned, stages[-1], target, 25))
    makers = [model.generator, model.generator, tuned, tuned]
    losses = [
        float(appearance.photo_loss(colours(g, p, seen.canonical), seen))
        for g, p in zip(makers, stages)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.6 * losses[0]
    for name, value in model.generator.state_dict().items():
        assert torch.equal(value, weights[name]), f"{name} of the shared model was changed"
    hidden = appearance.visibility(target.everywhere, seen) == 0
    drift = colours(tuned, stages[-1], target.everywhere) - target.expected
    shown = colours(tuned, stages[-1], seen.canonical) - colours(
        model.generator, stages[0], seen.canonical
    )
    assert drift[hidden].abs().mean() < 0.7 * shown.abs().mean()
    assert not any(p.requires_grad for p in tuned.parameters())


def test_no_steps_change_nothing(coloured, target):
    field, seen, ws = coloured
    generator = load_default().generator
    assert appearance.refine_latent(generator, ws, seen, 0, CPU) is ws
    tuned = appearance.tune(generator, ws, target, 0, CPU)
    for a, b in zip(tuned.parameters(), generator.parameters()):
        assert torch.equal(a, b)
    planes = field.planes[None]
    assert torch.equal(appearance.sharpen(generator, planes, target, 0), planes)


def test_colours_are_deterministic_and_can_be_cancelled(coloured, target, monkeypatch):
    monkeypatch.setattr(appearance, "HELD_POINTS", 300)
    field, seen, ws = coloured
    generator = load_default().generator
    planes = field.planes[None]
    a, b = (appearance.sharpen(generator, planes, target, 2, seed=4) for _ in range(2))
    assert torch.equal(a, b)

    def report(fraction):
        if fraction > 0:
            raise Cancelled()

    for stage in (
        lambda: appearance.refine_latent(generator, ws, seen, 3, CPU, report),
        lambda: appearance.tune(generator, ws, target, 3, CPU, report),
        lambda: appearance.sharpen(generator, planes, target, 3, report),
    ):
        with pytest.raises(Cancelled):
            stage()


def test_adam_agrees_with_torch():
    start = torch.randn(7, generator=torch.Generator().manual_seed(0))
    mine, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    ours = Adam([{"params": [mine], "lr": 0.03}], betas=(0.9, 0.99))
    reference = torch.optim.Adam([theirs], lr=0.03, betas=(0.9, 0.99))
    for step in range(20):
        for parameter, optimiser in ((mine, ours), (theirs, reference)):
            optimiser.param_groups[0]["lr"] = 0.03 * (1 - step / 20)
            optimiser.zero_grad()
            (parameter**4 - 3 * parameter).sum().backward()
            optimiser.step()
    assert torch.allclose(mine, theirs, atol=1e-6) and not torch.allclose(mine, start, atol=0.1)


def test_fitting_does_not_load_the_compiler(root):
    """See engine/inversion/optim.py: 1.4 s and a folder in the temporary files."""
    code = (
        "import sys; import engine.inversion.reconstruct; "
        "from engine.inversion.optim import Adam; import torch; "
        "p = torch.ones(3, requires_grad=True); a = Adam([{'params': [p], 'lr': 0.1}]); "
        "p.sum().backward(); a.step(); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
