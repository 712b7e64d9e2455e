"""Editing heads: what was fitted stays, what is asked for changes, for all kinds of heads."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from sampling_fixtures import tiny_sampler

from engine import jobs
from engine.checkpoints.directions import BUILT_IN_PATH, list_directions
from engine.editing import hair as hairs
from engine.editing import open as opening
from engine.editing.eg3d import TriplaneEditor
from engine.editing.head import HeadEditor
from engine.editing.open import close_heads, open_head
from engine.editing.origin import PHOTO, from_photo, remember
from engine.editing.photo import Edited, edited_photo
from engine.editing.shape import on_grid
from engine.errors import ParameterError, WeightsError
from engine.fields.base import Origin
from engine.fields.head import HeadField
from engine.fields.io import field_to_bytes, load_field, save_field
from engine.headspace import lattice
from engine.inversion.appearance import surface_places
from engine.inversion.shape import RESIDUAL, Shape, bake
from engine.jobs import mesh_stages
from engine.jobs.base import Context
from engine.sampling import ganspace
from engine.sampling.builtin import BuiltInSampler
from engine.sampling.edits import edited as edited_code
from engine.sampling.open import PLAIN
from engine.sampling.recipe import Recipe, code
from engine.surface.mesh import Mesh
from engine.systems.head.directions import load_directions
from engine.training.edit_card import card
from engine.training.edit_table import apart

GRID = 64


@pytest.fixture(scope="module")
def sampler() -> BuiltInSampler:
    return BuiltInSampler()


@pytest.fixture(scope="module")
def shape(sampler) -> Shape:
    """As fitted to a photo: with a residual of the hair that no code holds."""
    parts = sampler.prior.unpack(sampler.map(sampler.z(3)))
    rng = torch.Generator().manual_seed(0)
    residual = 0.006 * lattice.blur(torch.randn(1, *[RESIDUAL] * 3, generator=rng), 2)
    return Shape(
        parts.identity, parts.expression, parts.hair, torch.tensor(0.001), residual, torch.zeros(6)
    )


@pytest.fixture(scope="module")
def ws(sampler) -> torch.Tensor:
    return sampler.prior.unpack(sampler.map(sampler.z(3))).ws


def made(sampler: BuiltInSampler, shape: Shape, ws: torch.Tensor) -> HeadField:
    """A small field as an inversion leaves it: planes that are not the generator's own."""
    space, generator = sampler.model.space, sampler.model.generator
    distance, warp = bake(space, shape, torch.zeros(1, 4, 4, 4), GRID)
    with torch.no_grad():
        planes = generator.planes(ws[None], shape.hair[None])[0]
    rng = torch.Generator().manual_seed(1)
    planes = planes + 0.05 * torch.randn(planes.shape, generator=rng)
    info = {"model": sampler.model.config["name"], "coefficients": shape.coefficients()}
    field = HeadField(distance, warp, planes, generator.decoder, space.bounds, info)
    remember(field, shape, ws, sampler.model)
    return field


@pytest.fixture(scope="module")
def field(sampler, shape, ws) -> HeadField:
    return made(sampler, shape, ws)


@pytest.fixture(scope="module")
def editor(sampler, field) -> HeadEditor:
    return HeadEditor(field, sampler, load_directions())


@pytest.fixture
def file(field, tmp_path):
    path = tmp_path / "head.safetensors"
    save_field(field, path)
    yield path
    close_heads()


# The code of a head that came from a photo


def test_a_photos_head_has_a_code_that_says_so(sampler, field, shape, ws):
    assert from_photo(field) and field.origin.recipe["heads"] == [PHOTO]
    assert field.origin.recipe["sha256"] == sampler.sha256
    parts = sampler.prior.unpack(field.origin.code)
    assert torch.equal(parts.identity, shape.identity) and torch.equal(parts.ws, ws)
    assert torch.allclose(parts.hair, shape.hair, atol=1e-6)
    again = load_field(field_to_bytes(field))
    assert torch.equal(again.origin.code, field.origin.code)
    assert again.origin.recipe == field.origin.recipe


def test_it_blends_with_a_seed(sampler, field, tmp_path):
    path = tmp_path / "photo.safetensors"
    save_field(field, path)
    made = code(sampler, Recipe((str(path), 5), at=0.5))
    assert torch.allclose(made, (field.origin.code + sampler.map(sampler.z(5))) / 2, atol=1e-5)


# What stays


def test_no_edit_is_the_same_head_to_the_last_bit(editor, field):
    for amounts in ({}, {"age": 0.0}):
        same = editor.edited(amounts).field
        assert torch.equal(same.distance, field.distance) and same.planes is field.planes
        assert torch.equal(same.warp, field.warp) and same.info == field.info


