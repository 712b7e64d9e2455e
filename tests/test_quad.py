"""The mesh of quads: its template, subdivision, how it follows a head, and the jobs' option."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
import torch

from engine import jobs
from engine.cameras import orbit
from engine.checkpoints.default import load_default
from engine.errors import ParameterError, WeightsError
from engine.fields.head import HeadField
from engine.fields.io import field_to_bytes, load_field
from engine.headspace.quad import DIMS, QuadSpace, load_quads
from engine.inversion.shape import RESIDUAL, Shape, bake
from engine.jobs.mesh import DENSITIES
from engine.surface import bake as baking
from engine.surface import eyeball, quad, quad_bake
from engine.surface.subdivide import subdivide, subdivide_corners

ARKIT = """browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight
eyeLookInLeft eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight
eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose
mouthDimpleLeft mouthDimpleRight mouthFrownLeft mouthFrownRight mouthFunnel mouthLeft
mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker mouthRight
mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight
mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight
tongueOut""".split()


def made_field(identity: dict[int, float], coefficients: bool = True) -> HeadField:
    """A bald head of the head space with some identity coefficients; its planes are one colour."""
    model = load_default()
    space = model.space
    shape = Shape(
        identity=torch.zeros(len(space.identity)),
        expression=torch.zeros(len(space.expression)),
        hair=torch.nn.functional.one_hot(torch.tensor(space.styles - 1), space.styles).float(),
        offset=torch.zeros(()),
        residual=torch.zeros(1, RESIDUAL, RESIDUAL, RESIDUAL),
        pose=torch.zeros(6),
    )
    for k, value in identity.items():
        shape.identity[k] = value
    distance, warp = bake(space, shape, torch.zeros(1, 8, 8, 8), 112)
    planes = torch.zeros(4, model.generator.config.plane_channels, 8, 8)
    info = {"coefficients": shape.coefficients()} if coefficients else {}
    return HeadField(distance, warp, planes, model.generator.decoder, space.bounds, info)


@pytest.fixture(scope="module")
def field() -> HeadField:
    return made_field({0: 1.0, 3: -0.8})


def borders(quads: np.ndarray) -> tuple[np.ndarray, int]:
    """Directed edges without a twin [n, 2], and how often the busiest one is used."""
    e = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    seen, counts = np.unique(e, axis=0, return_counts=True)
    keys = {tuple(edge) for edge in seen.tolist()}
    return np.array([x for x in keys if (x[1], x[0]) not in keys]), int(counts.max())


def area(v: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.cross(v[q[:, 2]] - v[q[:, 0]], v[q[:, 3]] - v[q[:, 1]]), axis=1) / 2


def test_the_template_is_all_quads_and_open_only_at_the_neck():
    space = load_quads()
    assert 2000 <= len(space.quads) <= 4000
    assert all(len(set(q)) == 4 for q in space.quads.tolist())
    rim, most = borders(space.quads)
    assert most == 1  # oriented, no edge of three faces
    assert len(rim) == len(np.unique(rim)) > 20
    assert space.mean[np.unique(rim), 1].max() < -0.1
    edges = len(
        np.unique(
            np.sort(
                np.concatenate(
                    [np.stack([space.quads, np.roll(space.quads, -1, 1)], -1).reshape(-1, 2)]
                ),
                1,
            ),
            axis=0,
        )
    )
    assert len(space.mean) - edges + len(space.quads) == 1  # a disc: no handles, in one piece
    assert set(np.unique(space.quads)) == set(range(len(space.mean)))
    assert area(space.mean, space.quads).min() > 1e-8


def test_poles_are_few_and_rings_lie_round_eyes_and_mouth():
    space = load_quads()
    edges = np.unique(
        np.sort(np.stack([space.quads, np.roll(space.quads, -1, 1)], -1).reshape(-1, 2), 1), axis=0
    )
    valence = np.bincount(edges.ravel())
    rim = np.unique(borders(space.quads)[0])
    inner = np.setdiff1d(np.arange(len(space.mean)), rim)
    assert set(valence[inner]) <= {3, 4, 5} and (valence[inner] != 4).sum() < 50
    for ring in space.lids:
        closed = np.stack([ring, np.roll(ring, -1)], 1)
        found = {tuple(e) for e in edges.tolist()}
        assert all(tuple(sorted(e)) in found for e in closed.tolist())
        assert (valence[ring] == 4).all()


def test_the_template_is_the_head_spaces():
    space, quads = load_default().space, load_quads()
    assert hashlib.sha256(space.mean.numpy().tobytes()).hexdigest() == quads.space
    assert len(quads.identity) == len(space.identity)
    assert len(quads.expression) == len(space.expression)
    near = torch.cdist(torch.from_numpy(quads.mean), space.mean).min(1)
    skin = quads.follows > 0.95
    for basis, own in ((space.identity, quads.identity), (space.expression, quads.expression)):
        for k in (0, 2, 7):
            moved = basis[k][near.indices].numpy() - own[k]
            size = np.linalg.norm(own[k][skin], axis=1).mean()
            assert np.linalg.norm(moved[skin], axis=1).mean() < max(0.25 * size, 0.0002), k


def test_uvs_do_not_overlap_and_are_symmetric():
    from engine.surface.rasterize import rasterize_uvs

    uvs = load_quads().uvs
    assert uvs.min() >= 0 and uvs.max() <= 1
    _, twice = rasterize_uvs(quad.split_corners(uvs), 1024)
    assert twice < 30
    half = len(uvs) // 2
    head = load_quads().part[:half] == 0
    assert np.abs(uvs[:half][head][..., 0] + uvs[half:][head][:, ::-1, 0] - 1).max() < 0.02


def test_shape_keys_are_arkits_and_move_their_part():
    space = load_quads()
    assert len(set(space.names)) == len(space.names) == 29 and set(space.names) <= set(ARKIT)
    v = space.mean
    for name, move in zip(space.names, space.shapes, strict=True):
        length = np.linalg.norm(move, axis=1)
        assert 0.001 < length.max() < 0.05, name
        weight = length / length.sum()
        x, y = float((v[:, 0] * weight).sum()), float((v[:, 1] * weight).sum())
        side = {"t": 0, "Left": 1, "Right": -1}.get((re.findall("Left|Right", name) or ["t"])[0])
        assert x * side >= 0 and abs(x) < (0.008 if side == 0 else 1), name
        low, high = {"brow": (0.02, 0.07), "eye": (0.0, 0.045), "nose": (-0.03, 0.02)}.get(
            re.match("[a-z]+", name)[0], (-0.11, -0.02)
        )
        assert low < y < high, (name, y)
    named = dict(zip(space.names, space.shapes, strict=True))
    mouth = np.abs(v - [0, -0.046, 0.1]).max(1) < 0.03
    assert named["jawOpen"][mouth, 1].min() < -0.015
    assert named["mouthSmileLeft"][mouth, 1].max() > 0.003
    assert named["mouthFrownLeft"][mouth, 1].min() < -0.002


def test_a_damaged_template_is_refused():
    space = load_quads()
    tensors = {name: getattr(space, name) for name in DIMS}
    facts = {"shapes": space.names, "parts": space.parts, "space": space.space}
    QuadSpace(tensors, facts)
    for name, value in (("mean", tensors["mean"][:, 0]), ("shapes", tensors["shapes"][:3])):
        with pytest.raises(WeightsError):
            QuadSpace(tensors | {name: value}, facts)
    with pytest.raises(WeightsError):
        QuadSpace(tensors, {})


def test_subdivision_is_catmull_and_clarks():
    """Of a cube: new corners at 5/9, edges at 3/4, faces where they were; a flat border stays."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    cube = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4],
                     [1, 5, 7, 3]])  # fmt: skip
    step = subdivide(cube, 8)
    v = step.matrix @ corners
    assert v.shape == (8 + 12 + 6, 3) and step.quads.shape == (24, 4)
    assert np.allclose(v[:8], corners * 5 / 9)
    assert np.allclose(np.sort(np.abs(v[8:20]), 1), [0, 0.75, 0.75])
    assert np.allclose(np.sort(np.abs(v[20:]), 1), [0, 0, 1])
    assert borders(step.quads)[1] == 1 and not len(borders(step.quads)[0])
    flat = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    step = subdivide(np.array([[0, 1, 2, 3]]), 4)
    assert np.allclose(np.asarray(step.matrix.sum(1)), 1)
    assert np.allclose((step.matrix @ flat)[4:8].mean(0), [0.5, 0.5, 0])
    uv = subdivide_corners(np.array([[[0, 0], [1, 0], [1, 1], [0, 1.0]]]))
    assert np.allclose(uv[0], [[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]])


