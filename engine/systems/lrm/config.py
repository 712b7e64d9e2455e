"""Configurations of the LRM family: the paper's, OpenLRM's (1.0 and 1.1), TripoSR's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from engine.fields.lrm import LrmSettings
from engine.networks.vit import ViTConfig

# In house axes (x to the object's left, y up, z towards the picture's camera). TripoSR's own are x
# towards the camera, y to the right of the picture, z up, with planes (x, y), (x, z), (y, z);
# OpenLRM's are x to the right, y away from the camera, z up, with planes (x, y), (x, z), (z, y).
TRIPOSR_PAIRS = ((2, 1, 0, 1), (2, 1, 1, 1), (0, 1, 1, 1))
OPENLRM_PAIRS = ((0, 1, 2, -1), (0, 1, 1, 1), (1, 1, 2, -1))
HEAD_WIDTH = 64  # of every published decoder's attention

TRIPOSR_FIELD = LrmSettings(
    pairs=TRIPOSR_PAIRS,
    radius=0.87,
    activation="silu",
    density="exp",
    colour_margin=0.0,
    coarse=128,
    fine=0,
    surface_density=25.0,
    camera_distance=1.9,
    camera_fov=math.radians(40),
)
OPENLRM_FIELD = LrmSettings(
    pairs=OPENLRM_PAIRS,
    radius=1.0,
    activation="relu",
    density="softplus",
    colour_margin=0.001,
    coarse=48,
    fine=48,
    surface_density=3.0,
    camera_distance=2.0,
    camera_fov=2 * math.atan(0.5 / 0.75),
)


@dataclass(frozen=True)
class LrmConfig:
    """Sizes and meanings of one model.

    layout: which published names its parameters have: "triposr", "openlrm", "openlrm-1.0".
    encoder, encoder_kind: the image encoder; normalises: whether it takes ImageNet's mean and
        deviation off the picture.
    input_size: pixels a side of the picture that it takes.
    width, layers: of the decoder, with heads of head_width; plane_size: tokens along a plane's
        side (planes are twice that); channels: of a plane.
    camera_numbers, camera_width: what modulates OpenLRM's layers; 0 for TripoSR.
    decoder_width, decoder_layers: of the field's decoder, the last layer included.
    background: grey level behind the object; foreground_ratio: share of the picture's side that
        the object fills.
    """

    layout: Literal["triposr", "openlrm", "openlrm-1.0"]
    encoder_kind: Literal["dino", "dinov2"]
    encoder: ViTConfig
    normalises: bool
    input_size: int
    width: int
    layers: int
    channels: int
    decoder_layers: int
    field: LrmSettings
    background: float
    foreground_ratio: float
    head_width: int = HEAD_WIDTH
    plane_size: int = 32
    decoder_width: int = 64
    camera_numbers: int = 0
    camera_width: int = 0

    @property
    def heads(self) -> int:
        """Of the decoder's attention."""
        return self.width // self.head_width


DINO_BASE = ViTConfig(width=768, heads=12, patch=16, grid=14)
DINO_SMALL = replace(DINO_BASE, width=384, heads=6)
DINOV2_BASE = ViTConfig(width=768, heads=12, patch=14, grid=37, registers=4)
DINOV2_SMALL = replace(DINOV2_BASE, width=384, heads=6)

TRIPOSR = LrmConfig(
    layout="triposr",
    encoder_kind="dino",
    encoder=replace(DINO_BASE, pooler=True),
    normalises=True,
    input_size=512,
    width=1024,
    layers=16,
    channels=40,
    decoder_layers=10,
    field=TRIPOSR_FIELD,
    background=0.5,
    foreground_ratio=0.85,
)
OPENLRM_BASE = LrmConfig(  # 1.1
    layout="openlrm",
    encoder_kind="dinov2",
    encoder=DINOV2_BASE,
    normalises=False,
    input_size=336,
    width=768,
    layers=12,
    channels=48,
    decoder_layers=4,
    field=OPENLRM_FIELD,
    background=1.0,
    foreground_ratio=0.8,
    camera_numbers=16,
    camera_width=1024,
)
OPENLRM_SMALL = replace(OPENLRM_BASE, encoder=DINOV2_SMALL, input_size=224, width=512, channels=32)
OPENLRM_LARGE = replace(
    OPENLRM_BASE,
    input_size=448,
    width=1024,
    layers=16,
    channels=80,
    field=replace(OPENLRM_FIELD, coarse=64, fine=64),
)
OPENLRM_BASE_1_0 = replace(
    OPENLRM_BASE,
    layout="openlrm-1.0",
    encoder_kind="dino",
    encoder=DINO_BASE,
    normalises=True,
    input_size=224,
    width=1024,
    channels=40,
)
OPENLRM_SMALL_1_0 = replace(OPENLRM_BASE_1_0, encoder=DINO_SMALL, width=768, channels=32)
OPENLRM_LARGE_1_0 = replace(
    OPENLRM_BASE_1_0,
    input_size=448,
    layers=16,
    channels=80,
    field=replace(OPENLRM_FIELD, coarse=64, fine=64),
)
# The paper's own, whose weights were never published: 12 numbers of the camera's pose, then focal
# lengths and principal point, as 16 + 4 there; a decoder of ten layers.
LRM = replace(
    OPENLRM_LARGE_1_0,
    input_size=512,
    camera_numbers=20,
    decoder_layers=10,
)
CONFIGS = {
    "triposr": TRIPOSR,
    "openlrm-small-1.1": OPENLRM_SMALL,
    "openlrm-base-1.1": OPENLRM_BASE,
    "openlrm-large-1.1": OPENLRM_LARGE,
    "openlrm-small-1.0": OPENLRM_SMALL_1_0,
    "openlrm-base-1.0": OPENLRM_BASE_1_0,
    "openlrm-large-1.0": OPENLRM_LARGE_1_0,
    "lrm": LRM,
}
