"""How each part of a head covers, shades and is labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.training.heads import raster, shading
from engine.training.heads.pack import Pack
from engine.training.heads.parts import GARMENT, GLASSES, HAIR, SKIN
from engine.training.heads.skinmap import soft


@dataclass(frozen=True)
class Material:
    """cover: raster's OPAQUE.., kind: shading's SURFACE.., cull: draw fronts only, label: class,
    wrap: light bends round, bias: shadow bias in metres."""

    cover: int
    kind: int
    cull: bool
    label: int
    wrap: bool = False
    bias: float = 0.0012


_O, _S = raster.OPAQUE, shading.SURFACE
_STRANDS = Material(raster.STRANDS, shading.STRAND, False, HAIR, True, 0.005)
MATERIALS = {  # opaque ones first: the rasteriser relies on it
    "skin": Material(_O, _S, True, SKIN),
    "cap": Material(_O, _S, True, SKIN),
    "tongue": Material(_O, _S, False, SKIN),
    "teeth": Material(_O, _S, True, SKIN),
    "eyes": Material(_O, _S, True, SKIN),
    "shirt": Material(_O, _S, True, GARMENT),
    "collar": Material(_O, _S, False, GARMENT, True, bias=0.02),
    "hat": Material(_O, _S, True, GARMENT, bias=0.004),
    "scarf": Material(_O, _S, False, GARMENT, bias=0.004),
    "earrings": Material(_O, _S, False, GARMENT),
    "frame": Material(_O, _S, False, GLASSES),
    "cornea": Material(raster.GLASS, shading.CLEAR, False, SKIN, bias=0.005),
    "lens": Material(raster.GLASS, shading.CLEAR, False, GLASSES),
    "brow": Material(raster.DECAL, shading.STRAND, False, SKIN, bias=0.005),
    "lash": Material(raster.DECAL, shading.STRAND, False, SKIN, bias=0.005),
    "beard": _STRANDS,
    "hair": _STRANDS,
    "pressed": _STRANDS,  # hair under a hat
}
DRESS = ("shirt", "collar", "hat", "scarf", "earrings", "frame", "lens", "pressed")
COVERS = ("hat", "scarf")  # over the hair: it shows as 'pressed' or not at all
HAIRS = ("hair", "pressed")
CASTERS = ("skin", "cap", "hair", "pressed", "hat", "scarf")


def drawn(names: list[str], dressed: bool) -> np.ndarray:
    """Which parts a dressed or a bare head shows, bool [N]."""
    covered = dressed and any(k in names for k in COVERS)
    return np.array([(dressed or k not in DRESS) and not (covered and k == "hair") for k in names])


def looks(p: dict) -> dict[str, tuple]:
    """Tint (linear RGB), specular strength and roughness of every part; of clear parts the second
    is the share of light that passes."""
    hair = np.array(p.get("hair_colour", (0.1, 0.1, 0.1)))
    second = p.get("material", 1) == 2
    wear = p.get("glasses") or {}
    gear = p.get("headgear") or {}
    skin = p.get("skin_gain", (0.5, 0.5, 0.5))
    shirt = p.get("shirt_colour", (0.5, 0.5, 0.5))
    white = 0.66 if second else 0.85
    return {
        "skin": (skin, p["surface"]["shine"] if second else 1.0, p.get("skin_rough", 0.6)),
        "cap": (skin, 1.0, 0.9),
        "tongue": ((0.45, 0.12, 0.11), 1.0, 0.4),
        "teeth": ((0.7, 0.66, 0.57), 1.0, 0.3),
        "eyes": ((white, white, white), 0.03 if second else 0.5, 0.3),
        "shirt": (shirt, 0.4, 0.9),
        "collar": (shirt, 0.4, 0.9),
        "hat": (gear.get("colour", shirt), 0.4, 0.9),
        "scarf": (gear.get("colour", shirt), 0.4, 0.9),
        "earrings": ((p.get("earrings") or {}).get("colour", shirt), 6.0, 0.3),
        "frame": (wear.get("colour", (0, 0, 0)), 5.0 if wear.get("metal") else 1.0, 0.3),
        "cornea": ((1, 1, 1), 1.0, 0.65 if second else 0.05),
        "lens": (wear.get("tint", (1, 1, 1)), 1.0 - wear.get("density", 0.0), 0.05),
        "brow": (hair * 0.7, 0.3, 0.5),
        "lash": (hair * 0.3, 0.3, 0.5),
        "beard": (hair * 0.75, 0.4, 0.5),
        "hair": (hair, 1.0, 0.45),
        "pressed": (hair, 1.0, 0.45),
    }


def gloss(pack: Pack, index: np.ndarray, lip_gloss: float) -> np.ndarray:
    """How much more or less skin vertices shine than the mean, float32 [V]: nose, forehead and
    lips more, cheeks' sides and neck less. index: the pack's vertex indices."""
    x, y, z = pack.rest[index].T
    out = 0.45 + 0.35 * soft(z, 1.0, 1.45) * soft(y, 6.2, 6.5)
    out += 0.4 * np.exp(-((x / 0.12) ** 2 + ((y - 7.05) / 0.2) ** 2)) * (z > 1.3)
    out += 0.25 * np.exp(-((x / 0.35) ** 2 + ((y - 7.75) / 0.2) ** 2)) * (z > 1.0)
    lips = pack.lip_mask[index]
    return (out * (1 - lips) + 0.9 * lip_gloss * lips).astype(np.float32)
