"""Semantic directions of the built-in head model: what they move and what they leave."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoints.default import load_default
from engine.errors import ParameterError, WeightsError
from engine.sampling import edits
from engine.sampling.builtin import BuiltInSampler
from engine.sampling.edits import edited, parse_edits
from engine.sampling.recipe import Recipe, code, field_of
from engine.systems.head.directions import PATH, Directions, load_directions
from engine.training.directions_composed import RECIPES, with_expressions
from engine.training.directions_data import SHAPE, Attributes, shape_attributes

SEEDS = range(6)
MEASURED = (*SHAPE, "smile", "skin tone", "hair length", "beard")  # age and gender: see below


@pytest.fixture(scope="module")
def sampler() -> BuiltInSampler:
    return BuiltInSampler()


@pytest.fixture(scope="module")
def known() -> Directions:
    return load_directions()


@pytest.fixture(scope="module")
def attributes() -> Attributes:
    return Attributes(load_default())


@pytest.fixture(scope="module")
def heads(sampler) -> list[torch.Tensor]:
    codes = [sampler.map(sampler.z(seed)) for seed in SEEDS]
    for made in codes:
        made[1] = 0  # calm
    return codes


@pytest.fixture(scope="module")
def effects(sampler, known, attributes, heads) -> dict[str, dict[str, float]]:
    """Of each direction the mean change of every attribute, in units of the one's own change that
    the direction named after it makes."""

    def mean(name: str | None, amount: float) -> dict[str, float]:
        codes = [known.apply(c, {name: amount}) if name else c for c in heads]
        rows = [attributes(sampler.prior.unpack(c)) for c in codes]
        return {key: float(np.mean([row[key] for row in rows])) for key in MEASURED}

    calm = mean(None, 0)
    raw = {}
    for name in known.names:
        less = calm if name == "smile" or name in RECIPES else mean(name, -1)
        more = mean(name, 1)
        raw[name] = {key: more[key] - less[key] for key in MEASURED}
    unit = {key: raw[key][key] for key in MEASURED if key in raw}
    assert all(value > 0 for value in unit.values()), unit
    return {n: {key: row[key] / unit[key] for key in unit} for n, row in raw.items()}


def test_the_file_is_for_the_model_that_ships(known, sampler):
    """After the head model's weights have changed, run engine.training.build_directions again."""
    assert known.about["weights"] == load_default().sha256
    assert known["age"].shape == sampler.map(sampler.z(0)).shape
    assert PATH.stat().st_size < 200_000


def test_directions_are_those_the_model_can_express(known):
    assert set(known.names) == {"age", "gender", *MEASURED, *RECIPES}
    for name, (low, high) in known.ranges.items():
        assert low <= 0 < 1 <= high and known.meaning[name]


def test_each_direction_moves_its_attribute_most(effects):
    for name in MEASURED:
        others = {key: abs(x) for key, x in effects[name].items() if key != name}
        assert max(others.values()) < 0.5, (name, effects[name])


def test_age_and_gender_are_no_other_attribute(effects):
    for name in ("age", "gender"):
        assert abs(effects[name]["skin tone"]) < 0.4 and abs(effects[name]["smile"]) < 0.1
        assert abs(effects[name]["hair length"]) < 0.4
    # Men's jaws are wider; nobody held that.
    assert effects["gender"]["jaw"] > 0


def test_shapes_move_bones_and_nothing_else(known, heads, sampler):
    for name in SHAPE:
        direction = known[name]
        assert not direction[1:].any()
    space = load_default().space
    for name in ("nose size", "jaw"):
        parts = [sampler.prior.unpack(known.apply(heads[0], {name: a})) for a in (-2, 2)]
        calm = torch.zeros_like(parts[0].expression)
        low, high = (
            shape_attributes(space.landmarks(space.vertices(p.identity, calm)) * 1e3)[name]
            for p in parts
        )
        assert high - low > 3  # millimetres


