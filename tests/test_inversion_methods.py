"""Recipes, pseudo-views and what colours learn from them, on a head that is known."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.cameras import orbit
from engine.checkpoints.default import load_default
from engine.device import Compute
from engine.errors import Cancelled
from engine.inversion import appearance, colours, exemplar, fuse, inpaint, methods, pose, pseudo
from engine.inversion import reconstruct as way
from engine.inversion.align_camera import align_camera
from engine.inversion.appearance import Seen, Target
from engine.inversion.shape import RESIDUAL, Shape
from engine.inversion.warp import points_of
from engine.jobs.reconstruct import METHODS as CHOICES

CPU = Compute(torch.device("cpu"), torch.float32)
POSE = torch.tensor([0.3, 0.05, 0.03, 0.5, 0.52, math.log(0.37)])
TINT = torch.tensor([1.15, 0.95, 0.8])
FEW = way.Steps(silhouette=1, latent=2, tuning=2, planes=2, pixels=64)


@pytest.fixture(scope="module")
def model():
    return load_default()


@pytest.fixture(scope="module")
def known(model) -> tuple[colours.Fitted, SimpleNamespace]:
    """A head whose shape and camera are known, in colours of its own, and its photo: the same head
    in warmer light."""
    hair = torch.zeros(model.space.styles)
    hair[1] = 1.0
    generator = torch.Generator().manual_seed(5)
    shape = Shape(
        0.5 * torch.randn(len(model.space.identity), generator=generator),
        torch.zeros(len(model.space.expression)),
        hair,
        torch.tensor(0.0),
        torch.zeros(1, *(RESIDUAL,) * 3),
        POSE,
    )
    ws = model.generator.w_avg[None].clone()
    learned = torch.zeros(1, 4, 4, 4)
    planes = colours.planes_of(model.generator, ws, hair[None], CPU)
    field = way._field(model, shape, learned, planes)
    camera = pose.to_camera(POSE, way.CROP)
    seen = field.render(camera.resized(256, 256))
    big = torch.nn.functional.interpolate(
        torch.cat([seen.image, seen.alpha[..., None]], 2).permute(2, 0, 1)[None], (512, 512)
    )[0].permute(1, 2, 0)
    crop = ((big[..., :3] * TINT).clamp(0, 1) * 255).byte().numpy()
    trust = (big[..., 3] > 0.99).float().numpy()
    vertices = model.space.vertices(shape.identity, shape.expression)
    marks = pose.project(model.space.landmarks(vertices), POSE)
    matte = SimpleNamespace(alpha=trust, glasses=0 * trust)
    head = colours.Fitted(
        field, camera, matte, np.zeros((512, 512), np.uint8), trust, shape,
        learned, ws, marks, torch.full((84,), 0.01),
    )  # fmt: skip
    return head, SimpleNamespace(crop=crop)


@pytest.fixture
def given(known, monkeypatch):
    """Recipes get the known head instead of fitting one; (head, photo), the head a copy."""
    head, photo = copy.deepcopy(known[0]), known[1]
    monkeypatch.setattr(methods, "fit_head", lambda *_: head)
    monkeypatch.setattr(way, "fit_head", lambda *_: head)
    return head, photo


def photo_error(model, made, head, photo) -> float:
    """Mean colour error of a result in the photo's pixels."""
    seen = colours.see_photo(replace(head, camera=made.camera), photo, 64)
    planes = made.field.planes[None]
    colour = made.field.decoder(
        appearance_planes(planes, seen.canonical / made.field.bounds[1, 0])
    )[0][0]
    return float((seen.weight[:, None] * (colour - seen.colour).abs()).sum() / seen.weight.sum())


def appearance_planes(planes, unit):
    from engine.networks.planes import sample_planes

    return sample_planes(planes, unit[None])


def test_the_job_offers_every_method():
    assert CHOICES == ("auto", *methods.METHODS)
    assert all(m.label and m.run.__doc__ for m in methods.METHODS.values())


@pytest.mark.parametrize(
    "names", [("triplanenet",), pytest.param(methods.METHODS, marks=pytest.mark.slow)]
)
def test_every_method_comes_nearer_to_the_photo(model, given, monkeypatch, names):
    head, photo = given
    monkeypatch.setattr(inpaint.svinet, "PATH", inpaint.svinet.PATH.with_name("none"))
    start = photo_error(model, head, head, photo)
    told = []
    for name in names:
        if name == "encoder":
            continue
        fresh = copy.deepcopy(head)
        for room in (methods, way):
            monkeypatch.setattr(room, "fit_head", lambda *_, h=fresh: h)
        made = methods.invert(
            name, model, photo, FEW, CPU, lambda f, step: told.append((f, step)), seed=3
        )
        assert photo_error(model, made, head, photo) < start, name
        assert made.ws.shape == head.ws.shape
        assert torch.isfinite(made.field.planes).all()
        assert made.field.planes.requires_grad is False
    assert all(0 <= f <= 1 for f, _ in told) and len({step for _, step in told}) >= 2


