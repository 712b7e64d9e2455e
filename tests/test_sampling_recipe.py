"""From seeds and saved heads to a latent code."""

from __future__ import annotations

import math

import pytest
import torch
from sampling_fixtures import tiny_sampler

from engine.errors import ParameterError, WeightsError
from engine.fields.io import load_field, save_field
from engine.sampling.recipe import Recipe, code, field_of, from_json, parse_heads, slerp


@pytest.fixture(scope="module")
def sampler():
    return tiny_sampler()


@pytest.fixture
def saved(sampler, tmp_path):
    path = tmp_path / "seven.safetensors"
    save_field(field_of(sampler, Recipe((7,), psi=0.9)), path)
    return str(path)


@pytest.mark.parametrize(
    "text, heads",
    [
        ("3", (3,)),
        (" 3, 9 ", (3, 9)),
        ("4-6,2", (4, 5, 6, 2)),
        ("3,a folder/head.safetensors", (3, "a folder/head.safetensors")),
        ('["3", "one, two.safetensors", 5]', (3, "one, two.safetensors", 5)),
    ],
)
def test_heads_are_read_from_text(text, heads):
    assert parse_heads(text) == heads


@pytest.mark.parametrize("text", ["", " , ", "9-3", "0-100000", "[1,", "[]"])
def test_text_without_heads(text):
    with pytest.raises(ParameterError):
        parse_heads(text)


@pytest.mark.parametrize(
    "change",
    [
        {"heads": ()},
        {"heads": (-1,)},
        {"heads": (1 << 32,)},
        {"at": 0.5},
        {"at": math.nan},
        {"heads": (1, 2), "at": 1.01},
        {"heads": (1, "head.safetensors"), "space": "z"},
    ],
)
def test_impossible_recipes(change):
    with pytest.raises(ParameterError):
        Recipe(**{"heads": (3,)} | change)


def test_slerp_keeps_to_the_sphere():
    torch.manual_seed(3)
    a, b = torch.randn(2, 512)
    assert torch.allclose(slerp(a, b, 0.0), a, atol=1e-6)
    assert torch.allclose(slerp(a, b, 1.0), b, atol=1e-6)
    middle, mean = slerp(a, b, 0.5), (a.norm() + b.norm()) / 2
    assert middle.norm() == pytest.approx(mean.item(), rel=1e-5)
    assert torch.lerp(a, b, 0.5).norm() < 0.8 * mean  # the straight line leaves it
    cosines = [torch.cosine_similarity(slerp(a, b, t), a, dim=0) for t in (0.25, 0.5, 0.75)]
    angles = torch.arccos(torch.stack(cosines)).diff()
    assert angles[0] == pytest.approx(angles[1].item(), abs=1e-5)  # even steps
    assert torch.allclose(slerp(a, a, 0.3), a, atol=1e-5)
    assert torch.isfinite(slerp(a, -a, 0.5)).all() and torch.isfinite(slerp(a, 0 * a, 0.5)).all()


def test_truncation_draws_rows_to_the_average(sampler):
    average = sampler.generator.backbone.mapping.w_avg
    whole = code(sampler, Recipe((3,), psi=1.0))
    assert whole.shape == (len(sampler.rows), 16)
    half = code(sampler, Recipe((3,), psi=0.5))
    assert torch.allclose(half, (whole + average) / 2, atol=1e-6)
    assert torch.allclose(code(sampler, Recipe((3,), psi=0.0)), average.expand(8, -1), atol=1e-6)
    cut = code(sampler, Recipe((3,), psi=0.5, cutoff=2))
    assert torch.equal(cut[:2], half[:2]) and torch.equal(cut[2:], whole[2:])


def test_a_path_through_heads(sampler):
    one = {seed: code(sampler, Recipe((seed,))) for seed in (3, 9, 4)}
    path = (3, 9, 4)
    for at, seed in enumerate(path):
        for space in ("w", "z"):
            assert torch.equal(code(sampler, Recipe(path, at=at, space=space)), one[seed])
    quarter = code(sampler, Recipe(path, at=1.25))
    assert torch.allclose(quarter, 0.75 * one[9] + 0.25 * one[4], atol=1e-6)
    arc = code(sampler, Recipe(path, at=1.25, space="z"))
    z = slerp(sampler.z(9), sampler.z(4), 0.25)
    assert torch.equal(arc, sampler.map(z, 0.7)) and not torch.allclose(arc, quarter, atol=1e-3)
    known: dict = {}
    assert torch.equal(code(sampler, Recipe(path, at=1.25), known), quarter)
    assert set(known) == {9, 4} and torch.equal(known[4], one[4])


def test_style_mixing_replaces_rows(sampler):
    a, b = code(sampler, Recipe((3,))), code(sampler, Recipe((8,)))
    mixed = code(sampler, Recipe((3,), mix_seed=8, mix_from=2, mix_to=4))
    assert torch.equal(mixed[2:5], b[2:5])
    assert torch.equal(mixed[:2], a[:2]) and torch.equal(mixed[5:], a[5:])
    rest = code(sampler, Recipe((3,), mix_seed=8, mix_from=5))
    assert torch.equal(rest[5:], b[5:]) and torch.equal(rest[:5], a[:5])
    assert torch.equal(code(sampler, Recipe((3,))), a)  # nothing was changed in place
    for first, last in ((8, -1), (0, 8), (5, 3)):
        with pytest.raises(ParameterError):
            code(sampler, Recipe((3,), mix_seed=8, mix_from=first, mix_to=last))


def test_a_saved_head_keeps_its_code_and_recipe(sampler, saved):
    field = load_field(saved)
    assert field.origin.recipe["model"] == "tiny" and field.origin.recipe["sha256"] == "aa"
    assert from_json(field.origin.recipe) == Recipe((7,), psi=0.9)
    assert torch.equal(field.origin.code, code(sampler, Recipe((7,), psi=0.9)))
    again = code(sampler, Recipe((saved,), psi=0.1))  # its own truncation stays
    assert torch.equal(again, field.origin.code)
    between = code(sampler, Recipe((3, saved), at=0.5))
    assert torch.allclose(between, (code(sampler, Recipe((3,))) + again) / 2, atol=1e-6)
    made = field_of(sampler, Recipe((3, saved), at=0.5))
    assert made.origin.recipe["heads"] == [3, "seven.safetensors"]  # and no folder of this machine


def test_heads_that_cannot_be_blended(sampler, saved, tmp_path):
    with pytest.raises(WeightsError) as caught:
        code(tiny_sampler("other", "bb"), Recipe((saved,)))
    assert "tiny" in caught.value.sentence and "other" in caught.value.sentence
    plain = tmp_path / "plain.safetensors"
    save_field(sampler.field(sampler.map(sampler.z(3))), plain)
    with pytest.raises(WeightsError, match="no latent code"):
        code(sampler, Recipe((3, str(plain)), at=0.5))
    with pytest.raises(WeightsError):
        code(sampler, Recipe((str(tmp_path / "missing.safetensors"),)))


def test_recipes_as_json():
    recipe = Recipe((3, "x.safetensors"), 0.25, "w", 0.5, 8, 10.0, -5.0, 4, 1, 3)
    assert from_json(recipe.to_json() | {"model": "x", "sha256": "y"}) == recipe
    for damaged in ({}, {"heads": 3}, {"heads": [3], "at": "here"}):
        with pytest.raises(ParameterError):
            from_json(damaged)
