"""Random people: shape, expression, skin, hair, beard, glasses, garment. Plain JSON parameters."""

from __future__ import annotations

import numpy as np

from engine.training.heads.pack import Pack

BALD = "bald"
LONG_HAIR = ("long01", "bob01", "bob02", "braid01")  # these cover the ears
ETHNICITIES = ("african", "asian", "caucasian")
SLIDER_SD = {
    "head": 0.17,
    "forehead": 0.3,
    "eyebrows": 0.35,
    "eyes": 0.28,
    "nose": 0.32,
    "cheek": 0.35,
    "mouth": 0.3,
    "chin": 0.32,
    "ears": 0.4,
    "neck": 0.18,
    "asym": 0.125,
    "measure": 0.25,
}
# name: (probability, {unit: range}); ranges by eye: beyond them the units break the mesh
EXPRESSIONS: dict[str, tuple[float, dict[str, tuple[float, float]]]] = {
    "neutral": (0.22, {}),
    "smile": (
        0.2,
        {
            "mouth-corner-puller": (0.3, 0.8),
            "eye-left-slit": (0, 0.3),
            "eye-right-slit": (0, 0.3),
        },
    ),
    "smile_open": (
        0.17,
        {
            "mouth-corner-puller": (0.25, 0.6),
            "mouth-upward-retraction": (0.25, 0.6),
            "mouth-part-later": (0, 0.15),
            "eye-left-slit": (0.05, 0.35),
            "eye-right-slit": (0.05, 0.35),
        },
    ),
    "laugh": (
        0.07,
        {
            "mouth-corner-puller": (0.4, 0.7),
            "mouth-upward-retraction": (0.3, 0.6),
            "mouth-open": (0.1, 0.3),
            "eye-left-slit": (0.2, 0.5),
            "eye-right-slit": (0.2, 0.5),
        },
    ),
    "open": (0.05, {"mouth-open": (0.08, 0.4)}),
    "parted": (0.07, {"mouth-parling": (0.2, 0.8)}),
    "surprise": (
        0.04,
        {
            "mouth-open": (0.1, 0.4),
            "eyebrows-left-up": (0.4, 1),
            "eyebrows-right-up": (0.4, 1),
            "eye-left-opened-up": (0.3, 0.9),
            "eye-right-opened-up": (0.3, 0.9),
        },
    ),
    "angry": (
        0.04,
        {
            "eyebrows-left-down": (0.4, 1),
            "eyebrows-right-down": (0.4, 1),
            "mouth-compression": (0.1, 0.6),
            "nose-compression": (0, 0.5),
        },
    ),
    "sad": (
        0.04,
        {
            "eyebrows-left-inner-up": (0.4, 1),
            "eyebrows-right-inner-up": (0.4, 1),
            "mouth-depression": (0.1, 0.45),
        },
    ),
    "purse": (0.02, {"mouth-pursing": (0.1, 0.5)}),
    "disgust": (
        0.02,
        {
            "mouth-elevation": (0.1, 0.4),
            "nose-left-elevation": (0.3, 0.8),
            "nose-right-elevation": (0.3, 0.8),
            "eye-left-slit": (0.1, 0.4),
            "eye-right-slit": (0.1, 0.4),
        },
    ),
    "smirk": (0.03, {"mouth-retraction": (0.2, 0.7)}),
    "pout": (0.02, {"mouth-eversion": (0.05, 0.25), "mouth-compression": (0, 0.3)}),
    "blink": (0.02, {"eye-left-closure": (0.85, 1), "eye-right-closure": (0.85, 1)}),
    "halfclosed": (0.02, {"eye-left-closure": (0.15, 0.45), "eye-right-closure": (0.15, 0.45)}),
}
HAIR_OF_MEN = {
    "short01": 0.25,
    "short02": 0.2,
    "short04": 0.2,
    "afro01": 0.07,
    "ponytail01": 0.03,
    "long01": 0.03,
    BALD: 0.22,
}
HAIR_OF_WOMEN = {
    "bob01": 0.09,  # these two hide an eye
    "bob02": 0.09,
    "braid01": 0.1,
    "long01": 0.23,
    "ponytail01": 0.2,
    "short03": 0.14,
    "afro01": 0.06,
    "short04": 0.03,
    BALD: 0.08,
}
HAIR_TONES = {  # linear RGB
    "black": (0.015, 0.012, 0.01),
    "darkbrown": (0.05, 0.028, 0.016),
    "brown": (0.11, 0.06, 0.03),
    "lightbrown": (0.22, 0.13, 0.065),
    "blond": (0.55, 0.38, 0.2),
    "platinum": (0.72, 0.6, 0.44),
    "red": (0.25, 0.07, 0.02),
    "grey": (0.38, 0.37, 0.36),
    "white": (0.75, 0.74, 0.72),
}
NECKLINES = {"crew": (0.45, -0.98), "scoop": (0.2, -1.05), "v": (0.2, -1.0), "high": (0.15, -0.88)}