@pytest.mark.slow
def test_the_generator_itself_is_left_alone(model, given):
    before = {k: v.clone() for k, v in model.generator.state_dict().items()}
    methods.invert("pti", model, given[1], FEW, CPU)
    assert all(torch.equal(v, before[k]) for k, v in model.generator.state_dict().items())


def test_a_recipe_can_be_cancelled(model, given):
    def check():
        raise Cancelled()

    with pytest.raises(Cancelled):
        methods.invert("triplanenet", model, given[1], FEW, CPU, check=check)
    with pytest.raises(KeyError):
        methods.invert("magic", model, given[1], FEW, CPU)


@pytest.mark.slow
def test_a_mirror_view_tells_of_the_other_side(model, given, monkeypatch):
    """The photo shows the left side: with the mirrored view the right one takes its tint too."""
    head, photo = given
    steps = replace(FEW, tuning=12)
    tints = {}
    for name in ("pti", "spi"):
        fresh = copy.deepcopy(head)
        monkeypatch.setattr(methods, "fit_head", lambda *_, h=fresh: h)
        made = methods.invert(name, model, photo, steps, CPU)
        right = made.field.render(orbit(-0.9, 0.0, 1.2, pose.FOV, width=64, height=64))
        solid = right.alpha > 0.9
        mean = right.image[solid].mean(0)
        tints[name] = float(mean[0] / mean[2])
    assert tints["spi"] > 1.02 * tints["pti"]


def test_a_camera_that_is_off_comes_back(model, known):
    head, photo = known
    off = torch.tensor([0.05, -0.03, 0.02, 0.008, -0.006, 0.02])
    start = replace(head.shape, pose=POSE + off)
    field = head.field
    found = align_camera(
        model.space, field, start, photo.crop, head.trust, head.landmarks, head.spread, 40
    )
    assert (found - POSE).abs()[:2].max() < 0.4 * off.abs()[0]
    assert (found - POSE).abs()[3:5].max() < 0.004


def test_cameras_stand_all_round_and_not_beside_the_photos():
    cameras = pseudo.cameras_around(((0, 0), (90, 0), (180, 20)), 32, metres_per_unit=0.5)
    assert len(cameras) == 3
    middle = np.array(pseudo.MIDDLE)
    distance = [np.linalg.norm(c.position - middle) for c in cameras]
    assert np.allclose(distance, pseudo.EXTENT / 0.5 / (2 * math.tan(pseudo.FOV / 2)))
    assert cameras[1].position[0] > 1 and cameras[2].position[1] > 0.5
    beside = orbit(math.radians(80), 0, 2.0, 0.3)
    left = pseudo.cameras_around(((0, 0), (90, 0), (180, 20)), 32, without=beside)
    assert len(left) == 2


def test_a_view_is_photo_over_mirror_over_fill(known):
    head, photo = known
    picture = torch.from_numpy(photo.crop).float() / 255
    sources = pseudo.sources_of(
        head.field, picture, torch.from_numpy(head.trust), head.camera, size=128
    )
    camera = pseudo.cameras_around(((-20, 0),), 128)[0]
    view = pseudo.pseudo_view(head.field, sources, camera)
    assert view.visible.max() > 0.9 and view.mirror_visible.max() > 0.9
    sure, solid = view.visible > 0.99, view.alpha > 0.99
    # The head itself, in the photo's light.
    tinted = (view.render * TINT).clamp(0, 1)
    assert (view.picture - tinted)[sure & solid].abs().mean() < 0.02
    hidden = solid & (view.visible == 0) & (view.mirror_visible == 0)
    assert hidden.any() and torch.equal(view.picture[hidden], view.render[hidden])
    assert view.confidence[hidden] == pytest.approx(pseudo.RENDERED)
    green = torch.zeros_like(view.render)
    green[..., 1] = view.alpha
    view.compose(green, mirror=1.0)
    assert torch.allclose(view.picture[hidden], green[hidden])
    assert view.confidence[hidden] == pytest.approx(pseudo.INPAINTED)
    other = solid & (view.visible == 0) & (view.mirror_visible > 0.99)
    assert other.any() and (view.picture - tinted)[other].abs().mean() < 0.1
    assert (view.picture[sure] - green[sure]).abs().mean() > 0.1  # the photo stays on top
    assert (view.confidence[view.alpha < 0.5] == 0).all()


