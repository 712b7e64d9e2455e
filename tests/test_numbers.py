"""The perception network's second trunk: what it is for, how it is loaded and trained."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.checkpoints.default import NUMBERS, PATH, load_default
from engine.errors import WeightsError
from engine.headspace.mirror import mirror_landmarks, mirror_of, mirror_pose
from engine.portrait.perception import PerceptionNet, Trunk
from engine.training import numbers_data, train_numbers
from engine.training.heads.build import build_head
from engine.training.heads.dataset import hair_index
from engine.training.train_numbers import Pictures, trunk_of
from engine.training.train_perception import Losses


def shard(path, seed: int, count: int = 8) -> None:
    """Of random pictures, but with a truth that heads could have."""
    rng = np.random.default_rng(seed)
    arrays = {
        "picture": rng.integers(0, 256, (count, 3, 128, 128), np.uint8),
        "landmarks": rng.uniform(0.2, 0.8, (count, 84, 2)).astype(np.float32),
        "pose": np.tile(np.float32([0.1, 0, 0, 0.5, 0.5, -0.9]), (count, 1)),
        "identity": rng.normal(size=(count, 64)).astype(np.float32),
        "expression": rng.normal(size=(count, 20)).astype(np.float32),
        "hair": rng.integers(0, 21, count, np.uint8),
        "clean": np.arange(count) % 4 == 3,
    }
    np.savez(path, **arrays)


def test_the_second_trunk_says_the_numbers_and_the_first_the_maps(pictures):
    torch.manual_seed(0)
    net = PerceptionNet(6, 4, 3).eval()
    with torch.no_grad():
        alone = net(pictures)
        net.second = trunk_of(net)
        same = net(pictures)
        for parameter in net.second.parameters():
            parameter.mul_(1.1)
        other = net(pictures)
    for name in ("identity", "expression", "hair", "pose"):
        assert torch.equal(getattr(alone, name), getattr(same, name))
        assert not torch.allclose(getattr(alone, name), getattr(other, name))
    assert torch.equal(alone.classes, other.classes)
    assert torch.equal(alone.landmarks, other.landmarks)


class TestTheFileBesideTheModel:
    def folder(self, tmp_path):
        """A model's file, and no second trunk beside it."""
        (tmp_path / "head.safetensors").symlink_to(PATH)
        return tmp_path

    def test_what_ships_has_one(self, pictures):
        model = load_default()
        assert model.perception.second is not None
        assert sum(p.numel() for p in model.perception.second.parameters()) < 3e6
        assert not any(p.requires_grad for p in model.perception.second.parameters())

    def test_a_model_does_without(self, tmp_path, pictures):
        model = load_default(self.folder(tmp_path) / "head.safetensors")
        assert model.perception.second is None
        shipped = load_default(PATH)
        with torch.no_grad():
            a, b = model.perception(pictures), shipped.perception(pictures)
        assert torch.equal(a.classes, b.classes) and not torch.equal(a.pose, b.pose)
        assert not torch.equal(model.perception.refine.weight, shipped.perception.refine.weight)

    def test_another_head_spaces_numbers_are_refused(self, tmp_path):
        folder = self.folder(tmp_path)
        tensors = load_file(PATH.with_name(NUMBERS))
        save_file(tensors, folder / NUMBERS, {"space": "0" * 64})
        with pytest.raises(WeightsError, match="another version"):
            load_default(folder / "head.safetensors")

    def test_a_damaged_file_is_refused(self, tmp_path):
        folder = self.folder(tmp_path)
        (folder / NUMBERS).write_bytes(PATH.with_name(NUMBERS).read_bytes()[:5000])
        with pytest.raises(WeightsError, match="cannot be read"):
            load_default(folder / "head.safetensors")

    def test_a_file_without_a_tensor_is_refused(self, tmp_path):
        folder = self.folder(tmp_path)
        source = PATH.with_name(NUMBERS)
        with safe_open(str(source), "pt") as file:
            told = file.metadata()
        tensors = load_file(source)
        del tensors["trunk.mix.bias"]
        save_file(tensors, folder / NUMBERS, told)
        with pytest.raises(WeightsError, match="another version"):
            load_default(folder / "head.safetensors")


