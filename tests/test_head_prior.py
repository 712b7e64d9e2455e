"""The built-in head model's prior and its sampler: heads of seeds."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage

from engine.errors import WeightsError
from engine.fields.head import HeadField
from engine.fields.io import field_to_bytes, load_field
from engine.fields.skin import COLUMNS, ROWS, Skin, unwrap
from engine.sampling import harmony
from engine.sampling.builtin import SMALL, BuiltInSampler
from engine.surface import cleanup, isosurface
from engine.surface.topology import face_components
from engine.systems.head import faces, strands
from engine.systems.head.prior import PATH, load_prior

SEEDS = range(12)


@pytest.fixture(scope="module")
def sampler() -> BuiltInSampler:
    return BuiltInSampler()


@pytest.fixture(scope="module")
def field(sampler) -> HeadField:
    return sampler.field(sampler.map(sampler.z(3)))


def test_random_vectors_are_numpys_and_normal(sampler):
    z = sampler.z(7)
    shape = sampler.prior.z_dim
    mapping = sampler.model.mapping
    assert z.dtype == torch.float32 and len(z) == shape + (mapping.z_dim if mapping else 0)
    numbers = np.random.RandomState(7).standard_normal((20, shape)).astype(np.float32)
    assert (numbers == z[:shape].numpy()).all(1).any()
    many = torch.stack([sampler.z(seed) for seed in range(200)])
    assert abs(float(many.mean())) < 0.02 and abs(float(many.std()) - 1) < 0.02


def test_codes_are_deterministic_and_differ(sampler):
    codes = torch.stack([sampler.map(sampler.z(seed)) for seed in SEEDS])
    assert codes.shape[1:] == (len(sampler.rows), 128)
    assert torch.equal(codes[4], BuiltInSampler().map(sampler.z(4)))
    apart = (codes[:, None] - codes[None]).flatten(2).norm(dim=2) + 1e9 * torch.eye(len(codes))
    assert float(apart.min()) > 1


def test_truncation_goes_to_the_average_head(sampler):
    average = [sampler.map(sampler.z(seed), psi=0.0) for seed in SEEDS]
    assert all(torch.allclose(code, average[0], atol=1e-5) for code in average)
    for seed in SEEDS:
        centre, near, far = (sampler.map(sampler.z(seed), psi) for psi in (0.3, 0.4, 1.0))
        if float(far[2].max()) > 0.95:  # not between two styles
            # Within its class a head comes nearer to the mean; the class stays.
            assert near[2].argmax() == far[2].argmax()
            assert (near - average[0])[:3].norm() < (far - average[0])[:3].norm()
            assert (near - centre).norm() < (far - centre).norm()


def test_cutoff_truncates_the_first_rows_only(sampler):
    z = sampler.z(5)
    code, none, all_rows = (sampler.map(z, 0.5, k) for k in (3, 0, -1))
    assert torch.equal(code[:3], all_rows[:3]) and not torch.equal(code[3:], all_rows[3:])
    assert torch.equal(none, sampler.map(z, 1.0))
    assert torch.equal(code[3:], none[3:])


def test_rows_are_the_parts_they_are_named_after(sampler):
    assert sampler.rows[:4] == ("identity", "expression", "hair", "w0")
    a, b = (sampler.map(sampler.z(seed)) for seed in (1, 2))
    mixed = a.clone()
    mixed[2] = b[2]
    parts, of_a, of_b = (sampler.prior.unpack(code) for code in (mixed, a, b))
    assert torch.equal(parts.identity, of_a.identity) and torch.equal(parts.ws, of_a.ws)
    assert torch.equal(parts.expression, of_a.expression)
    assert torch.equal(parts.hair, of_b.hair) and not torch.equal(parts.hair, of_a.hair)


def test_code_round_trip(sampler):
    code = sampler.map(sampler.z(9))
    assert torch.allclose(sampler.prior.pack(sampler.prior.unpack(code)), code, atol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        sampler.prior.unpack(code[:-1])
    with pytest.raises(ValueError, match="shape"):
        sampler.prior.map(torch.zeros(3))


def test_hair_is_convex_whatever_the_code(sampler):
    code = sampler.map(sampler.z(0))
    code[2] = -1.0
    for hair in (code, 2 * sampler.map(sampler.z(1)) - sampler.map(sampler.z(2))):
        weights = sampler.prior.unpack(hair).hair
        assert float(weights.min()) >= 0 and abs(float(weights.sum()) - 1) < 1e-5


def test_classes_are_as_common_as_in_training(sampler):
    prior = sampler.prior
    drawn = torch.stack([prior.classes(sampler.z(seed)) for seed in range(800)]).mean(0)
    assert float((drawn - prior.share).abs().max()) < 0.04
    sharp = [float(prior.classes(sampler.z(seed), 0.7).max()) for seed in range(200)]
    assert min(sharp) > 0.97  # a head has one style, not a bit of all


def test_shapes_are_people(sampler):
    """Distances from the mean head, and between heads, in millimetres: as of the training heads."""
    space, moved = sampler.model.space, []
    above = space.mean[:, 1] > -0.1
    for seed in range(40):
        parts = sampler.prior.unpack(sampler.map(sampler.z(seed), 1.0))
        moved.append(space.displacement(parts.identity, parts.expression)[above])
    size = np.array([float(m.norm(dim=1).mean()) * 1e3 for m in moved])
    assert 6.0 < size.mean() < 12.0 and size.max() < 25.0  # held-out heads: 9.2, spread 2.4
    pairs = [float((a - b).norm(dim=1).mean()) * 1e3 for a, b in zip(moved, moved[1:])]
    assert min(pairs) > 1.5


def test_shape_goes_with_colour(sampler):
    """Most directions move both."""
    basis = sampler.prior.basis.flatten(0, 1)
    wide = sampler.prior.sizes[0] + sampler.prior.sizes[1]
    shape, colour = basis[:, :wide].norm(dim=1), basis[:, wide:].norm(dim=1)
    assert int(((shape > 0.02) & (colour > 0.02)).sum()) > len(basis) // 2


def test_field_is_one_head(sampler, field):
    assert torch.isfinite(field.planes).all() and torch.isfinite(field.skin.shade).all()
    mesh = isosurface.extract(field, 88)
    _, label = face_components(mesh.faces, len(mesh.vertices))
    counts = np.bincount(label)
    assert counts.max() / counts.sum() > 0.999
    assert 0.18 < np.ptp(mesh.vertices[:, 1]) < 0.4
    clean = cleanup.clean(mesh, 4000)
    assert len(clean.faces) > 2000


def test_between_styles_nothing_floats(sampler):
    a, b = (sampler.map(sampler.z(seed)) for seed in (5, 8))
    field = sampler._field(torch.lerp(a, b, 0.33), 112)
    assert ndimage.label((field.distance < 0).numpy())[1] == 1


def test_field_is_deterministic_and_can_be_saved(sampler, field):
    again = sampler.field(sampler.map(sampler.z(3)))
    assert torch.equal(again.distance, field.distance) and torch.equal(again.planes, field.planes)
    assert torch.equal(again.skin.shade, field.skin.shade)
    saved = load_field(field_to_bytes(field))
    canonical = faces.places(sampler.prior.faces.radius).reshape(-1, 3)[::991]
    points = torch.cat([torch.rand(100, 3) * 0.2 - 0.1, canonical])
    assert torch.allclose(saved.color(points), field.color(points), atol=0.02)


def test_picture(sampler, field):
    code = sampler.map(sampler.z(3))
    assert max(sampler.front().width, sampler.front().height) == sampler.picture_size > SMALL
    small = sampler.picture(code, sampler.camera(0, 0, 64))
    assert small.image.shape == (64, 64, 3) and small.image.dtype == np.uint8
    full = sampler.picture(code, sampler.camera(0, 0, 64), field=field)
    both = (small.alpha > 128) & (full.alpha > 128)
    assert both.sum() / ((small.alpha > 128) | (full.alpha > 128)).sum() > 0.95
    off = np.abs(small.image.astype(int) - full.image)[both].mean()
    assert off < 12  # the thumbnail's coarser grid shows the same head
    share = (full.alpha > 128).mean()
    assert 0.15 < share < 0.6 and full.alpha[:2].max() < 20


def test_check_cancels(sampler):
    class Stop(Exception):
        pass

    def check():
        raise Stop

    with pytest.raises(Stop):
        sampler.picture(sampler.map(sampler.z(0)), sampler.camera(0, 0, 64), check)


def test_cameras(sampler):
    left = sampler.camera(30, 0).position
    assert left[0] > 0 and abs(left[1] - sampler.front().position[1]) < 1e-9
    assert sampler.camera(0, 20).position[1] > sampler.front().position[1]
    assert sampler.camera(0, 0, 77).width == 77


def test_hair_ends_up_in_one_hue():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(3000, 3, generator=generator) * 0.2 - 0.1
    colour = torch.rand(3000, 3, generator=generator) * 0.3 + 0.3
    cover = (points[:, 1] > 0).float()
    agreed = harmony.agreed_colours(points, colour, cover)
    hair = cover > 0.5
    chroma = agreed / agreed.sum(1, keepdim=True)
    assert float(chroma[hair].std(0).max()) < 1e-3 < float(chroma[~hair].std(0).max())


def skin_of(sampler, code, mass=None) -> Skin:
    """The fine skin of a code's head; mass: other hair than its own."""
    parts, model = sampler.prior.unpack(code), sampler.model
    with torch.no_grad():
        planes = model.generator.planes(parts.ws[None], parts.hair[None])[0]
    mass = model.space.hair(parts.hair) if mass is None else mass
    look = model.generator, planes, model.space, mass, parts.identity, torch.full((3,), 0.2)
    return sampler.prior.faces.skin(*look)