def test_colours_leave_the_shape(editor, field):
    edited = editor.edited({"skin tone": 1.0}, quick=True)
    assert edited.back.abs().max() < 0.001
    assert not torch.equal(edited.field.planes, field.planes)


def test_a_sampled_heads_fine_skin_follows_its_colours(sampler):
    """A woman edited to a man may get a beard; a nose leaves the face's picture alone."""
    made = sampler.map(sampler.z(9))
    head = sampler._field(made, GRID)
    head.origin = Origin(made, {"model": sampler.name, "sha256": sampler.sha256, "heads": [9]})
    editor = HeadEditor(head, sampler, load_directions())
    assert editor.edited({"nose width": 1.0}, quick=True).field.skin is head.skin
    skin = editor.edited({"gender": -1.5}, quick=True).field.skin
    least = float((skin.shade - head.skin.shade).abs().amax(0).mean())
    assert torch.isfinite(skin.shade).all() and least > 0.02


def test_shapes_alone_leave_the_colours(editor, field):
    edited = editor.edited({"nose width": 1.0})
    assert edited.field.planes is field.planes and edited.back is not None


def test_the_photos_own_detail_stays(editor, field, sampler, ws):
    """What tuning added to the planes is in the edited ones unchanged."""
    own = field.planes - sampler.model.generator.planes(ws[None], editor.parts.hair[None])[0]
    after = editor.edited({"age": 1.0})
    parts = sampler.prior.unpack(after.field.origin.code)
    generated = sampler.model.generator.planes(parts.ws[None], parts.hair[None])[0]
    assert torch.allclose(after.field.planes - generated, own, atol=1e-4)


def test_the_field_given_is_never_changed(sampler, field, editor):
    before = {name: tensor.clone() for name, tensor in field.tensors().items()}
    told = json.dumps([field.metadata(), field.origin.recipe])
    editor.edited({"hair length": -1.0, "jaw": 1.0, "age": 1.0}, quick=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in field.tensors().items())
    assert json.dumps([field.metadata(), field.origin.recipe]) == told


# What changes


@pytest.mark.parametrize("name", ["nose size", "smile"])
def test_shape_is_what_the_head_space_makes_of_the_new_coefficients(editor, field, shape, name):
    """The difference, applied to a fitted head, agrees with that head made anew: same residual."""
    amount = 1.0
    edit = editor.edit({name: amount})
    got = editor.edited({name: amount}).field
    anew = Shape(
        edit.after.identity, edit.after.expression, shape.hair, shape.offset, shape.residual,
        shape.pose,
    )  # fmt: skip
    space = editor.model.space
    wanted = bake(space, anew, torch.zeros(1, 4, 4, 4), GRID)[0]
    unedited = field.distance
    at = lattice.nodes(GRID, field.bounds)
    near = wanted.reshape(-1).abs() < 0.004
    value = lattice.sample(got.distance[None], at[near], field.bounds)[:, 0]
    error = (value - wanted.reshape(-1)[near]).abs()
    change = (unedited.reshape(-1)[near] - wanted.reshape(-1)[near]).abs()
    moved = change > 0.0008
    assert moved.sum() > 50
    assert error[moved].mean() < 0.35 * change[moved].mean()


def test_new_distance_is_the_old_one_where_the_point_was(editor, field):
    edited = editor.edited({"jaw": 1.5, "face width": 1.0})
    places = lattice.nodes(64, field.bounds)
    near = lattice.sample(edited.field.distance[None], places, field.bounds)[:, 0].abs() < 0.003
    points = places[near]
    then = points + lattice.sample(edited.back, points, field.bounds)
    old = lattice.sample(field.distance[None], then, field.bounds)[:, 0]
    new = lattice.sample(edited.field.distance[None], points, field.bounds)[:, 0]
    assert (new - old).abs().mean() < 4e-4
    # The same canonical place, so the same colour.
    q = points + lattice.sample(edited.field.warp, points, field.bounds)
    r = then + lattice.sample(field.warp, then, field.bounds)
    assert (q - r).norm(dim=1).mean() < 4e-4


