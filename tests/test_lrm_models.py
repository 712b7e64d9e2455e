"""Published TripoSR and OpenLRM files become models that make fields; others are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lrm_fixtures import SMALL, seeded_network

from engine import device
from engine.checkpoints import registry
from engine.checkpoints.add import add_model
from engine.checkpoints.lrm import read_config
from engine.checkpoints.open import open_model
from engine.errors import Cancelled, WeightsError
from engine.fields.io import field_to_bytes, load_field
from engine.systems.lrm.open import close_lrm, open_lrm, resized

CPU = device.Compute(torch.device("cpu"), torch.float32)
TRIPOSR_YAML = """
cond_image_size: 512

tokenizer_cls: tsr.models.tokenizers.triplane.Triplane1DTokenizer
tokenizer:
  plane_size: 4
  num_channels: 128  # of a token
backbone:
  in_channels: ${tokenizer.num_channels}
  num_attention_heads: 2
  attention_head_dim: 64
  num_layers: 2
  cross_attention_dim: 64
post_processor:
  out_channels: 6
decoder:
  activation: "silu"
renderer:
  radius: 0.5
  density_activation: exp
  density_bias: -1.0
  num_samples_per_ray: 64
"""
OPENLRM_JSON = {
    "camera_embed_dim": 32,
    "encoder_feat_dim": 64,
    "encoder_freeze": False,
    "encoder_model_name": "dinov2_vitb14_reg",
    "encoder_type": "dinov2",
    "rendering_samples_per_ray": 64,
    "transformer_dim": 128,
    "transformer_heads": 2,
    "transformer_layers": 2,
    "triplane_dim": 6,
    "triplane_high_res": 8,
    "triplane_low_res": 4,
}


@pytest.fixture(autouse=True)
def forget():
    yield
    close_lrm()


@pytest.fixture
def models(tmp_path) -> Path:
    return tmp_path / "models"


def published(kind: str, folder: Path) -> Path:
    """A small model as its authors would publish it."""
    state = OrderedDict(seeded_network(SMALL[kind]).state_dict())
    if kind == "triposr":
        path = folder / "model.ckpt"
        torch.save(state, path)
    elif kind == "openlrm":
        path = folder / "model.safetensors"
        safetensors.torch.save_file(state, path)
    else:
        path = folder / "model.pth"
        arguments = {k: v for k, v in OPENLRM_JSON.items() if k != "encoder_type"}
        kwargs = {"model": arguments, "infer": {"source_size": 288, "render_size": 192}}
        torch.save({"weights": state, "kwargs": kwargs}, path)
    return path


@pytest.mark.parametrize("kind", SMALL)
def test_added_and_opened(kind, tmp_path, models):
    info = add_model(published(kind, tmp_path), "thing", models)
    assert info.system == ("triposr" if kind == "triposr" else "openlrm")
    assert info.noncommercial == (kind != "triposr")
    assert info.licence.startswith("MIT" if kind == "triposr" else "CC BY-NC")
    registry.verify(info.path)
    model = open_lrm(info.path, CPU)
    assert open_lrm(info.path, CPU) is model and model.name == "thing"
    assert (model.licence, model.noncommercial) == (info.licence, info.noncommercial)
    wanted = seeded_network(SMALL[kind])
    image = torch.rand(3, 50, 50)
    size = 288 if kind == "openlrm-1.0" else SMALL[kind].input_size
    assert model.config.input_size == size
    planes = wanted(resized(image[None], model.config))[0].detach()
    field = model.field(image)
    torch.testing.assert_close(field.planes, planes, atol=1e-5, rtol=1e-5)
    background = {"triposr": (0.5, 0.85)}.get(kind, (1.0, 0.8))
    assert (model.config.background, model.config.foreground_ratio) == background
    assert load_field(field_to_bytes(field)).kind == "lrm"
    with pytest.raises(WeightsError, match="EG3D"):
        open_model(info.path)


def test_a_lower_precision(tmp_path, models):
    path = add_model(published("triposr", tmp_path), "thing", models).path
    image = torch.rand(3, 40, 40)
    exact = open_lrm(path, CPU).field(image).planes
    low = open_lrm(path, device.Compute(torch.device("cpu"), torch.bfloat16)).field(image).planes
    assert low.dtype == torch.float32 and 0 < (low - exact).std() / exact.std() < 0.02


def test_with_a_config(tmp_path, models):
    yaml, other = tmp_path / "config.yaml", tmp_path / "config.json"
    yaml.write_text(TRIPOSR_YAML)
    other.write_text(json.dumps(OPENLRM_JSON))
    triposr = add_model(published("triposr", tmp_path), "t", models, config=yaml, metres=0.3)
    settings = open_lrm(triposr.path, CPU).config.field
    assert (settings.radius, settings.coarse, settings.metres_per_unit) == (0.5, 64, 0.3)
    openlrm = add_model(published("openlrm", tmp_path), "o", models, config=other)
    settings = open_lrm(openlrm.path, CPU).config.field
    assert (settings.coarse, settings.fine) == (32, 32)


@pytest.mark.parametrize(
    ("kind", "said", "words"),
    [
        ("triposr", TRIPOSR_YAML.replace("num_layers: 2", "num_layers: 16"), "num_layers = 16"),
        ("triposr", TRIPOSR_YAML.replace("${tokenizer.num", "${nothing.num"), "in_channels"),
        ("triposr", TRIPOSR_YAML.replace("bias: -1.0", "bias: 0.0"), "density_bias = 0"),
        ("triposr", TRIPOSR_YAML.replace("radius: 0.5", "radius: wide"), "radius is not a number"),
        ("triposr", TRIPOSR_YAML.replace("radius: 0.5", "radius: -2"), "positive"),
        ("triposr", TRIPOSR_YAML.replace("radius: 0.5", "radius: [1, 2]"), "is not a model's"),
        ("triposr", json.dumps(OPENLRM_JSON), "not describe a model of this kind"),
        ("triposr", "just words", "is not a model's config"),
        ("triposr", "", "is not a model's config"),
        ("openlrm", json.dumps(OPENLRM_JSON | {"transformer_heads": 4}), "transformer_heads = 4"),
        ("openlrm", json.dumps(OPENLRM_JSON | {"encoder_type": "dino"}), "encoder_type = dino"),
        ("openlrm", TRIPOSR_YAML, "not describe a model of this kind"),
        ("openlrm", "{" * 50_000, "is not a model's config"),
    ],
)
def test_a_config_that_does_not_fit(kind, said, words, tmp_path, models):
    config = tmp_path / "config.txt"
    config.write_text(said)
    with pytest.raises(WeightsError, match=words):
        add_model(published(kind, tmp_path), "thing", models, config=config)
    assert not models.exists()


def test_a_config_for_a_model_that_has_none(tmp_path, models):
    import checkpoint_files as files

    path = tmp_path / "eg3d.safetensors"
    safetensors.torch.save_file(files.weights(), path)
    config = tmp_path / "config.yaml"
    config.write_text(TRIPOSR_YAML)
    with pytest.raises(WeightsError, match="config"):
        add_model(path, "thing", models, config=config)
    with pytest.raises(WeightsError, match="cannot be read"):
        add_model(published("triposr", tmp_path), "thing", models, config=tmp_path / "none.yaml")


def changed(kind: str, name: str, tensor: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = dict(seeded_network(SMALL[kind]).state_dict())
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    return state


@pytest.mark.parametrize(
    ("kind", "name", "tensor", "words"),
    [
        ("triposr", "backbone.proj_in.bias", None, "backbone.proj_in.bias is missing"),
        ("triposr", "backbone.proj_in.bias", torch.zeros(9), r"proj_in.bias is \(9,\)"),
        ("triposr", "backbone.extra", torch.zeros(9), "backbone.extra does not belong"),
        ("triposr", "post_processor.upsample.weight", None, "no EG3D generator, and no TripoSR"),
        ("triposr", "decoder.layers.0.weight", None, "published triposr configuration"),
        ("triposr", "tokenizer.embeddings", torch.zeros(7), "published triposr configuration"),
        ("triposr", "backbone.proj_in.bias", torch.full((128,), torch.nan), "not finite"),
        ("openlrm", "camera_embedder.mlp.2.weight", None, "camera_embedder.mlp.2.weight"),
        ("openlrm", "pos_embed", torch.zeros(1, 47, 128), "published openlrm configuration"),
    ],
)
def test_other_weights(kind, name, tensor, words, tmp_path, models):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(changed(kind, name, tensor), path)
    with pytest.raises(WeightsError, match=words):
        add_model(path, "thing", models)
    assert not models.exists() or not list(models.iterdir())


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("share", [0.0001, 0.3, 0.5, 0.999])
def test_half_a_file(kind, share, tmp_path, models):
    path = published(kind, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])
    with pytest.raises(WeightsError):
        add_model(path, "thing", models)
    assert not models.exists()


def test_a_damaged_model(tmp_path, models):
    path = add_model(published("triposr", tmp_path), "thing", models).path
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        open_lrm(path, CPU)
    path.write_bytes(data[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        open_lrm(path, CPU)
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        open_lrm(path, CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [("width", 1 << 20), ("layers", 0), ("layout", "other"), ("encoder", None), ("samples", 2.5)],
)
def test_records_that_ask_for_too_much(key, value, tmp_path, models):
    from engine.checkpoints.model_file import read_model, write_model

    path = add_model(published("openlrm", tmp_path), "thing", models).path
    record, tensors = read_model(path)
    record["config"][key] = value
    write_model(path, record, tensors)
    with pytest.raises(WeightsError):
        open_lrm(path, CPU)


def test_an_eg3d_model_makes_no_objects(tmp_path, models):
    import checkpoint_files as files

    path = tmp_path / "eg3d.safetensors"
    safetensors.torch.save_file(files.weights(), path)
    info = add_model(path, "cars", models)
    with pytest.raises(WeightsError, match="does not make objects"):
        open_lrm(info.path, CPU)


def test_added_again_from_its_own_file(tmp_path, models):
    first = add_model(published("openlrm", tmp_path), "first", models)
    second = add_model(first.path, "second", models)
    assert (second.system, second.licence) == (first.system, first.licence)
    assert open_lrm(second.path, CPU).config == open_lrm(first.path, CPU).config


def test_cancelling(tmp_path, models):
    path = add_model(published("triposr", tmp_path), "thing", models).path

    def stop() -> None:
        raise Cancelled()

    with pytest.raises(Cancelled):
        open_lrm(path, CPU).field(torch.rand(3, 32, 32), stop)
    with pytest.raises(Cancelled):
        add_model(published("openlrm", tmp_path), "other", models, check=stop)
    assert [p.name for p in models.iterdir()] == ["thing.safetensors"]


def test_the_command_line(tmp_path, models, root):
    config = tmp_path / "config.yaml"
    config.write_text(TRIPOSR_YAML)
    command = [sys.executable, "-m", "engine", "model", "add", published("triposr", tmp_path)]
    command += ["--config", config, "--name", "thing", "--models", models, "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["model"]["system"] == "triposr"


def test_plain_configs(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("# c\n---\na: 1\nb:\n  c: 'x y'\n  d: 1.5e-3\ne: true\nf: null\n")
    assert read_config(path) == {"a": 1, "b": {"c": "x y", "d": 1.5e-3}, "e": True, "f": None}
    for text in ("a: 1\n  b: 2\n", "a:\n  b:\n    c: 1\n", "- a\n", "a: &x 1\n", "a: !!b 1\n"):
        path.write_text(text)
        with pytest.raises(WeightsError):
            read_config(path)