def _pick(rng: np.random.Generator, weights: dict[str, float]) -> str:
    p = np.array(list(weights.values()), float)
    return str(rng.choice(list(weights), p=p / p.sum()))


def _floats(values) -> list[float]:
    return [float(x) for x in values]


def _sliders(pack: Pack, rng: np.random.Generator, hair: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for key, (low, _) in pack.sliders.items():
        region, name = key.split("/")
        if low is None:  # face shape classes (oval, round, ...) and other one-way sliders
            x = rng.normal() * 0.26 - 0.12 if region == "head" else rng.normal() * 0.2
            out[key] = max(0.0, x)
        else:
            out[key] = float(np.clip(rng.normal() * SLIDER_SD[region], -1, 1))
        if "trans" in name and region in ("head", "neck"):
            out[key] *= 0.3
        if "head-age" in name or "head-fat" in name:
            out[key] *= 1.5
    for key in list(out):  # the two sides of a face differ only a little
        region, name = key.split("/")
        twin = f"{region}/r-{name[2:]}"
        if name.startswith("l-") and twin in out:
            out[twin] = out[key] + (0.06 * rng.normal() if region != "eyes" else 0.0)
    if hair in LONG_HAIR:  # or the ears poke through
        for key in out:
            if key.startswith("ears/"):
                low_only = "scale" in key or "wing" in key
                out[key] = (min(out[key], 0.0) if low_only else out[key]) * 0.3
        for side in "lr":
            out[f"ears/{side}-ear-wing-decr|incr"] = -0.8
            out[f"ears/{side}-ear-scale-decr|incr"] = -0.4
    return {k: float(x) for k, x in out.items() if x}


def _expression(rng: np.random.Generator) -> tuple[str, dict[str, float]]:
    name = _pick(rng, {k: p for k, (p, _) in EXPRESSIONS.items()})
    units = {u: float(rng.uniform(*r)) for u, r in EXPRESSIONS[name][1].items()}
    for unit in list(units):
        twin = unit.replace("left", "right")
        if twin != unit and rng.random() < 0.85:
            units[twin] = units[unit]
    return name, units


def _hair_colour(rng: np.random.Generator, ethnicity: str, years: float) -> list[float]:
    if years > 54 and rng.random() < 0.75:
        odds = {"grey": 0.6, "white": 0.4}
    elif ethnicity == "caucasian":
        odds = {
            "black": 0.08,
            "darkbrown": 0.22,
            "brown": 0.22,
            "lightbrown": 0.16,
            "blond": 0.18,
            "platinum": 0.04,
            "red": 0.1,
        }
    else:
        odds = {"black": 0.6, "darkbrown": 0.3, "brown": 0.08, "red": 0.02}
    colour = np.array(HAIR_TONES[_pick(rng, odds)])
    warmth = rng.normal() * np.array([0.10, 0, -0.12]) + rng.normal(size=3) * 0.03
    colour = colour * np.exp(rng.normal() * 0.25 + warmth)
    if rng.random() < 0.04:
        colour = rng.uniform(0.03, 0.6, 3)  # dyed
    return _floats(np.clip(colour, 0.005, 0.62))


def _beard(rng: np.random.Generator) -> dict:
    stubble = rng.choice([0, rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.85)], p=[0.35, 0.4, 0.25])
    length = rng.choice([0, rng.uniform(3, 10), rng.uniform(8, 28)], p=[0.6, 0.25, 0.15])
    if length:
        stubble = max(stubble, 0.75)
    style = rng.choice(["full", "goatee", "moustache"], p=[0.6, 0.25, 0.15])
    return {"stubble": float(stubble), "length": float(length), "style": str(style)}


def _glasses(rng: np.random.Generator) -> dict:
    tint = rng.uniform(0.01, 0.12) * np.exp(rng.normal(size=3) * 0.5)
    return {
        "width": float(rng.uniform(0.72, 0.92)),  # of the distance between the eyes
        "height": float(rng.uniform(0.5, 0.8)),
        "power": float(rng.uniform(2, 4.5)),  # of the superellipse: 2 round, 4 squarish
        "radius": float(rng.uniform(0.012, 0.035)),  # of the rim, decimetres
        "gap": float(rng.uniform(0.11, 0.19)),  # in front of the pupils, decimetres
        "colour": _floats(tint.clip(0.005, 0.6)),
    }


