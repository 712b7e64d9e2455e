"""Inversion with added EG3D models: what is known of a sample comes back from its picture."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from inversion_fixtures import SMALL, ball_sampler

from engine.checkpoints.default import load_default
from engine.errors import Cancelled, ParameterError
from engine.fields.io import field_to_bytes, load_field
from engine.inversion import pose as poses
from engine.inversion.eg3d import align, methods, optimise
from engine.inversion.eg3d.likeness import Likeness
from engine.inversion.eg3d.view import PlaneView, view
from engine.portrait.align import Aligned
from engine.portrait.matte import Matte
from engine.sampling import recipe as recipes

SIZE = 32
STEPS = methods.Steps(latent=70, tuning=40, pixels=SIZE, samples=16)
FEW = methods.Steps(latent=6, tuning=6, pixels=16, samples=8)
TURNED = math.radians(3)  # of the camera that an inversion is started with

pytestmark = pytest.mark.usefixtures("restored_process")


@pytest.fixture(scope="module")
def sampler():
    return ball_sampler()


@pytest.fixture(scope="module")
def net():
    return load_default()


def tensors(camera):
    return [torch.tensor(m).float() for m in (camera.cam2world, camera.intrinsics)]


@torch.no_grad()
def look(field, camera, size=SIZE):
    """image [3, size, size] and opacity of a field, every sample of its rays taken."""
    head = PlaneView(field.planes, field.decoder, field.settings)
    return view(head, *tensors(camera), size, 100)


def rms(a, b):
    return float((a - b).square().mean().sqrt())


def apart(a, b):
    """Degrees between the directions in which two cameras are turned."""
    turn = a.cam2world[:3, :3].T @ b.cam2world[:3, :3]
    return math.degrees(math.acos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))


class Known:
    """A sample's picture, the camera that took it, and a portrait with that camera turned by 3
    degrees about the pivot."""

    def __init__(self, sampler):
        self.camera = sampler.camera(12, 5, SIZE)
        self.field = sampler.field(sampler.map(sampler.z(7), psi=0.8))
        self.picture, opacity = look(self.field, self.camera)
        crop = (self.picture.permute(1, 2, 0).numpy() * 255 + 0.5).clip(0, 255).astype(np.uint8)
        head = (opacity.numpy() > 0.5).astype(np.float32)
        pivot = sampler.config.field.orbit_pivot
        moved = optimise.MovingCamera(self.camera, pivot, torch.device("cpu"))
        axis = torch.tensor([0.4, 0.8, 0.3])
        with torch.no_grad():
            moved.moved[:3] = axis / axis.norm() * TURNED / optimise.USUAL[0]
        self.start = moved.camera()
        whole = Aligned(crop, np.ones((SIZE, SIZE), bool), None, np.eye(3))
        matte = Matte(head, head, head.astype(np.uint8), 0 * head)
        self.portrait = align.posed(sampler.config, whole, self.start, matte)


@pytest.fixture(scope="module")
def known(sampler):
    return Known(sampler)


def inverted(name, sampler, net, known, steps=STEPS, seen=lambda fraction, step: None):
    return methods.invert(name, sampler, net, known.portrait, steps, seen, lambda image: None)


@pytest.fixture(scope="module")
def posed(sampler, net, known):
    return inverted("pose", sampler, net, known)


@pytest.fixture(scope="module")
def work(sampler, net, known):
    def ignore(*_):
        return None

    return methods.Work(sampler, net.perception, known.portrait, STEPS, ignore, ignore, 0, ignore)


@pytest.fixture(scope="module")
def networks(work, posed):
    """Tuned at the pivot, with locality and without."""
    with pytest.MonkeyPatch.context() as patch:
        first = work.tune(posed.ws, posed.camera, [], 0, 1)
        patch.setattr(optimise, "LOCALITY", 0.0)
        return first, work.tune(posed.ws, posed.camera, [], 0, 1)


@pytest.fixture(scope="module")
def tuned(work, posed, networks):
    return work.done(posed.ws, posed.camera, networks[0])


class TestView:
    def test_equals_the_generators(self, sampler, known):
        c = torch.from_numpy(known.camera.to_eg3d())[None]
        theirs = sampler.generator.render([known.field], c, resolution=SIZE)
        assert rms(known.picture, (theirs.raw[0] + 1) / 2) < 1e-4

    def test_gradients_reach_the_camera(self, sampler, known):
        pivot = sampler.config.field.orbit_pivot
        moving = optimise.MovingCamera(known.camera, pivot, torch.device("cpu"))
        head = PlaneView(known.field.planes, known.field.decoder, known.field.settings)

        def mean():
            return view(head, moving(), moving.intrinsics, SIZE, 24)[0][:, :, SIZE // 2 :].mean()

        mean().backward()
        slope = float(moving.moved.grad[1])
        with torch.no_grad():
            values = []
            for step in (-0.1, 0.1):
                moving.moved[1] = step
                values.append(float(mean()))
        assert slope == pytest.approx((values[1] - values[0]) / 0.2, rel=0.25)


class TestKnownSample:
    def test_code_and_camera_come_back(self, sampler, posed, known):
        average = sampler.field(optimise.usual_codes(sampler)[0][0])
        before = rms(look(average, known.start)[0], known.picture)
        after = rms(look(posed.field, posed.camera)[0], known.picture)
        assert before > 0.1 and after < before / 4
        assert apart(known.start, known.camera) == pytest.approx(3, abs=0.01)
        assert apart(posed.camera, known.camera) < 1.5
        turn = posed.camera.cam2world[:3, :3]
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-12)

    def test_the_code_alone_leaves_the_camera(self, sampler, net, known):
        assert inverted("w+", sampler, net, known, FEW).camera == known.start

    def test_tuning_comes_nearer_still(self, posed, tuned, known):
        before = rms(look(posed.field, posed.camera)[0], known.picture)
        assert rms(look(tuned.field, tuned.camera)[0], known.picture) < 0.6 * before

    def test_few_steps_of_tuning_do_no_harm(self, work, posed, known, monkeypatch):
        monkeypatch.setattr(work, "steps", dataclasses.replace(STEPS, tuning=3))
        tuned = work.field(posed.ws, work.tune(posed.ws, posed.camera, [], 0, 1))
        before, after = (
            rms(look(field, posed.camera)[0], known.picture) for field in (posed.field, tuned)
        )
        assert after < before

    def test_the_model_itself_stays(self, sampler, tuned, known):
        assert tuned.field.decoder.weight0.equal(sampler.generator.decoder.folded().weight0)
        again = sampler.field(sampler.map(sampler.z(7), psi=0.8))
        assert again.planes.equal(known.field.planes)

    @pytest.mark.parametrize("name", ["hfgi3d", "spi"])
    def test_pseudo_views_are_used(self, sampler, net, known, name):
        made = inverted(name, sampler, net, known, FEW)
        assert len(made.views) == len(methods.AROUND)
        shown = torch.stack([v.visible for v in made.views])
        assert 0.02 < float(shown.mean()) < 0.6
        assert all(torch.isfinite(v.picture).all() for v in made.views)

    def test_the_field_keeps_a_code_that_the_sampler_knows(self, sampler, tuned, tmp_path):
        path = tmp_path / "head.safetensors"
        path.write_bytes(field_to_bytes(tuned.field))
        assert torch.equal(recipes.saved_code(str(path), sampler), tuned.ws[0])
        assert load_field(path).origin.recipe["heads"] == ["photo"]


def test_locality_holds_other_codes(sampler, posed, networks):
    """Planes of codes near the pivot move much less than without the term that says so."""
    moved = []
    for network in networks:
        rng = np.random.RandomState(99)
        with torch.no_grad():
            far = [float(optimise.drift(sampler, network, posed.ws, rng)) for _ in range(6)]
        moved.append(np.mean(far))
    assert 0 < moved[0] < 0.75 * moved[1]


def test_likeness_is_least_for_the_picture_itself(net, known):
    weight = torch.ones(SIZE, SIZE)
    loss = Likeness(known.picture, weight, net.perception)
    own, other = float(loss(known.picture)), float(loss(known.picture.flip(2)))
    assert own < 0.01 and other > 0.1
    half = weight.clone()
    half[:, : SIZE // 2] = 0  # what does not count may differ
    changed = known.picture.clone()
    changed[:, :, : SIZE // 4] = 1
    assert float(Likeness(known.picture, half, None)(changed)) < 0.01


@pytest.mark.parametrize("at", [1, 5, 10])
def test_cancelling_is_heard_at_every_step(sampler, net, known, at):
    count = [0]

    def check():
        count[0] += 1
        if count[0] >= at:
            raise Cancelled()

    with pytest.raises(Cancelled):
        methods.invert(
            "pti", sampler, net, known.portrait, FEW, lambda f, s: None, lambda i: None, 0, check
        )
    assert count[0] == at


def test_progress_rises_and_the_view_is_shown(sampler, net, known):
    fractions, shown = [], []
    methods.invert(
        "spi", sampler, net, known.portrait, FEW, lambda f, s: fractions.append(f), shown.append
    )
    assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] <= 1
    assert len(shown) >= 9 and shown[0].dtype == np.uint8 and shown[0].shape == (16, 16, 3)


@pytest.mark.parametrize("name", ["encoder", "triplanenet", "warpgan", "magic"])
def test_methods_without_their_networks_are_refused(sampler, net, known, name):
    with pytest.raises(ParameterError, match="does not work with this model"):
        inverted(name, sampler, net, known)


class TestAlignment:
    """The camera and the crop of a head whose pose is given."""

    POSE = torch.tensor([0.4, -0.15, 0.1, 0.52, 0.47, math.log(0.34)])

    def test_the_camera_stands_on_the_models_sphere(self):
        pose = align.orbit_pose(SMALL, poses.rotation(self.POSE).double().numpy())
        place, forward = pose[:3, 3], pose[:3, 2]
        assert np.linalg.norm(place) == pytest.approx(SMALL.field.orbit_radius)
        to_pivot = np.array(SMALL.field.orbit_pivot) - place
        assert np.allclose(np.cross(to_pivot, forward), 0, atol=1e-6) and to_pivot @ forward > 0
        front = align.orbit_pose(SMALL, poses.rotation(torch.zeros(6)).double().numpy())
        assert np.allclose(front, ball_camera())

    def test_the_crop_shows_the_face_at_its_size(self, net):
        face = align.face_middle(net.space)
        assert abs(float(face[0])) < 1e-6 and -0.06 < float(face[1]) < 0.06
        to_crop = align.crop_matrix(SMALL, face, self.POSE)
        right = poses.rotation(self.POSE)[:, 0]  # points beside the face, across the view
        places = poses.project(torch.stack([face, face + 0.05 * right]), self.POSE)
        u = to_crop[:2, :2] @ places.T.double().numpy() + to_crop[:2, 2:]
        assert np.allclose(u[:, 0], 0.5, atol=1e-6)
        side = 1 / SMALL.camera_focal  # metres: radius 2.7, a unit of 1 / 2.7 m
        assert u[0, 1] - 0.5 == pytest.approx(0.05 / side, rel=1e-4)

    def test_a_model_on_white_sees_its_heads_on_white(self, sampler, known):
        field = dataclasses.replace(SMALL.field, white_background=True)
        white = dataclasses.replace(SMALL, field=field)
        whole, matte = known.portrait.aligned, known.portrait.matte
        made = align.posed(white, whole, known.camera, matte)
        assert (made.aligned.crop[matte.person == 0] == 255).all()
        assert (made.aligned.crop[matte.person == 1] == whole.crop[matte.person == 1]).all()
        assert (made.weight == 1).all() and known.portrait.weight.min() == np.float32(align.BEHIND)


def ball_camera():
    from engine.sampling.eg3d import orbit_camera

    return orbit_camera(SMALL, 0.0, 0.0, SIZE).cam2world


class TestAverageFace:
    """The crop follows where the model's own average head has its face."""

    POINTS = np.array([[96.0, 110], [160, 112], [128, 150], [104, 180], [152, 181]])

    def test_a_similarity_is_found_again(self):
        turn, shift = 0.9 * np.exp(0.1j), 12 - 5j
        moved = turn * (self.POINTS @ [1, 1j]) + shift
        made = align.similarity(self.POINTS, np.stack([moved.real, moved.imag], 1))
        assert np.allclose(made[0], [turn.real, -turn.imag, 12])
        assert np.allclose(made[1], [turn.imag, turn.real, -5])

    @pytest.mark.parametrize(
        ("factor", "shift", "followed"), [(1.1, 10, True), (1.6, 0, False), (1.0, 60, False)]
    )
    def test_only_what_can_be_believed_moves_it(
        self, sampler, known, monkeypatch, factor, shift, followed
    ):
        camera = known.camera.resized(256, 256)
        seen = (self.POINTS - 128) * factor + 128 + [shift, 0]
        monkeypatch.setattr(align, "find_points", lambda image, check: (seen, []))
        made = align.to_average_face(sampler, camera, self.POINTS, lambda: None)
        if followed:
            assert np.allclose(self.POINTS @ made[:2, :2].T + made[:2, 2], seen)
        else:
            assert np.array_equal(made, np.eye(3))

    def test_without_a_face_the_crop_stays(self, sampler, known):
        made = align.to_average_face(sampler, known.camera, self.POINTS / 8, lambda: None)
        assert np.array_equal(made, np.eye(3))