def test_planes_of_another_kind_are_tinted(sampler, field, editor):
    """A field whose planes are not the generator's (of the preset `instant`) takes on the change of
    colour, not that of the planes."""
    rng = torch.Generator().manual_seed(2)
    turn = torch.linalg.qr(torch.randn(20, 20, generator=rng))[0]
    decoder = copy.deepcopy(field.decoder)
    decoder.net[0].weight.data = decoder.net[0].weight @ turn.T
    planes = torch.einsum("dc,pchw->pdhw", turn, field.planes)
    info = {**field.info, "model": "instant"}
    other = HeadField(field.distance, field.warp, planes, decoder, field.bounds, info)
    other.origin = field.origin
    amounts = {"skin tone": -1.0}
    got = HeadEditor(other, sampler, load_directions()).edited(amounts, quick=True).field
    wanted = editor.edited(amounts, quick=True).field
    p = surface_places(field, 3000, 7)
    assert torch.allclose(other.color(p), field.color(p), atol=1e-4)
    moved = (wanted.color(p) - field.color(p)).abs().mean()
    assert (got.color(p) - wanted.color(p)).abs().mean() < 0.35 * moved


def test_hair_grows_and_goes_and_the_face_stays(editor, field):
    space = editor.model.space
    volume = {}
    for amount in (-1.5, 0.0, 1.5):
        got = editor.edited({"hair length": amount}, quick=True).field
        volume[amount] = float((got.distance < 0).float().mean())
        p = space.mean[(space.mean[:, 2] > 0.085) & (space.mean[:, 1].abs() < 0.03)]
        p = p - lattice.sample(field.warp, p, field.bounds)
        assert (got.value(p) - field.value(p)).abs().median() < 5e-4
    assert volume[-1.5] < volume[0.0] < volume[1.5]


def test_the_old_hairs_residual_is_kept_by_a_change_of_hair(sampler, shape):
    """old + (after - before): a mass that does not change leaves the distance, fitted or not."""
    space = sampler.model.space
    change = hairs.HairChange(space, shape.hair, shape.hair, smooth=False)
    q = space.mean + 0.004 * torch.randn(space.mean.shape, generator=torch.manual_seed(0))
    old = torch.randn(len(q), generator=torch.manual_seed(1)) * 0.01
    assert torch.allclose(change.distance(old, q), old, atol=1e-7)


def test_quads_get_the_new_coefficients(editor):
    info = editor.edited({"smile": 1.0}).field.info["coefficients"]
    before = editor.base.info["coefficients"]
    assert info["identity"] == before["identity"] and info["expression"] != before["expression"]


def test_a_preview_is_what_the_edit_becomes(editor, sampler):
    camera = sampler.camera(20, 0, 64)
    amounts = {"age": 1.5, "skin tone": -0.5, "jaw": 1.0}
    pictures = [editor.edited(amounts, quick).field.render(camera) for quick in (False, True)]
    plain = editor.base.render(camera)
    apart = (pictures[0].image - pictures[1].image).abs().mean()
    assert apart < 0.25 * (plain.image - pictures[0].image).abs().mean()


def test_edits_that_cannot_be_are_refused(editor):
    for amounts in ({"glasses": 1.0}, {"age": 9.0}):
        with pytest.raises(ParameterError):
            editor.edited(amounts)


def test_a_grid_is_exact_near_the_surface():
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    got = on_grid(lambda p: p.norm(dim=1) - 0.6, 32, bounds)
    wanted = lattice.nodes(32, bounds).norm(dim=1).reshape(32, 32, 32) - 0.6
    near = wanted.abs() < 0.1
    assert torch.allclose(got[near], wanted[near], atol=1e-6)
    assert ((got < 0) == (wanted < 0)).all()


# The photo of an edited head


def test_the_photo_follows_the_edit(editor, field, sampler):
    """A picture of the unedited head is read where the edited mesh's points were, in the new tone,
    but for what it never showed."""
    camera = sampler.camera(0, 0, 96)
    seen = field.render(camera)
    rgb = (seen.image.clamp(0, 1) * 255 + 0.5).byte().numpy()
    rgb[-20:] = 255, 0, 255  # a scarf that the field knows nothing of
    edited = editor.edited({"jaw": 2.0, "skin tone": -1.0})
    v = np.array([[0.03, -0.05, 0.08], [-0.03, -0.05, 0.08], [0.0, 0.0, 0.1]], np.float32)
    mesh = Mesh(v, np.array([[0, 1, 2]]), np.zeros((1, 3, 2), np.float32), None)
    view = edited_photo(field, edited, mesh, camera, rgb)
    points = torch.from_numpy(v)
    then = points + lattice.sample(edited.back, points, field.bounds)
    assert np.allclose(view.places, then.numpy(), atol=1e-6)
    assert np.abs(view.places - v).max() > 0.001
    face = (slice(45, 60), slice(40, 56))
    assert view.rgb[face].mean() < rgb[face].mean() - 20
    assert view.alpha[-15:].max() < 0.05
    still = edited_photo(field, Edited(field), mesh, camera, rgb)
    assert np.array_equal(still.rgb, rgb) and np.array_equal(still.places, v)