def test_faces_stay_off_hair(sampler):
    space, code = sampler.model.space, sampler.map(sampler.z(0))
    one = torch.eye(space.styles)
    bald = skin_of(sampler, code, space.hair(one[-1])).shade.abs().amax(0)
    bob = skin_of(sampler, code, space.hair(one[0])).shade.abs().amax(0)
    assert float(bald.mean()) > 0.05 and float(bald[0].max()) < 0.05  # it fades at its edges
    hidden = (bob < 0.01) & (bald > 0.03)
    assert float(hidden.float().mean()) > 0.1


def test_a_face_is_one_of_the_books(sampler):
    """Nearly always one, and never from one to another in a jump."""
    book = sampler.prior.faces
    codes = [sampler.map(sampler.z(seed)) for seed in range(30)]
    shares, between = [], []

    def weights(code):
        parts = sampler.prior.unpack(code)
        person = torch.cat([torch.ones(1), parts.identity]) @ book.follow
        traits = torch.cat([person, torch.tensor([-0.7, 0.4, 0.0, 0.0])])
        return book.choose(traits, parts.identity, faces.BELOW)

    for code in codes:
        chosen = weights(code)
        assert abs(float(chosen.sum()) - 1) < 1e-5 and float(chosen.min()) >= 0
        shares.append(float(chosen.max()))
        male = float(book.traits[chosen.argmax(), 0])
        parts = sampler.prior.unpack(code)
        said = float((torch.cat([torch.ones(1), parts.identity]) @ book.follow)[0])
        assert abs(said - 0.5) < 0.2 or (male > 0.5) == (said > 0.5)
    assert np.median(shares) > 0.95
    for a, b in zip(codes[:6], codes[1:7]):
        path = torch.stack([weights(torch.lerp(a, b, t)) for t in torch.linspace(0, 1, 401)])
        between.append(float((path[1:] - path[:-1]).abs().sum(1).max()))
    assert max(between) < 0.5