def _hair_warp(rng: np.random.Generator) -> dict:
    return {
        "inflate": float(rng.uniform(0.6, 1.5)),
        "length": float(rng.uniform(0.5, 1.15)),
        "mirror": bool(rng.random() < 0.5),
        "noise": float(rng.uniform(0.02, 0.07)),  # decimetres
        "seed": int(rng.integers(1 << 30)),
    }


def sample_params(pack: Pack, rng: np.random.Generator) -> dict:
    """One random person as JSON values. Years 14..80; colours linear RGB; angles in degrees."""
    gender = float(np.clip(rng.choice([0.05, 0.95]) + rng.normal() * 0.12, 0, 1))
    male = gender > 0.5
    band = [(14, 20), (18, 45), (40, 80)][rng.choice(3, p=[0.1, 0.6, 0.3])]
    years = float(rng.uniform(*band))
    mix = dict(zip(ETHNICITIES, _floats(rng.dirichlet([0.45] * 3)), strict=True))
    ethnicity = max(mix, key=mix.get)
    hair = _pick(rng, HAIR_OF_MEN if male else HAIR_OF_WOMEN)
    if hair == "afro01" and ethnicity != "african" and rng.random() < 0.7:
        hair = "short02" if male else "bob02"
    stage = "old" if years > 64 else "middleage" if years > 41 else "young"
    prefix = f"{stage}_{ethnicity}_{'male' if male else 'female'}"
    expression, units = _expression(rng)
    brown_only = {"brown": 0.75, "brownlight": 0.25}
    eye = _pick(rng, dict.fromkeys(pack.eye_colours, 1) if ethnicity == "caucasian" else brown_only)
    iris = {"brown": (0.62, 1.15, 1.1), "brownlight": (0.8, 1.0, 1.0)}.get(eye, (1, 1, 1))
    neckline = _pick(rng, {k: p for k, (p, _) in NECKLINES.items()})
    lips = None
    if not male and rng.random() < 0.4:
        lips = _floats([*rng.uniform([0.35, 0.02, 0.04], [0.8, 0.2, 0.25]), rng.uniform(0.2, 0.8)])
    no_beard = {"stubble": 0.0, "length": 0.0, "style": "full"}
    shirt = rng.uniform(0.02, 0.8) * np.clip(1 + rng.normal(size=3) * 0.4, 0.1, 2)
    return {
        "gender": gender,
        "years": years,
        "ethnicity": mix,
        "weight": float(np.clip(0.5 + 0.22 * rng.normal(), 0, 1)),
        "muscle": float(np.clip(0.5 + 0.2 * rng.normal(), 0, 1)),
        "sliders": _sliders(pack, rng, hair),
        "expression_name": expression,
        "expression": units,
        "gaze": [
            float(np.clip(rng.normal() * 7, -18, 18)),
            float(np.clip(rng.normal() * 4, -10, 10)),
        ],
        "neck": _floats(rng.normal(size=3) * [12, 5, 4]),
        "skin": str(rng.choice([s for s in pack.skins if s.startswith(prefix)])),
        "skin_gain": _floats(
            np.exp(rng.normal() * 0.16 + rng.normal(size=3) * [0.05, 0.035, 0.06])
        ),
        "skin_rough": float(rng.uniform(0.4, 0.7)),
        "lips": lips,
        "hair": hair,
        "hair_warp": _hair_warp(rng),
        "hair_colour": _hair_colour(rng, ethnicity, years),
        "brow": f"eyebrow{rng.integers(1, 13):03d}",
        "lash": None if male and rng.random() < 0.65 else f"eyelashes{rng.integers(1, 5):02d}",
        "eye": eye,
        "iris_gain": _floats(
            np.array(iris) * np.exp(rng.normal() * 0.25 + rng.normal(size=3) * 0.12)
        ),
        "beard": _beard(rng) if male and years > 20 else no_beard,
        "glasses": _glasses(rng) if rng.random() < 0.15 else None,
        "shirt_colour": _floats(shirt.clip(0.01, 0.85)),
        "neckline": neckline,
        "neckline_height": float(NECKLINES[neckline][1] - abs(rng.normal() * 0.025)),
    }


def mean_params() -> dict:
    """The average neutral adult: gender 0.5, 30 years, ethnicities 1/3, all sliders zero, bald."""
    return {
        "gender": 0.5,
        "years": 30.0,
        "ethnicity": dict.fromkeys(ETHNICITIES, 1 / 3),
        "weight": 0.5,
        "muscle": 0.5,
        "sliders": {},
        "expression_name": "neutral",
        "expression": {},
        "gaze": [0.0, 0.0],
        "neck": [0.0, 0.0, 0.0],
    }