def test_what_a_view_shows_is_the_fields_own_colour(known):
    field = known[0].field
    camera = pseudo.cameras_around(((100, 0),), 96)[0]
    seen = field.render(camera)
    depth, ones = pseudo.solid_depth(seen), torch.ones(96, 96)
    view = pseudo.PseudoView(camera, seen.image, depth, seen.alpha, *[seen.image] * 4,
                             seen.image, ones)  # fmt: skip
    shown = fuse.seen_in(field, view)
    points = points_of(depth, camera)[shown.index >= 0]
    assert (shown.colour - field.color(points)).abs().mean() < 0.01
    assert (shown.index >= 0).sum() == len(shown.weight) > 1000
    both = fuse.together([shown, shown])
    assert len(both.weight) == 2 * len(shown.weight)
    assert both.index.max() == len(both.weight) - 1
    colour, weight = fuse.read(both, shown.canonical[::50] + 0.0005)
    assert (weight > 0).all() and (colour - shown.colour[::50]).abs().mean() < 0.05
    assert (fuse.read(both, shown.canonical[:3] + 1.0)[1] == 0).all()


def test_painted_views_say_what_is_expected_only_where_no_photo_does(known):
    head, photo = known
    seen = colours.see_photo(head, photo, 96)
    everywhere = appearance.surface_points(head.field, 3000)
    target = Target(seen, everywhere, torch.full((3000, 3), 0.5))
    sources = pseudo.sources_of(
        head.field, torch.from_numpy(photo.crop) / 255, torch.from_numpy(head.trust), head.camera
    )
    views = []
    for camera in pseudo.cameras_around(((-90, 0), (60, 0)), 128):
        view = pseudo.pseudo_view(head.field, sources, camera)
        view.compose(torch.tensor([0.0, 1.0, 0.0]) * view.alpha[..., None])
        views.append(view)
    with_them = inpaint.with_views(target, head.field, views)
    change = with_them.expected - 0.5
    shown, other = appearance.visibility(everywhere, seen), everywhere[:, 0] < -0.06
    assert change[shown > 0.99].abs().max() < 0.02
    assert change[other, 1].mean() > 0.2 and change[other, 0].mean() < -0.2
    for view in views:  # views in which nothing was painted
        view.compose()
    same = inpaint.with_views(target, head.field, views).expected
    assert torch.allclose(same, target.expected, atol=1e-3)
    assert with_them.seen is seen
    assert inpaint.with_views(target, head.field, []) is target


def hair_of_stripes() -> tuple[Seen, torch.Tensor]:
    """The front half of a ball of hair with vertical stripes, 60 to the full circle, and a blank
    fringe."""
    column, row = torch.meshgrid(
        torch.linspace(0.26, 0.74, 700), torch.linspace(0.3, 0.7, 160), indexing="ij"
    )
    angle = (column.flatten() - 0.5) * math.tau
    down = row.flatten() * exemplar.LONGEST
    points = torch.stack(
        [0.1 * angle.sin(), 0.1 + exemplar.TOP - down, 0.1 * angle.cos() + exemplar.CROWN], 1
    )
    bright = 0.4 + 0.2 * torch.sin(60 * angle)
    colour = bright[:, None].expand(-1, 3).contiguous()
    n = len(points)
    return Seen(points, colour, torch.ones(n), torch.arange(n)[None]), torch.ones(n)


def test_the_photos_texture_goes_on_round_the_head():
    seen, covered = hair_of_stripes()
    fine = exemplar.detail(seen, covered)
    assert fine.shape == (exemplar.ROWS, exemplar.COLUMNS, 3)
    row = fine[exemplar.ROWS // 2, :, 0].numpy()
    front, back = row[140:240], np.concatenate([row[-30:], row[:30]])
    assert front.std() > 0.08
    assert 0.2 * front.std() < back.std() < front.std()  # there, and fainter far from the photo
    border = int(0.26 * exemplar.COLUMNS)
    steps = np.abs(np.diff(row))
    assert steps[border - 6 : border + 6].max() < 2 * steps[140:240].max()  # no seam
    turned = exemplar._to_and_fro(np.arange(7), 3)
    assert turned.tolist() == [0, 1, 2, 2, 1, 0, 0]


def test_texture_comes_by_its_amount_and_not_from_nothing():
    seen, covered = hair_of_stripes()
    fine = exemplar.detail(seen, covered)
    grey = torch.full((len(covered), 3), 0.4)
    none = exemplar.textured(seen.canonical, grey, torch.zeros(len(covered)), fine)
    assert torch.allclose(none, grey, atol=1e-6)
    full = exemplar.textured(seen.canonical, grey, covered, fine)
    inner = (seen.canonical[:, 0].abs() < 0.06) & (seen.canonical[:, 1] > 0.04)
    alike = torch.corrcoef(torch.stack([full[inner, 0], seen.colour[inner, 0]]))[0, 1]
    assert alike > 0.9  # the stripes lie where the photo has them
    assert exemplar.detail(seen, torch.zeros_like(covered)) is None
