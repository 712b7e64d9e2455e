"""Baking: the photo where it is seen, the field in its tone elsewhere, no background anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, gaussian_filter

from engine.cameras import Camera, orbit
from engine.errors import Cancelled
from engine.surface import bake as baking
from engine.surface.bake import PhotoView, bake, fill
from engine.surface.cleanup import clean
from engine.surface.draw import draw_textured
from engine.surface.isosurface import extract
from engine.surface.mesh import Mesh
from engine.surface.metrics import photo_agreement, psnr
from engine.surface.unwrap import unwrap
from tests import surface_fixtures as shapes

TINT = torch.tensor([1.1, 0.85, 0.7])


class Tinted(shapes.AnalyticField):
    """The same head under warmer light, with detail that the field does not have."""

    def color(self, points: torch.Tensor) -> torch.Tensor:
        detail = torch.sin(points[:, 0] * 600) * torch.sin(points[:, 1] * 600)
        return (super().color(points) * TINT * (1 + 0.15 * detail[:, None])).clamp(0, 1)


def photo_of(field, camera) -> PhotoView:
    render = field.render(camera)
    alpha = render.alpha.numpy()
    green = np.array([0, 1, 0.2]) * (1 - alpha[..., None])
    rgb = ((render.image.numpy() + green).clip(0, 1) * 255).astype(np.uint8)
    return PhotoView(camera, rgb, alpha)


@pytest.fixture(scope="module")
def head() -> Mesh:
    return unwrap(clean(extract(shapes.AnalyticField(shapes.head), 128), 8000), 512)


@pytest.fixture(scope="module")
def camera():
    return orbit(0.25, 0.05, 1.2, 0.36, width=400, height=400)


@pytest.fixture(scope="module")
def photo(camera):
    return photo_of(Tinted(), camera)


@pytest.fixture(scope="module")
def baked(head, photo) -> Mesh:
    return head.with_texture(bake(head, shapes.AnalyticField(shapes.head), [photo], 512))


def shown(mesh: Mesh, yaw: float, size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    camera = orbit(yaw, 0.0, 1.2, 0.36, width=size, height=size)
    image = draw_textured(mesh, camera)
    return image[..., :3], image[..., 3] == 255


def test_without_a_photo_the_field_is_what_is_seen(head):
    field = shapes.AnalyticField(shapes.head)
    mesh = head.with_texture(bake(head, field, [], 512))
    for yaw in (0.0, 1.6, 3.1):
        image, inside = shown(mesh, yaw)
        render = field.render(orbit(yaw, 0.0, 1.2, 0.36, width=200, height=200))
        inside &= render.alpha.numpy() > 0.5
        expected = (render.image.numpy() * 255).astype(np.uint8)
        assert psnr(image, expected, inside) > 30


def test_through_the_photos_camera_it_is_the_photo(baked, photo):
    agreement = photo_agreement(baked, photo.camera, photo.rgb, photo.alpha)
    assert agreement["psnr_common"] > 28
    assert agreement["iou"] > 0.97
    # The field alone would not do.
    plain = baked.with_texture(bake(baked, shapes.AnalyticField(shapes.head), [], 512))
    alone = photo_agreement(plain, photo.camera, photo.rgb, photo.alpha)["psnr_common"]
    assert agreement["psnr_common"] > alone + 6


def test_nothing_of_the_background_is_on_the_head(baked):
    t = baked.texture.astype(int)
    assert (t[..., 1] - t[..., 0]).max() < 45  # the eyes are a little greener than red
    for yaw in (-1.2, 1.6, 3.1):
        image, inside = shown(baked, yaw)
        green = image[..., 1].astype(int) - np.maximum(image[..., 0], image[..., 2])
        assert green[inside].max() < 25


def test_a_painted_view_lies_over_the_field_and_under_the_photo(head, photo, baked):
    field = shapes.AnalyticField(shapes.head)
    behind = orbit(0.25 + np.pi, 0.0, 1.2, 0.36, width=200, height=200)
    alpha = field.render(behind).alpha.numpy()
    red = np.zeros((200, 200, 3), np.uint8)
    red[..., 0] = 255

    def with_paint(camera: Camera, sure: float) -> Mesh:
        view = PhotoView(camera, red, alpha, sure=np.full((200, 200), sure, np.float32))
        return head.with_texture(bake(head, field, [photo, view], 256))

    plain = head.with_texture(bake(head, field, [photo], 256))
    painted = with_paint(behind, 0.8)
    colours = {}
    for name, mesh in (("plain", plain), ("painted", painted), ("unsure", with_paint(behind, 0.0))):
        image, inside = shown(mesh, 0.25 + np.pi)
        middle = binary_erosion(inside, iterations=20)
        colours[name] = image[middle].mean(0)
    assert colours["painted"][0] > colours["plain"][0] + 25
    assert colours["painted"][1] < colours["plain"][1] - 40
    assert np.abs(colours["unsure"] - colours["plain"]).max() < 1
    front, inside = shown(with_paint(photo.camera.resized(200, 200), 0.8), 0.25)
    middle = binary_erosion(inside, iterations=25)
    without, _ = shown(plain, 0.25)
    assert np.abs(front[middle].astype(int) - without[middle]).mean() < 4


def test_unseen_sides_take_the_photos_tone(baked):
    expected = Tinted()
    image, inside = shown(baked, np.pi)
    render = expected.render(orbit(np.pi, 0.0, 1.2, 0.36, width=200, height=200))
    want = render.image.numpy() * 255
    inside &= render.alpha.numpy() > 0.5
    error = image[inside].mean(0) - want[inside].mean(0)
    assert np.abs(error).max() < 8
    untinted = shapes.AnalyticField(shapes.head).render(
        orbit(np.pi, 0.0, 1.2, 0.36, width=200, height=200)
    )
    assert np.abs(untinted.image.numpy()[inside].mean(0) * 255 - want[inside].mean(0)).max() > 20


def test_there_is_no_seam_where_the_photo_ends(baked):
    # Along the side of the head the colour runs on without a step.
    image, inside = shown(baked, -0.9, 300)
    low = np.stack([image[..., k].astype(float) for k in range(3)], -1)
    smooth = gaussian_filter(low, (3, 3, 0))
    neck = binary_erosion(inside, iterations=12)
    neck[: int(300 * 0.6)] = False  # below the face the field is one smooth colour
    step = np.abs(np.diff(smooth, axis=1))[:, :, 0][neck[:, 1:] & neck[:, :-1]]
    assert step.max() < 4


def test_what_is_hidden_does_not_take_what_hides_it():
    # A red ball in front of a blue one; seen from the front, then looked at from behind.
    def two(p):
        return torch.minimum(
            (p - torch.tensor([0.0, 0.0, 0.1])).norm(dim=1) - 0.06,
            torch.minimum(
                (p - torch.tensor([0.0, 0.0, -0.09])).norm(dim=1) - 0.09,
                (p * torch.tensor([1.0, 1.0, 0.05])).norm(dim=1) - 0.008,
            ),
        )

    class Field(shapes.AnalyticField):
        def color(self, points):
            front = (points[:, 2:] > 0.03).float()
            return front * torch.tensor([0.8, 0.1, 0.1]) + (1 - front) * torch.tensor(
                [0.1, 0.1, 0.8]
            )

    field = Field(two)
    mesh = unwrap(clean(extract(field, 96), 6000), 256)
    camera = orbit(0.0, 0.0, 1.2, 0.4, width=200, height=200)
    mesh = mesh.with_texture(bake(mesh, field, [photo_of(field, camera)], 256))
    image, inside = shown(mesh, np.radians(75))
    render = field.render(orbit(np.radians(75), 0.0, 1.2, 0.36, width=200, height=200))
    want = (render.image.numpy() * 255).astype(np.uint8)
    inside &= render.alpha.numpy() > 0.5
    wrong = np.abs(image.astype(int) - want).max(-1) > 60
    assert wrong[inside].mean() < 0.01


def test_a_cut_off_or_empty_photo_does_no_harm(head, camera, photo):
    field = shapes.AnalyticField(shapes.head)
    plain = bake(head, field, [], 256).astype(int)
    same = bake(head, field, [PhotoView(camera, photo.rgb, np.zeros_like(photo.alpha))], 256)
    assert np.abs(same - plain).max() <= 1
    away = orbit(np.pi, 0.0, 0.01, 0.3, (0, 0, 5.0), 64, 64)  # looks away from the head
    seen = bake(head, field, [PhotoView(away, photo.rgb[:64, :64], photo.alpha[:64, :64])], 256)
    assert np.abs(seen - plain).max() <= 1
    half = camera.intrinsics.copy()
    half[0, 2] -= 0.5
    cut = Camera(camera.cam2world, half, 400, 400)
    view = PhotoView(cut, np.roll(photo.rgb, -200, 1), np.roll(photo.alpha, -200, 1))
    view.alpha[:, 200:] = 0
    mesh = head.with_texture(bake(head, field, [view], 256))
    image, inside = shown(mesh, 0.0)
    assert (image[..., 1].astype(int) - image[..., 0])[inside].max() < 45


def test_grazing_skin_is_left_to_the_field():
    ball = unwrap(clean(extract(shapes.AnalyticField(shapes.sphere), 48), 3000), 256)
    camera = orbit(0.0, 0.0, 1.2, 0.3, width=200, height=200)
    striped = np.zeros((200, 200, 3), np.uint8)
    striped[:, ::2] = 255

    class Grey(shapes.AnalyticField):
        def color(self, points):
            return torch.full((len(points), 3), 0.5)

    field = Grey(shapes.sphere)
    view = PhotoView(camera, striped, np.ones((200, 200), np.float32))
    mesh = ball.with_texture(bake(ball, field, [view], 256))
    turned = orbit(np.pi / 2, 0.0, 1.2, 0.3, width=200, height=200)
    row = draw_textured(mesh, turned, 4)[100, :, 0].astype(float)
    inside = np.flatnonzero(draw_textured(mesh, turned)[100, :, 3] == 255)
    # The photo's camera is on the picture's left: detail there, none about the middle.
    middle = len(inside) // 2
    assert row[inside[4 : middle // 2]].std() > 10
    assert row[inside[middle - 5 :]].std() < 3


def test_colours_that_are_no_numbers(head):
    class Broken(shapes.AnalyticField):
        def color(self, points):
            return super().color(points) * float("nan")

    assert bake(head, Broken(shapes.head), [], 128).shape == (128, 128, 3)


def test_gutters_continue_the_islands():
    rng = np.random.default_rng(0)
    for size in (64, 256):
        known = np.zeros((size, size), bool)
        known[10:30, 20:40] = True
        texture = np.zeros((size, size, 3), np.uint8)
        texture[known] = rng.integers(1, 255, (known.sum(), 3))
        before = texture.copy()
        out = fill(texture, known)
        assert (out[known] == before[known]).all()
        assert (out[5, 20:40] == before[10, 20:40]).all()
        assert (out[10:30, 45] == before[10:30, 39]).all()


def test_faces_that_look_away_from_the_photo_leave_no_trace(head, photo, monkeypatch):
    field, shown = shapes.AnalyticField(shapes.head), []
    quick = bake(head, field, [photo], 256)
    chosen = baking._turned

    def all_of_them(*of):
        shown.append(chosen(*of).mean())
        return np.ones(len(head.faces), bool)

    monkeypatch.setattr(baking, "_turned", all_of_them)
    assert (bake(head, field, [photo], 256) == quick).all()
    assert 0.3 < np.mean(shown) < 0.7


def test_textures_in_several_bands_are_the_same(head, photo, monkeypatch):
    field = shapes.AnalyticField(shapes.head)
    whole = bake(head, field, [photo], 256).astype(int)
    monkeypatch.setattr("engine.surface.bake.BAND", 256 * 60)
    parts = bake(head, field, [photo], 256).astype(int)
    # Far from any island the nearest one may lie in another band.
    assert (np.abs(whole - parts).max(-1) > 1).mean() < 0.02


def test_it_can_be_cancelled(head, photo):
    calls = []

    def check():
        calls.append(1)
        if len(calls) > 5:
            raise Cancelled()

    with pytest.raises(Cancelled):
        bake(head, shapes.AnalyticField(shapes.head), [photo], 128, check)


def test_a_photo_of_before_a_move_gives_the_same_skin(head, photo, baked):
    """A mesh that has moved since the photo, with the places where its points were, gets the
    texture that it had; without them, another."""
    shift = np.array([0.03, -0.02, 0.01], np.float32)
    moved = Mesh(head.vertices + shift, head.faces, head.uvs)

    class Moved(shapes.AnalyticField):
        def color(self, points: torch.Tensor) -> torch.Tensor:
            return super().color(points - torch.from_numpy(shift))

    field = Moved(shapes.head)
    field.bounds = field.bounds + torch.from_numpy(shift)
    then = PhotoView(photo.camera, photo.rgb, photo.alpha, head.vertices)
    again = bake(moved, field, [then], 512).astype(float)
    naive = bake(moved, field, [photo], 512).astype(float)
    assert np.abs(again - baked.texture).mean() < 0.5
    assert np.abs(naive - baked.texture).mean() > 2
