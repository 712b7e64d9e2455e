"""A model file's record <-> the configuration that it describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.errors import WeightsError
from engine.networks.vit import ViTConfig
from engine.systems.lrm.config import OPENLRM_BASE, OPENLRM_FIELD, TRIPOSR, TRIPOSR_FIELD, LrmConfig

# Beyond what any model was trained with: a record that asks for more is not to be trusted.
_BOUNDS = {
    "input_size": 1024, "width": 4096, "layers": 64, "plane_size": 128, "channels": 512,
    "decoder_layers": 32, "decoder_width": 512, "samples": 1024, "camera_width": 8192,
}  # fmt: skip
_ENCODER_BOUNDS = {"width": 4096, "layers": 64, "heads": 64, "patch": 64, "grid": 128}
SYSTEMS = ("triposr", "openlrm")


def config_from_record(record: Mapping[str, Any]) -> LrmConfig:
    """The configuration of a record of the system "triposr" or "openlrm". Raises WeightsError, in
    one sentence, for what is missing, malformed or not supported."""
    facts, system = record.get("config"), record.get("system")
    if system not in SYSTEMS:
        raise WeightsError(
            "The model does not make objects from pictures.", "Choose a TripoSR or OpenLRM model."
        )
    if not isinstance(facts, Mapping) or not isinstance(facts.get("encoder"), Mapping):
        raise WeightsError("The model's record lacks its sizes.")
    whole = {k: _whole(facts, k, most) for k, most in _BOUNDS.items() if k != "camera_width"}
    layout, kind = facts.get("layout"), facts.get("encoder_kind")
    layouts = ("triposr",) if system == "triposr" else ("openlrm", "openlrm-1.0")
    if layout not in layouts or kind not in ("dino", "dinov2"):
        raise WeightsError("The model's record names a layout that Triplane does not know.")
    inner = facts["encoder"]
    encoder = ViTConfig(
        **{k: _whole(inner, k, most) for k, most in _ENCODER_BOUNDS.items()},
        registers=_whole(inner, "registers", 64, 0),
        pooler=bool(inner.get("pooler", False)),
    )
    samples = whole.pop("samples")
    like, field = (TRIPOSR, TRIPOSR_FIELD) if system == "triposr" else (OPENLRM_BASE, OPENLRM_FIELD)
    metres = record.get("metres_per_unit")
    field = replace(
        field,
        radius=_number(facts, "radius"),
        coarse=samples if field.fine == 0 else samples // 2,
        fine=0 if field.fine == 0 else samples // 2,
        metres_per_unit=1.0 if metres is None else _number(record, "metres_per_unit"),
    )
    config = LrmConfig(
        **whole,
        layout=layout,
        encoder_kind=kind,
        encoder=encoder,
        normalises=kind == "dino",
        field=field,
        background=like.background,
        foreground_ratio=like.foreground_ratio,
        camera_numbers=0 if system == "triposr" else _whole(facts, "camera_numbers", 20, 16),
        camera_width=0 if system == "triposr" else _whole(facts, "camera_width", 8192),
    )
    fits = (
        config.input_size % encoder.patch == 0
        and config.width % config.head_width == 0
        and encoder.width % encoder.heads == 0
        and config.decoder_layers >= 2
        and samples >= 8
        and config.camera_numbers in (0, 16, 20)
    )
    if not fits:
        raise WeightsError("The sizes in the model's record do not fit together.")
    return config


def _whole(facts: Mapping[str, Any], name: str, most: int, least: int = 1) -> int:
    value = facts.get(name)
    if type(value) is not int or not least <= value <= most:
        raise WeightsError(f"The model's record has no usable {name}.")
    return value


def _number(facts: Mapping[str, Any], name: str) -> float:
    value = facts.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WeightsError(f"The model's record has no usable {name}.")
    if not math.isfinite(value) or not value > 0:
        raise WeightsError(f"The model's {name} is not a positive number.")
    return float(value)