def test_faces_are_sharper_than_planes(sampler, field):
    """A frontal face has more than twice the energy of the planes' own gradients."""
    plain = HeadField(field.distance, field.warp, field.planes, field.decoder, field.bounds)
    camera = sampler.camera(0, 0, 192)
    rough = []
    for head in (field, plain):
        luma = (head.render(camera).image.mean(2)[74:122, 72:120] + 0.05).log()
        rough.append(float(luma.diff(dim=0).square().mean() + luma.diff(dim=1).square().mean()))
    assert rough[0] > 2.5 * rough[1]


def test_bytes_keep_a_face():
    log = torch.rand(3, ROWS // 8, COLUMNS // 8, generator=torch.Generator().manual_seed(1)) - 1
    log = torch.nn.functional.interpolate(log[None] * 0.3, (ROWS, COLUMNS), mode="bicubic")[0]
    assert float((faces.unpack(*faces.pack(log)) - log).abs().mean()) < 0.01


def test_beards_are_mens(sampler):
    book, log = sampler.prior.faces, torch.full((3, ROWS, COLUMNS), -0.5)
    names = faces.TRAITS
    dark = torch.zeros(len(names))
    dark[names.index("beard")] = -0.4
    hair = torch.full((3,), 0.05)
    bearded = []
    for male in (0.0, 1.0):
        dark[names.index("male")] = male
        bearded.append(book._bearded(log, dark, torch.zeros(64), hair))
    assert torch.equal(bearded[0], log)
    darker = (log - bearded[1]).mean(0)
    chin, brow = (unwrap(torch.tensor([[0.0, y, 0.1]]))[0][0, 1] for y in (-0.075, 0.04))
    rows = [int((float(v) + 1) / 2 * ROWS) for v in (chin, brow)]
    assert float(darker[rows[0], COLUMNS // 2]) > 0.5
    assert float(darker[rows[1]].abs().max()) < 0.02


def test_strands_lie_on_hair_only(sampler):
    space = sampler.model.space
    bald = strands.masks(space, space.hair(torch.eye(space.styles)[-1]), 64)
    assert float(bald.max()) < 0.05
    seen = strands.masks(space, space.hair(torch.eye(space.styles)[4]), 64)  # long hair
    front, back, side = seen
    assert float(back.mean()) > 1.5 * float(front.mean()) > 0
    face = slice(30, 36), slice(29, 35)  # rows of y about 0, columns of x about 0
    assert float(front[face].max()) < 0.2 < float(side.max())


def test_file_describes_itself_and_is_small():
    assert PATH.stat().st_size < 10e6
    prior = load_prior()
    assert prior.config["heads"] >= 300 and prior.config["last_seed"] < 1_000_000
    assert prior.config["faces"] == len(prior.faces.light) and prior.config["last_face"] < 1800
    assert len(prior.sha256) == 64
    assert abs(float(prior.share.sum()) - 1) < 1e-3


def test_unusable_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="read"):
        load_prior(tmp_path / "none.safetensors")
    torn = tmp_path / "torn.safetensors"
    shutil.copy(PATH, torn)
    with open(torn, "r+b") as file:
        file.truncate(5000)
    with pytest.raises(WeightsError, match="read"):
        load_prior(torn)
    tensors, config = load_file(PATH), load_prior().config
    described = {"prior": json.dumps(config)}
    for name in ("basis", "faces.light"):
        path = tmp_path / f"without-{name}.safetensors"
        save_file({k: v for k, v in tensors.items() if k != name}, path, described)
        with pytest.raises(WeightsError, match="lack"):
            load_prior(path)
    odd = tmp_path / "odd.safetensors"
    save_file(tensors | {"basis": tensors["basis"][:, :, :-1].contiguous()}, odd, described)
    with pytest.raises(WeightsError, match="fit"):
        load_prior(odd)