@pytest.mark.parametrize("density", DENSITIES[:2])
def test_quads_lie_on_the_heads_skin(field, density):
    head = quad.shape(field, density)
    assert len(head.quads) == 3288 * 4 ** DENSITIES.index(density)
    assert quad.skin_distance(head, field) < 0.0008
    assert head.covered.mean() < 0.05  # bald
    bent = np.linalg.norm(head.vertices[: len(load_quads().mean)] - load_quads().mean, axis=1)
    assert bent.mean() > 0.002  # another head than the mean
    rim, most = borders(head.quads)
    assert most == 1 and len(rim) == len(np.unique(rim))
    for eye in head.eyes:
        away = np.linalg.norm(head.vertices - eye.centre, axis=1)
        lids = np.isin(np.arange(len(away)), np.unique(head.quads[head.part <= 2]))
        front = lids & (head.vertices[:, 2] > eye.centre[2])
        assert away[front].min() > eye.radius


def test_lids_meet_when_eyes_blink(field):
    head, space = quad.shape(field, "LOW"), load_quads()
    for ring, side in zip(space.lids, ("Left", "Right"), strict=True):
        move = head.shapes[head.names.index(f"eyeBlink{side}")]
        shut = head.vertices + move
        half = len(ring) // 2
        upper, lower = ring[1:half], ring[:half:-1]
        before = (head.vertices[upper] - head.vertices[lower])[2:-2, 1]
        after = (shut[upper] - shut[lower])[2:-2, 1]
        assert before.min() > 0.004 and np.abs(after).mean() < 0.25 * before.mean()