def test_mirrored_pictures_have_a_mirrored_truth(tmp_path):
    shard(tmp_path / "numbers_00000000.npz", 0)
    space = load_default().space
    pictures = Pictures([tmp_path / "numbers_00000000.npz"], space)
    index = torch.tensor([1, 5])
    straight, turned = pictures.batch(index), pictures.batch(index, mirrored=True)
    assert torch.equal(straight["picture"].flip(-1), turned["picture"])
    assert torch.equal(mirror_pose(straight["pose"]), turned["pose"])
    assert torch.equal(mirror_landmarks(straight["landmarks"]), turned["landmarks"])
    mirror = mirror_of(space)
    assert torch.equal(mirror.hair[straight["hair"]], turned["hair"])
    assert torch.allclose(straight["identity"] @ mirror.identity, turned["identity"])


def test_training_learns_and_leaves_a_file_that_loads(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    # The first shard is kept back, the second learned from; the pose is the same everywhere.
    shard(data / "numbers_00000000.npz", 0, 96)
    shard(data / "numbers_00000020.npz", 1)
    args = ["--data", str(data), "--out", str(out), "--minutes", "0.15", "--batch", "8"]
    train_numbers.main(args)
    lines = (out / "log.txt").read_text().splitlines()
    pose = [float(line.split("pose ")[1].split()[0]) for line in lines if ", clean" in line]
    assert pose[-1] < 0.8 * pose[0]
    shutil.copy(out / NUMBERS, tmp_path / NUMBERS)
    (tmp_path / "head.safetensors").symlink_to(PATH)
    model = load_default(tmp_path / "head.safetensors")
    trained = load_file(out / "trunk.safetensors")
    for name, value in model.perception.second.state_dict().items():
        assert torch.equal(value, trained[name].float())
    before = len(lines)
    train_numbers.main(args)  # the time is over: nothing is trained further
    again = (out / "log.txt").read_text().splitlines()[before:]
    assert again[-2].split(": ")[1] == lines[-2].split(": ")[1]


def test_too_few_pictures_end_in_a_sentence(tmp_path, capsys):
    shard(tmp_path / "numbers_00000000.npz", 0)
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SystemExit):
            train_numbers.main(["--data", str(folder), "--out", str(tmp_path / "out")])
        assert "too few" in capsys.readouterr().err


def test_a_heads_pictures_know_their_head(heads_pack, pack):
    from engine.training.prior_data import template_mean
    from engine.training.truth import Truths

    model = load_default()
    truths = Truths(model.space, pack, template_mean(pack, 20))
    numbers_data._state.update(losses=Losses(model.space), truths=truths)
    bad, clean = numbers_data.pictures_of(800_003, None)
    assert bad["picture"].shape == (3, 3, 128, 128) and clean["picture"].shape[0] == 1
    assert clean["clean"].all() and not bad["clean"].any()
    losses = Losses(model.space)
    said = [torch.from_numpy(clean[k]) for k in ("identity", "expression", "hair", "pose")]
    logits = torch.nn.functional.one_hot(said[2].long(), model.space.styles).float() * 50
    truth = {"identity": said[0], "expression": said[1], "hair": said[2].long()}
    marks = torch.from_numpy(clean["landmarks"])
    found = losses.of_numbers(
        (said[0], said[1], logits, said[3]), truth, said[3], marks, torch.ones(1, 84).bool()
    )
    # The truth's own landmarks lie where its coefficients and pose put them.
    assert found["pose"] == 0 and found["hair"] < 1e-3 and found["together"] < 0.02
    style = hair_index(build_head(pack, 800_003).params, pack.hairs)
    assert int(clean["hair"][0]) == style
    assert all(int(h) in (style, int(mirror_of(model.space).hair[style])) for h in bad["hair"])


def test_a_trunk_of_another_size_does_not_fit():
    net = PerceptionNet(6, 4, 3)
    with pytest.raises(RuntimeError):
        Trunk(7, 4, 3).load_state_dict(copy.deepcopy(trunk_of(net).state_dict()))
