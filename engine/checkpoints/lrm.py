"""Files of the LRM family: TripoSR's `model.ckpt`, OpenLRM's `model.safetensors` (1.1) and
`model.pth` (1.0). What they are is read from names and shapes; a config beside them must agree.

Standard library only but for the tensors' own module; no network is built here.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.checkpoints.pickle_stream import printable
from engine.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

LICENCES = {
    "triposr": ("MIT (the published TripoSR)", False),
    "openlrm": ("CC BY-NC 4.0 (the published OpenLRM): non-commercial", True),
}
_FIRST = {  # tensors that tell a kind -> its layout
    ("tokenizer.embeddings", "post_processor.upsample.weight"): "triposr",
    ("pos_embed", "upsampler.weight", "camera_embedder.mlp.0.weight"): "openlrm",
    ("transformer.pos_embed", "transformer.deconv.weight"): "openlrm-1.0",
}
_HEAD = 64  # channels of an attention head, in every published model
_INPUT_SIZES = {512: 224, 768: 336, 1024: 448}  # OpenLRM 1.1: by its width
_CONFIG_AT_MOST = 1 << 16
_REMEDY = "Choose the config that was published with this file, or none."


def find_layout(names: Mapping[str, Any]) -> tuple[str, str] | None:
    """(layout, prefix) of the LRM whose tensors are among these names, or None."""
    for wanted, layout in _FIRST.items():
        for name in names:
            prefix = name[: -len(wanted[0])]
            if name.endswith(wanted[0]) and (not prefix or prefix.endswith(".")):
                if all(prefix + other in names for other in wanted):
                    return layout, prefix
    return None


def guess_record(layout: str, shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a model with tensors of these shapes. given: the config's facts (may be empty),
    which settle what shapes cannot tell and must agree with the rest. Raises WeightsError."""
    system = "triposr" if layout == "triposr" else "openlrm"
    try:
        config = _triposr(shapes) if layout == "triposr" else _openlrm(layout, shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"The tensors are not those of a published {system} configuration.",
            "Choose the whole file, as it was published.",
        ) from error
    if isinstance(given.get("model"), Mapping):  # OpenLRM 1.0 and its kind
        extra = given.get("infer")
        given = {**given["model"], **(extra if isinstance(extra, Mapping) else {})}
    if given:
        (_compare_triposr if system == "triposr" else _compare_openlrm)(config, given)
    licence, noncommercial = LICENCES[system]
    return {
        "system": system,
        "config": config,
        "metres_per_unit": None,
        "licence": licence,
        "noncommercial": noncommercial,
    }


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different numbers stand in place of # in the names."""
    found = re.compile(re.escape(pattern).replace(r"\#", r"(\d+)"))
    return len({m[1] for m in map(found.match, shapes) if m})


def _side(tokens: int) -> int:
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError("tokens do not fill a square")
    return side


def _triposr(shapes: Shapes) -> dict[str, Any]:
    encoder = _dino(shapes, "image_tokenizer.model")
    _, width, size, _ = shapes["tokenizer.embeddings"]
    layers = _count(shapes, "decoder.layers.#.weight")
    return {
        "layout": "triposr",
        "encoder_kind": "dino",
        "encoder": encoder,
        "input_size": 512,
        "width": width,
        "layers": _count(shapes, "backbone.transformer_blocks.#.norm1.weight"),
        "plane_size": size,
        "channels": shapes["post_processor.upsample.weight"][1],
        "decoder_layers": layers,
        "decoder_width": shapes["decoder.layers.0.weight"][0],
        "samples": 128,
        "radius": 0.87,
    }