def test_the_eyeball_is_a_closed_sphere_of_quads():
    for times in (1, 2):
        v, q, uvs = eyeball.ball(times)
        assert np.allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
        rim, most = borders(q)
        assert most == 1 and not len(rim)
        normal = np.cross(v[q[:, 2]] - v[q[:, 0]], v[q[:, 3]] - v[q[:, 1]])
        assert ((normal * v[q].mean(1)).sum(1) > 0).all()
        assert uvs.min() > 0 and uvs.max() < 1
    image = eyeball.picture(np.array([0.2, 0.3, 0.6]), 0.8, 0.0155)
    middle, ring = image[256, 256], image[256, 256 + 40]
    assert middle.max() < 40 and ring[2] > ring[0] and image[256, 340].min() > 150


def test_textured_from_a_photo(field):
    """A photo of one colour: skin that it sees takes it, the back of the head does not."""
    head = quad.shape(field, "LOW")
    camera = orbit(0.0, 0.0, 1.0, 0.35, width=128, height=128)
    seen = field.render(camera)
    rgb = np.broadcast_to(np.array([200, 60, 40], np.uint8), (128, 128, 3))
    view = baking.PhotoView(camera, np.ascontiguousarray(rgb), seen.alpha.numpy())
    baked = quad_bake.bake(head, field, [view], 256)
    assert baked.texture.shape == (256, 256, 3) and baked.eye_texture.shape[2] == 3
    cheek = np.abs(head.vertices - [0.03, -0.02, 0.085]).sum(1).argmin()
    face, corner = np.argwhere(head.quads == cheek)[0]
    u, v = head.uvs[face, corner]
    assert np.abs(baked.texture[int((1 - v) * 256), int(u * 256)] - [200.0, 60, 40]).max() < 12


def test_the_coefficients_travel_with_the_field(field):
    again = load_field(field_to_bytes(field))
    assert isinstance(again, HeadField)
    assert np.allclose(quad.coefficients(again)[0], quad.coefficients(field)[0])
    moved = quad.shape(again, "LOW").vertices - quad.shape(field, "LOW").vertices
    assert np.abs(moved).max() < 4e-4


def test_fields_without_coefficients_say_so():
    old = made_field({}, coefficients=False)
    with pytest.raises(WeightsError, match="quads"):
        quad.shape(old)
    wrong = made_field({})
    wrong.info["coefficients"]["identity"] = [0.0] * 3
    with pytest.raises(WeightsError, match="quads"):
        quad.coefficients(wrong)
    with pytest.raises(WeightsError):
        quad.coefficients(object())


def test_every_job_with_a_mesh_can_make_quads():
    for name in ("reconstruct", "sample", "extract"):
        job = jobs.load(name)
        given = job.checked({})
        assert given["topology"] == "SURFACE" and given["density"] == "MEDIUM"
        with pytest.raises(ParameterError, match="topology"):
            job.checked({"topology": "TRIANGLES"})


def test_extracted_from_a_saved_field(field, tmp_path):
    from engine.jobs.base import Context
    from engine.jobs.outputs import write_outputs

    path = tmp_path / "head.safetensors"
    path.write_bytes(field_to_bytes(field))
    job = jobs.load("extract")
    given = {"field": str(path), "topology": "QUAD", "density": "LOW", "texture_size": 256}
    made = job.run(job.checked(given), Context())
    a = made.arrays
    assert "vertices" not in a and a["quad_faces"].shape == (3288, 4)
    assert a["quad_shapes"].shape == (29, *a["quad_vertices"].shape)
    assert made.meta["quad"]["shapes"] == list(load_quads().names)
    assert made.meta["quad"]["skin_distance_mm"] < 1.0
    world = np.array(made.meta["field_to_world"]).reshape(4, 4)
    low = float((a["quad_vertices"] @ world[:3, :3].T + world[:3, 3])[:, 2].min())
    assert 0 <= low < 0.03  # the surface, which reaches lower, stands on the ground
    files = write_outputs(made, tmp_path / "out")
    text = files["quads.obj"].read_text()
    assert text.count("\no ") == 3 and "usemtl eye" in text
    assert all(len(x.split()) == 5 for x in text.splitlines() if x.startswith("f "))
    old = tmp_path / "old.safetensors"
    old.write_bytes(field_to_bytes(made_field({}, coefficients=False)))
    with pytest.raises(WeightsError, match="make the head once more|quads"):
        job.run(job.checked(given | {"field": str(old)}), Context())