# Jobs


def run(name: str, **params):
    job = jobs.load(name)
    return job.run(job.checked(params), Context())


def test_previews_come_from_a_head_that_is_kept_open(file, field):
    first = run("edit_preview", field=str(file), edits="smile=0.5", size=48)
    image = first.arrays["image"]
    assert image.shape == (48, 48, 4) and image.dtype == np.uint8
    assert 0.1 < (image[..., 3] > 128).mean() < 0.9
    opened = open_head(file, "", "", PLAIN)[0]
    same = run("edit_preview", field=str(file), edits="smile=0.5", size=48)
    assert np.array_equal(same.arrays["image"], image)
    assert open_head(file, "", "", PLAIN)[0] is opened
    plain = run("edit_preview", field=str(file), size=48).arrays["image"]
    assert not np.array_equal(plain, image)
    jobs.release_memory()
    assert open_head(file, "", "", PLAIN)[0] is not opened


def test_a_preview_takes_a_camera_of_any_shape(file, sampler):
    camera = sampler.camera(30, 10, 200).to_json() | {"width": 200, "height": 100}
    image = run("edit_preview", field=str(file), camera=json.dumps(camera), size=40)
    assert image.arrays["image"].shape == (20, 40, 4)


def test_a_changed_file_is_opened_anew(file, field):
    opened = open_head(file, "", "", PLAIN)[0]
    other = HeadField(
        field.distance + 0.002, field.warp, field.planes, field.decoder, field.bounds, field.info
    )
    other.origin = field.origin
    save_field(other, file)
    assert open_head(file, "", "", PLAIN)[0] is not opened


def test_heads_without_a_code_or_of_another_model_are_refused(tmp_path, field):
    path = tmp_path / "old.safetensors"
    old = HeadField(field.distance, field.warp, field.planes, field.decoder, field.bounds)
    save_field(old, path)
    with pytest.raises(WeightsError, match="no latent code"):
        run("edit_preview", field=str(path))
    recipe = {**field.origin.recipe, "sha256": "0" * 64}
    old.origin = Origin(field.origin.code, recipe)
    save_field(old, path)
    with pytest.raises(WeightsError, match="made with the model"):
        run("edit", field=str(path), edits="age=1")
    with pytest.raises(WeightsError, match="cannot be read"):
        run("edit_preview", field=str(tmp_path / "none.safetensors"))


@pytest.mark.slow
def test_an_edited_head_is_a_head(file):
    """Mesh, texture, quads and field; and it can be edited again."""
    small = {"faces": 4000, "texture_size": 256, "topology": "BOTH", "density": "LOW"}
    result = run("edit", field=str(file), edits="age=1, smile=0.5", **small)
    assert result.meta["edits"] == {"age": 1.0, "smile": 0.5}
    assert result.meta["figures"]["mesh"]["clean"]
    assert result.arrays["quad_vertices"].shape[1] == 3 and result.arrays["texture"].any()
    again = load_field(result.arrays["field"].tobytes())
    assert again.origin.recipe["edited"] == {"age": 1.0, "smile": 0.5}
    file.write_bytes(result.arrays["field"].tobytes())
    assert run("edit_preview", field=str(file), edits="beard=1", size=32).arrays["image"].any()


# Directions by name, without torch


def test_sliders_are_listed_as_the_file_has_them():
    known = load_directions()
    listed = list_directions("built-in")
    assert [d.name for d in listed] == list(known.names)
    assert {d.name: (d.low, d.high) for d in listed} == known.ranges
    assert all(d.meaning == known.meaning[d.name] for d in listed)
    assert BUILT_IN_PATH.is_file() and list_directions("no such model") == []


# Added models


@pytest.fixture
def added(tmp_path):
    found = tiny_sampler()
    found.directions = tmp_path / "directions" / "tiny.safetensors"
    return found


def test_components_are_the_main_axes_of_w(added):
    tensor, shares = ganspace.components(added, 4, samples=512)
    assert tensor.shape == (4, 16) and (shares[:-1] >= shares[1:]).all() and shares.sum() <= 1.0001
    gram = tensor @ tensor.T
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-4)
    z = torch.randn(2000, 16, generator=torch.manual_seed(5))
    c = torch.from_numpy(added.camera(0, 0).to_eg3d())[None, : added.config.c_dim]
    w = added.generator.mapping(z, c.expand(len(z), -1))[:, 0]
    along = (w - w.mean(0)) @ (tensor[0] / tensor[0].norm())
    assert abs(float(along.std()) / float(tensor[0].norm()) - 1) < 0.15
    again, _ = ganspace.components(added, 4, samples=512)
    assert torch.equal(again, tensor)