def _openlrm(layout: str, shapes: Shapes) -> dict[str, Any]:
    old = layout == "openlrm-1.0"
    dinov2 = "encoder.model.pos_embed" in shapes
    start = shapes["transformer.pos_embed" if old else "pos_embed"]
    width, channels = shapes["transformer.deconv.weight" if old else "upsampler.weight"][:2]
    layers = _count(shapes, "transformer.layers.#.norm1.norm.weight")
    return {
        "layout": layout,
        "encoder_kind": "dinov2" if dinov2 else "dino",
        "encoder": (_dinov2 if dinov2 else _dino)(shapes, "encoder.model"),
        "input_size": (448 if layers > 12 else 224) if old else _INPUT_SIZES.get(width, 224),
        "width": width,
        "layers": layers,
        "plane_size": _side(start[1] // 3),
        "channels": channels,
        "decoder_layers": _count(shapes, "synthesizer.decoder.net.#.weight"),
        "decoder_width": shapes["synthesizer.decoder.net.0.weight"][0],
        "camera_numbers": shapes["camera_embedder.mlp.0.weight"][1],
        "camera_width": shapes["camera_embedder.mlp.0.weight"][0],
        "samples": 128 if layers > 12 else 96,
        "radius": 1.0,
    }


def _dino(shapes: Shapes, root: str) -> dict[str, Any]:
    width, _, patch, _ = shapes[f"{root}.embeddings.patch_embeddings.projection.weight"]
    return {
        "width": width,
        "layers": _count(shapes, f"{root}.encoder.layer.#.layernorm_before.weight"),
        "heads": width // _HEAD,
        "patch": patch,
        "grid": _side(shapes[f"{root}.embeddings.position_embeddings"][1] - 1),
        "registers": 0,
        "pooler": f"{root}.pooler.dense.weight" in shapes,
    }


def _dinov2(shapes: Shapes, root: str) -> dict[str, Any]:
    width, _, patch, _ = shapes[f"{root}.patch_embed.proj.weight"]
    registers = shapes.get(f"{root}.register_tokens", (1, 0))[1]
    return {
        "width": width,
        "layers": _count(shapes, f"{root}.blocks.#.norm1.weight"),
        "heads": width // _HEAD,
        "patch": patch,
        "grid": _side(shapes[f"{root}.pos_embed"][1] - 1),
        "registers": registers,
        "pooler": False,
    }


def _compare_triposr(config: dict[str, Any], given: Mapping[str, Any]) -> None:
    known = {
        "tokenizer.plane_size": config["plane_size"],
        "tokenizer.num_channels": config["width"],
        "backbone.in_channels": config["width"],
        "backbone.num_attention_heads": config["width"] // _HEAD,
        "backbone.attention_head_dim": _HEAD,
        "backbone.num_layers": config["layers"],
        "backbone.cross_attention_dim": config["encoder"]["width"],
        "post_processor.in_channels": config["width"],
        "post_processor.out_channels": config["channels"],
        "decoder.in_channels": 3 * config["channels"],
        "decoder.n_neurons": config["decoder_width"],
        "decoder.n_hidden_layers": config["decoder_layers"] - 1,
        "decoder.activation": "silu",
        "renderer.feature_reduction": "concat",
        "renderer.density_activation": "exp",
        "renderer.density_bias": -1.0,
    }
    _compare(known, given, "tokenizer")
    config["input_size"] = _number(given, "cond_image_size", config["input_size"])
    config["samples"] = _number(given, "renderer.num_samples_per_ray", config["samples"])
    config["radius"] = _number(given, "renderer.radius", config["radius"])


def _compare_openlrm(config: dict[str, Any], given: Mapping[str, Any]) -> None:
    known = {
        "camera_embed_dim": config["camera_width"],
        "encoder_feat_dim": config["encoder"]["width"],
        "encoder_type": config["encoder_kind"],
        "transformer_dim": config["width"],
        "transformer_heads": config["width"] // _HEAD,
        "transformer_layers": config["layers"],
        "triplane_dim": config["channels"],
        "triplane_high_res": 2 * config["plane_size"],
        "triplane_low_res": config["plane_size"],
    }
    _compare(known, given, "transformer_dim")
    config["samples"] = _number(given, "rendering_samples_per_ray", config["samples"])
    config["input_size"] = _number(given, "source_size", config["input_size"])


def _compare(known: Mapping[str, Any], given: Mapping[str, Any], sure: str) -> None:
    """Raises WeightsError unless what the config says is what the weights show."""
    flat = _flat(given)
    if not any(name == sure or name.startswith(f"{sure}.") for name in flat):
        raise WeightsError("The config does not describe a model of this kind.", _REMEDY)
    for name, value in known.items():
        said = flat.get(name, value)
        if said != value:
            raise WeightsError(
                f"The config says {name} = {printable(str(said))}, but the weights have {value}.",
                _REMEDY,
            )


def _number(given: Mapping[str, Any], name: str, default: float) -> Any:
    value = _flat(given).get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WeightsError(f"The config's {name} is not a number.", _REMEDY)
    return value


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in given.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[str(key)] = value
    for key, value in flat.items():  # ${other.name} stands for that name's value
        if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
            flat[key] = flat.get(match[1])
    return flat


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """A config.json, or a config.yaml of plain values at most one level deep. Raises
    WeightsError."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"The config {path.name} cannot be read: {error.strerror or error}.",
            "Check where the file is.",
        ) from error
    try:
        if len(data) > _CONFIG_AT_MOST:
            raise ValueError("too long")
        text = data.decode("utf-8")
        value = json.loads(text) if text.lstrip().startswith("{") else _yaml(text)
        if not isinstance(value, dict) or not value:
            raise ValueError("no settings")
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path.name} is not a model's config.", _REMEDY) from error
    return value


_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?: +(?P<value>.*\S))? *")


def _yaml(text: str) -> dict[str, Any]:
    """`key: value` lines, and `key:` lines with indented ones below: all that such files hold.
    Raises ValueError for anything else."""
    found: dict[str, Any] = {}
    inner: dict[str, Any] | None = None
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", line)
        if not line.strip() or line.strip() == "---":
            continue
        match = _LINE.fullmatch(line)
        if match is None or (match["indent"] and inner is None):
            raise ValueError("not a line of settings")
        place = inner if match["indent"] and inner is not None else found
        if match["value"] is not None:
            place[match["key"]] = _scalar(match["value"])
            inner = inner if match["indent"] else None
        elif match["indent"]:
            raise ValueError("too deep")
        else:
            inner = found[match["key"]] = {}
    return found


def _scalar(text: str) -> Any:
    if text[0] in "\"'" and text[-1] == text[0] and len(text) > 1:
        return text[1:-1]
    words = {"true": True, "false": False, "null": None, "~": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text[0] in "[{&*!|>%@`":
        raise ValueError("not a plain value")
    return text