def test_expressions_are_made_of_shape_keys(known, sampler):
    """The file's are what the shape keys say, and the head space can say nearly all of it; anger
    draws the brows down and together."""
    tensor, about = with_expressions(torch.stack([known[n] for n in known.names]), known.about)
    for name in RECIPES:
        assert torch.allclose(tensor[about["names"].index(name)], known[name], atol=0.02)
    assert about["explained"]["anger"] > 0.9 and about["explained"]["sadness"] > 0.9
    space = load_default().space
    calm = torch.zeros(len(space.expression))
    still = torch.zeros(len(space.identity))
    angry = sampler.prior.unpack(known["anger"]).expression
    before, after = (space.landmarks(space.vertices(still, e)) for e in (calm, angry))
    inner = after[[21, 22]] - before[[21, 22]]
    assert (inner[:, 1] < -0.002).all() and inner[0, 0] * inner[1, 0] < 0


def test_nothing_changes_at_zero(known, heads):
    assert torch.equal(known.apply(heads[0], {}), heads[0])
    assert torch.equal(known.apply(heads[0], dict.fromkeys(known.names, 0.0)), heads[0])
    before = heads[0].clone()
    moved = known.apply(heads[0], {"age": 1.0, "smile": 0.5})
    assert torch.equal(heads[0], before) and not torch.equal(moved, before)
    one_by_one = known.apply(known.apply(heads[0], {"smile": 0.5}), {"age": 1.0})
    assert torch.allclose(moved, one_by_one, atol=1e-6)


def test_what_cannot_be_is_refused(known, heads):
    with pytest.raises(ParameterError, match="no direction 'glasses'") as failure:
        known.apply(heads[0], {"glasses": 1.0})
    assert "age" in failure.value.remedy
    for amount in (99.0, float("nan")):
        with pytest.raises(ParameterError, match="from -3 to 3"):
            known.apply(heads[0], {"age": amount})
    with pytest.raises(ValueError, match="shape"):
        known.apply(heads[0][:-1], {"age": 1.0})


def test_edits_are_read_as_people_write_them():
    assert parse_edits("") == {}
    assert parse_edits("age=1, Nose_Width = -0.5,") == {"age": 1.0, "nose width": -0.5}
    for text in ("age", "age=", "=1", "age=1=2", "age=inf", "age=1; smile=1"):
        with pytest.raises(ParameterError):
            parse_edits(text)
    with pytest.raises(ParameterError, match="twice"):
        parse_edits("age=1, age=2")


def test_a_recipe_keeps_its_edits(sampler, known):
    plain, changed = Recipe((3,)), Recipe((3,), edits="smile=0.5, jaw=-1")
    expected = known.apply(code(sampler, plain), {"smile": 0.5, "jaw": -1.0})
    assert torch.equal(code(sampler, changed), expected)
    origin = field_of(sampler, changed).origin
    assert origin.recipe["edits"] == "smile=0.5, jaw=-1" and torch.equal(origin.code, expected)


def test_other_models_have_no_directions(sampler, monkeypatch):
    monkeypatch.setattr(sampler, "name", "ffhq", raising=False)
    made = torch.zeros(3, 4)
    assert edited(sampler, made, "") is made
    with pytest.raises(ParameterError, match="ffhq has no semantic directions"):
        edited(sampler, made, "age=1")
    assert edits.MODEL == BuiltInSampler.name


def test_damaged_files_are_refused(tmp_path, known):
    about = dict(known.about)
    bad = tmp_path / "bad.safetensors"
    shutil.copy(PATH, bad)
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(WeightsError):
        load_directions(bad)
    tensor = torch.zeros(len(known.names), 15, 128)
    save_file({"directions": tensor}, bad)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_directions(bad)
    short = {**about, "names": about["names"][:-1]}
    save_file({"directions": tensor}, bad, {"directions": json.dumps(short)})
    with pytest.raises(WeightsError, match="fit together"):
        load_directions(bad)
    with pytest.raises(WeightsError, match="another version"):
        Directions(tensor, {"names": ["age"]})