def test_found_directions_are_kept_named_and_used(added):
    known = ganspace.find_directions(added, added.directions, 3, samples=256)
    assert known.names == ("component 1", "component 2", "component 3")
    ganspace.rename_directions(added.directions, {2: "Smile_wide"})
    one = added.map(added.z(1))
    moved = edited_code(added, one, "smile wide=2")
    assert torch.allclose(moved - one, 2 * known["component 2"], atol=1e-5)
    with pytest.raises(ParameterError, match="no direction"):
        edited_code(added, one, "component 2=1")
    for names in ({9: "x"}, {1: "a=b"}, {1: "smile wide"}):
        with pytest.raises(ParameterError):
            ganspace.rename_directions(added.directions, names)
    added.sha256 = "bb"
    with pytest.raises(WeightsError, match="another file"):
        ganspace.load_found(added.directions, added)
    added.directions.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read"):
        ganspace.load_found(added.directions, added)


def test_a_tuned_eg3d_head_keeps_its_tuning(added):
    known = ganspace.find_directions(added, added.directions, 2, samples=256)
    rest = added.map(added.z(4))
    field = added.field(rest)
    tuned = type(field)(field.planes + 0.1, field.decoder, field.settings)
    tuned.origin = Origin(rest, {"model": "tiny", "sha256": "aa"})
    editor = TriplaneEditor(tuned, added, known)
    assert editor.edited({}).field.planes is tuned.planes
    got = editor.edited({"component 1": 1.5}).field
    wanted = added.field(known.apply(rest, {"component 1": 1.5})).planes + 0.1
    assert torch.allclose(got.planes, wanted, atol=1e-5)
    assert torch.allclose(got.origin.code, known.apply(rest, {"component 1": 1.5}))
    quick = editor.edited({"component 1": 1.0}, quick=True).field
    exact = editor.edited({"component 1": 1.0}).field
    assert torch.allclose(quick.planes, exact.planes, atol=5e-3)


def test_the_jobs_edit_heads_of_added_models(added, tmp_path, monkeypatch):
    ganspace.find_directions(added, added.directions, 2, samples=256)
    monkeypatch.setattr(opening, "open_sampler", lambda *_: added)
    monkeypatch.setattr(mesh_stages, "TRIPLANE_GRID", 48)
    rest = added.map(added.z(4))
    field = added.field(rest)
    field.origin = Origin(rest, {"model": "tiny", "sha256": "aa"})
    path = tmp_path / "head.safetensors"
    save_field(field, path)
    pictures = [
        run("edit_preview", field=str(path), edits=text, size=16).arrays["image"]
        for text in ("", "component 1=2")
    ]
    assert pictures[0].shape == (16, 16, 4) and not np.array_equal(*pictures)
    small = {"faces": 2000, "texture_size": 256}
    result = run("edit", field=str(path), edits="component 1=2", **small)
    assert len(result.arrays["faces"]) > 500 and result.arrays["texture"].any()
    moved = load_field(result.arrays["field"].tobytes()).origin.code
    assert not torch.equal(moved, rest)
    with pytest.raises(ParameterError, match="no direction"):
        run("edit", field=str(path), edits="age=1", **small)
    close_heads()


# The page of figures


def test_the_page_says_what_was_measured():
    """Means over heads, by the amounts measured; a direction's own change apart from the others';
    likeness as a share of the distance between two heads."""

    def head(size: float) -> dict:
        rows = [
            {
                "name": name,
                "amount": amount,
                "change": {"age": amount * size, "jaw": 0.1 * size, "smile": 0.0, "brows": 0.0},
                "away": 0.5 * size,
            }
            for name in ("age", "jaw")
            for amount in (-1.0, 1.0)
        ]
        return {"rows": rows, "features": [[size, 0.0]]}

    heads = [head(1.0), head(3.0)]
    assert apart(heads) == 2.0
    page = card({"photos": heads, "seeds": heads}, {"photos": 2.0, "seeds": 2.0}, ("age", "jaw"))
    assert "| age | -1, 1 | -2.00, +2.00 | jaw +0.20 | 0.50, 0.50 |" in page
    assert "| jaw | **0.20** |" not in page and "| jaw | 2.00 | **0.20** |" in page
    assert "2 held-out people" in page
