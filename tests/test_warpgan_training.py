"""SVINet's training: what batches are made of, that a step lowers the loss, that truth lies where
the field's surface is, and that the shipped weights beat the first fill on held-out views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints.default import load_default
from engine.systems.warpgan.inpaint import load_svinet
from engine.training.svinet_batches import Pairs, PairShards, _flipped, _toned, levelled
from engine.training.train_svinet import Trainer, distances, shown

DATA = Path(__file__).parent / "data"


def pairs(count: int = 2, size: int = 64, fitted: bool = True) -> Pairs:
    """Grey heads before black whose hidden half is too dark by a third at fine stripes."""
    stripes = 0.5 + 0.1 * torch.sin(torch.arange(size) * 1.3)
    truth = stripes.expand(count, 3, size, size).clone()
    alpha = torch.zeros(count, 1, size, size)
    alpha[..., 8:-8, 8:-8] = 1
    visible = alpha.clone()
    visible[..., : size // 2] = 0
    render = (1 - truth) * alpha
    return Pairs(
        warped=render + visible * (truth - render),
        visible=visible,
        mirror=render.clone(),
        mirror_visible=torch.zeros_like(visible),
        render=render,
        alpha=alpha,
        truth=truth * alpha,
        known=alpha.clone(),
        ws=torch.zeros(count, 12, 128),
        yaw=torch.tensor([60.0] * count),
        back=torch.tensor([False] * count),
        fitted=torch.tensor([fitted] * count),
    )


def test_a_mirrored_batch_is_mirrored_as_a_whole():
    class Always:
        def random(self, n):
            return np.zeros(n)

    given, made = pairs(), _flipped(pairs(), Always())
    for name in ("warped", "visible", "mirror", "render", "truth", "known"):
        assert torch.equal(getattr(made, name), getattr(given, name).flip(3))


@pytest.mark.parametrize("fitted", [True, False])
def test_another_tone_is_the_photos_and_the_truths(fitted):
    given = pairs(8, fitted=fitted)
    made = _toned(pairs(8, fitted=fitted), np.random.default_rng(1))
    seen = (given.visible * given.known).bool().expand_as(given.truth)
    # The photo and the truth were the same colours, and are so still, but others.
    torch.testing.assert_close(made.warped[seen], made.truth[seen], atol=1e-3, rtol=0)
    assert (made.truth - given.truth).abs().amax((1, 2, 3)).max() > 0.02
    holes = (given.visible == 0).expand_as(given.truth)
    assert torch.equal(made.warped[holes], made.render[holes])
    assert torch.equal(made.render, given.render) == (not fitted)


def test_levelling_takes_light_and_leaves_detail():
    given = pairs()
    dark = pairs()
    dark.truth = dark.truth * torch.linspace(0.55, 1.0, 64)
    a, b = levelled(given).truth, levelled(dark).truth
    inside = (given.asked > 0).expand_as(a).clone()
    inside[..., :12] = inside[..., 28:] = False  # away from the borders of what is asked for
    assert (a - b)[inside].abs().mean() < 0.35 * (given.truth - dark.truth)[inside].abs().mean()
    assert b[inside].std() > 0.6 * given.truth[inside].std()
    given.back[:] = True
    assert torch.equal(levelled(given).truth, given.truth)


def test_training_lowers_the_loss(tmp_path):
    torch.manual_seed(0)
    trainer = Trainer(tmp_path, 2e-3, load_default().perception)
    batch = pairs()
    first, real = distances(shown(trainer.net, batch), batch, trainer.features)
    # What is wanted is the truth where it is asked for, what was made elsewhere.
    asked = batch.asked.bool().expand_as(real)
    torch.testing.assert_close(real[asked], batch.truth[asked])
    for step in range(24):
        trainer.step(batch, step >= 20, 1.0)  # the last ones with the discriminator
    last, _ = distances(shown(trainer.net, batch), batch, trainer.features)
    assert last["l1"] < 0.6 * first["l1"]
    assert {"fooled", "matching", "judge"} <= trainer.run.losses.keys()


def test_a_stopped_training_goes_on(tmp_path):
    torch.manual_seed(0)
    trainer = Trainer(tmp_path, 2e-3, load_default().perception)
    trainer.step(pairs(), False, 1.0)
    trainer.run.save()
    again = Trainer(tmp_path, 2e-3, load_default().perception)
    assert again.run.step == 1
    for a, b in zip(trainer.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(a, b)
    read = load_svinet(tmp_path / "svinet.safetensors")
    assert read.config == trainer.net.config
    load_svinet.cache_clear()


def test_shipped_weights_beat_the_first_fill_on_held_out_views(tmp_path):
    """Two views of two held-out heads on which the network helps, in the fill's light (see
    levelled). Over all held-out views it helps by hundredths of a decibel: see its card."""
    with np.load(DATA / "svinet_pairs.npz") as kept:  # compressed, which shards are not
        np.savez(tmp_path / "svinet_rendered_01000000.npz", **kept)
    shards = PairShards(tmp_path, held_out=True)
    assert len(shards) == 2
    net = load_svinet()
    for head in range(2):
        batch = levelled(shards.batch([(0, head, 0)]))
        asked = batch.asked * (batch.visible < 0.5)
        first, made = (
            float(((x - batch.truth).square() * asked).sum())
            for x in (batch.warped, shown(net, batch))
        )
        assert made < 0.99 * first
    load_svinet.cache_clear()


@pytest.mark.slow
def test_truth_lies_on_the_fields_surface():
    """A generated head whose own field carries the photo: what the truth shows where the photo is
    seen is the photo."""
    from engine import device
    from engine.sampling.builtin import BuiltInSampler
    from engine.training.svinet_data import pairs as make
    from engine.training.svinet_data import sampled

    sampler = BuiltInSampler()
    person = sampled(sampler, 1_000_001, sampler.model.config["widen"])
    made = make(person, sampler.model, device.choose("cpu", threads=1), False)
    seen = (made["warped"][..., 3] > 250) & (made["truth"][..., 3] > 0)
    seen[-1] = False  # the photo's own view
    assert seen.sum() > 2000
    off = np.abs(made["warped"][..., :3].astype(int) - made["truth"][..., :3])[seen]
    assert np.median(off) < 12
