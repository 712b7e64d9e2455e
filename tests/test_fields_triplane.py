"""Tri-plane fields and their files."""

from __future__ import annotations

import json
import math
import os
import struct

import numpy as np
import pytest
import safetensors.torch
import torch

from engine import cameras
from engine.errors import Cancelled, OutputError, WeightsError
from engine.fields import io
from engine.fields.base import KINDS, Field, field_class
from engine.fields.io import field_to_bytes, load_field, save_field
from engine.fields.triplane import (
    OFFICIAL_AXES,
    Decoder,
    TriplaneField,
    TriplaneSettings,
    plane_projection,
    sample_planes,
)
from engine.render.volume import RaySettings

SETTINGS = TriplaneSettings(
    plane_axes=OFFICIAL_AXES,
    box=1.0,
    rays=RaySettings(near=2.25, far=3.3, coarse=32, fine=32),
    level=10.0,
    metres_per_unit=0.37,
)
RADII = torch.tensor([0.2, 0.3, 0.25])  # of the ellipsoid's x, y, z


def ellipsoid_field(size: int = 96) -> TriplaneField:
    """A field whose level is an ellipsoid, made by hand: channel 0 of the three planes holds
    (y / ry)^2, (x / rx)^2 and (z / rz)^2, less 4, so that the zeros outside the box mean far away;
    colours rise with y in the second channel."""
    u = (torch.arange(size) + 0.5) / size - 0.5  # field coordinates of pixel centres
    planes = torch.zeros(3, 4, size, size)
    planes[0, 0] = (u / RADII[1]).square()[:, None]  # plane (x, y): y runs along the height
    planes[1, 0] = (u / RADII[0]).square()[None, :]  # plane (x, z): x runs along the width
    planes[2, 0] = (u / RADII[2]).square()[None, :]  # plane (z, x): z runs along the width
    planes[:, 0] -= 4
    planes[0, 1] = 3 * u[:, None]
    # softplus of a large number is that number: hidden = 100 q + 40, q the mean of channel 0.
    weight0, bias0 = torch.zeros(8, 4), torch.full((8,), 40.0)
    bias0[0] += 400
    weight0[0, 0] = 100
    weight0[1, 1] = 10
    weight1, bias1 = torch.zeros(5, 8), torch.zeros(5)
    weight1[0, 0] = -60  # density 10 where 3 q = 1
    bias1[0] = 10 + 60 * (100 / 3 + 40)
    weight1[1, 1] = 1
    bias1[1] = -40.0
    return TriplaneField(planes, Decoder(weight0, bias0, weight1, bias1), SETTINGS)


def literal_sample(plane: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear, by the definition: pixel i's centre is at (2 i + 1) / size - 1, zeros outside."""
    _, height, width = plane.shape
    px, py = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    out = np.zeros(len(plane))
    for j in (math.floor(py), math.floor(py) + 1):
        for i in (math.floor(px), math.floor(px) + 1):
            if 0 <= i < width and 0 <= j < height:
                out += plane[:, j, i] * (1 - abs(px - i)) * (1 - abs(py - j))
    return out


def test_planes_are_sampled_at_the_official_coordinates():
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn(3, 2, 6, 8, generator=generator)
    points = (torch.rand(40, 3, generator=generator) - 0.5) * 1.8
    ours = sample_planes(planes, points, plane_projection(OFFICIAL_AXES, 1.6, planes))
    for n, (x, y, z) in enumerate((points / 0.8).tolist()):
        for plane, (a, b) in enumerate([(x, y), (x, z), (z, x)]):
            expected = literal_sample(planes[plane].numpy(), a, b)
            np.testing.assert_allclose(ours[plane, :, n], expected, atol=1e-5)


def test_coordinates_stay_exact_under_autocast():
    field = ellipsoid_field()
    points = torch.rand(50, 3) - 0.5
    with torch.autocast("cpu", torch.bfloat16):
        features = field.features(points)
    assert torch.equal(features, field.features(points))


def test_the_level_is_the_surface():
    field = ellipsoid_field()
    directions = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    surface = directions * RADII
    assert (field.value(surface) - 10).abs().max() < 10  # of a slope of 4000 a radius
    assert (field.value(0.9 * surface) > 10).all() and (field.value(1.1 * surface) < 10).all()
    density, features = field.query(surface)
    torch.testing.assert_close(density, field.value(surface))
    assert features.shape == (200, 4)
    color = field.color(surface)
    assert color.shape == (200, 3) and color.min() >= 0 and color.max() <= 1
    assert torch.equal(field.bounds, torch.tensor([[-0.5] * 3, [0.5] * 3]))


@pytest.mark.parametrize("yaw", [0.0, 0.7])
def test_render_shows_the_ellipsoid_where_it_is(yaw):
    # Looking past the ellipsoid, so that depth along the ray and along the axis differ.
    camera = cameras.orbit(yaw, 0.2, 2.7, 0.28, (0.3, 0, 0), width=48, height=40)
    view = ellipsoid_field().render(camera)
    assert view.image.shape == (40, 48, 3)
    assert view.depth.shape == view.alpha.shape == (40, 48)
    origin, directions = camera.rays()
    o, d = origin / RADII.numpy(), directions / RADII.numpy()
    a, b, c = (d * d).sum(-1), d @ o, o @ o - 1
    discriminant = b * b - a * c
    hit = discriminant > 0
    drawn = view.alpha.numpy() > 0.5
    assert (hit & drawn).sum() / (hit | drawn).sum() > 0.97
    t = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    depth = t * (directions @ camera.cam2world[:3, 2])
    well = discriminant > 0.4 * discriminant.max()
    # Along the ray instead of the axis it would be 0.01 to 0.02 more.
    assert np.abs(view.depth.numpy() - depth)[well].mean() < 0.015
    # Premultiplied on black; the first channel rises with y, so the top is brighter.
    assert view.image[~torch.from_numpy(hit) & (view.alpha < 0.01)].max() < 0.02
    top, bottom = view.image[12, 10, 0], view.image[28, 10, 0]
    assert top > bottom + 0.1
    assert not view.image.requires_grad


def test_render_can_be_cancelled():
    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ellipsoid_field().render(cameras.orbit(0, 0, 2.7, 0.3), check)


def test_parts_that_do_not_fit_are_refused():
    field = ellipsoid_field()
    with pytest.raises(ValueError, match="planes and decoder"):
        TriplaneField(field.planes[:, :3], field.decoder, SETTINGS)


@pytest.mark.parametrize("half", [False, True])
def test_a_file_holds_the_whole_field(tmp_path, half):
    field = ellipsoid_field()
    path = tmp_path / "Kopf 1 ä.safetensors"
    save_field(field, path, half=half)
    assert os.listdir(tmp_path) == [path.name]
    loaded = load_field(path)
    assert isinstance(loaded, TriplaneField) and loaded.settings == SETTINGS
    assert all(t.dtype == torch.float32 for t in loaded.tensors().values())
    points = torch.rand(500, 3) - 0.5
    tolerance = 20.0 if half else 0.0
    assert (loaded.value(points) - field.value(points)).abs().max() <= tolerance
    data = field_to_bytes(field, half=half)
    assert torch.equal(load_field(data).planes, loaded.planes)
    size = field.planes.numel() * (2 if half else 4)
    assert size < len(data) < size + 4096


def test_numbers_too_large_for_half_stay_float():
    field = ellipsoid_field()
    field.planes[0, 3, 0, 0] = 1e6
    assert torch.equal(load_field(field_to_bytes(field)).planes, field.planes)


def test_damage_anywhere_is_noticed():
    data = bytearray(field_to_bytes(ellipsoid_field(16)))
    generator = np.random.default_rng(0)
    for at in generator.integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(generator.integers(8))
        try:
            load_field(bytes(damaged))
        except WeightsError:
            continue
        header = struct.unpack("<Q", data[:8])[0] + 8
        text = bytes(data[:header])
        # Nothing but the header's padding may change unnoticed.
        assert at < header and text[at : at + 1] == b" ", at


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", b"\xff" * 64, b"\x80\x04\x95" + b"\0" * 50, b"\x02" + b"\0" * 7 + b"[]"],
)
def test_other_bytes_are_refused(data):
    with pytest.raises(WeightsError):
        load_field(data)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    data = field_to_bytes(ellipsoid_field(16))
    for length in (7, 8, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(WeightsError):
            load_field(data[:length])
    with pytest.raises(WeightsError, match="not a Triplane field"):
        load_field(safetensors.torch.save({"planes": torch.zeros(2)}))
    with pytest.raises(WeightsError, match="cannot be read"):
        load_field(tmp_path / "missing.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_field(tmp_path)


def rewritten(change) -> bytes:
    """A field's file with its metadata and tensors changed and a hash that matches."""
    field = ellipsoid_field(16)
    tensors, details = field.tensors(), field.metadata()
    change(tensors, details)
    text = json.dumps(details)
    metadata = {"format": io.FORMAT, "version": io.VERSION, "field": text}
    metadata["sha256"] = io._digest(text, tensors)
    return safetensors.torch.save(tensors, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, d: d.update(kind="os"), "knows no fields"),
        (lambda t, d: d.update(kind=["eg3d"]), "knows no fields"),
        (lambda t, d: d.pop("kind"), "damaged"),
        (lambda t, d: d.pop("box"), "fit together"),
        (lambda t, d: d.update(plane_axes=[[1, 2]]), "fit together"),
        (lambda t, d: d.update(rays={"near": 1, "far": 2, "speed": 3}), "fit together"),
        (lambda t, d: t.pop("decoder.bias1"), "fit together"),
        (lambda t, d: t.update(planes=torch.zeros(3, 5, 4, 4)), "fit together"),
        (lambda t, d: t.update(planes=torch.full((3, 4, 4, 4), torch.nan)), "not finite"),
    ],
)
def test_contents_that_make_no_field_are_refused(change, message):
    assert isinstance(load_field(rewritten(lambda t, d: None)), TriplaneField)
    with pytest.raises(WeightsError, match=message):
        load_field(rewritten(change))


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    field = ellipsoid_field(16)
    with pytest.raises(OutputError, match="cannot be written"):
        save_field(field, tmp_path / "no such folder" / "a.safetensors")
    target = tmp_path / "a.safetensors"
    save_field(field, target)
    before = target.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io.os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        save_field(ellipsoid_field(20), target)
    assert os.listdir(tmp_path) == ["a.safetensors"] and target.read_bytes() == before


def test_kinds_are_found_by_name():
    assert field_class("eg3d") is TriplaneField
    assert KINDS["eg3d"] == TriplaneField.__module__
    assert issubclass(TriplaneField, Field) and TriplaneField.kind == "eg3d"
