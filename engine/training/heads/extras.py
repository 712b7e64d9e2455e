"""Material 2: what later heads have and the first ones lack, as more parameters.

The person of a seed (stream 0: shape, hair style, glasses or none) stays what it was; everything
here comes from a stream of its own (`head_rng(seed, 2)`), so that adding to it changes no head made
with material 1. Seeds with shards made before (see `material_of`) stay with material 1.
"""

from __future__ import annotations

import numpy as np

from engine.training.heads.pack import Pack
from engine.training.heads.sampler import BALD, ETHNICITIES, EXPRESSIONS, NECKLINES

FIRST_SEEDS = (range(0, 2000), range(1_000_000, 1_000_100))  # their shards hold material 1
MELANIN = {"african": (0.72, 0.17), "asian": (0.26, 0.13), "caucasian": (0.13, 0.10)}  # mean, sd
LIGHTEST = np.array([0.64, 0.41, 0.3])  # linear albedo of a face without melanin
ABSORPTION = np.array([1.6, 1.93, 2.3])  # of melanin 1, natural logarithm
# name: probability. Calm faces are the rule in portraits; strong ones stay rare.
MOODS = {
    "neutral": 0.33,
    "smile": 0.27,
    "smile_open": 0.16,
    "parted": 0.06,
    "open": 0.03,
    "laugh": 0.03,
    "smirk": 0.03,
    "surprise": 0.02,
    "sad": 0.02,
    "angry": 0.015,
    "purse": 0.015,
    "blink": 0.02,
    "halfclosed": 0.015,
    "pout": 0.01,
}
IRIS = {  # gain of each picture: some are too vivid for a face
    "blue": (1.6, 1.1, 1.0), "bluegreen": (0.45, 0.36, 0.36), "brown": (0.9, 6.0, 1.0),
    "brownlight": (0.75, 0.75, 1.1), "deepblue": (1.3, 1.5, 1.2), "green": (1.5, 0.95, 1.2),
    "grey": (0.5, 0.45, 0.55), "ice": (0.55, 0.5, 0.8), "lightblue": (0.65, 0.5, 0.5),
}  # fmt: skip
CLOTHS = {"plain": 0.4, "knit": 0.2, "stripes": 0.13, "checks": 0.12, "denim": 0.15}
HAT_CLOTHS = {"plain": 0.75, "denim": 0.2, "checks": 0.05}
HATS = {"cap": 0.4, "beanie": 0.35, "brim": 0.25}
HAT_SHARE, SCARF_SHARE, GLASSES_SHARE = 0.13, 0.02, 0.2
FRAMES = {"round": 0.2, "box": 0.27, "aviator": 0.13, "cat": 0.1, "brow": 0.14, "rimless": 0.16}
METALS = ((0.55, 0.4, 0.16), (0.5, 0.5, 0.52), (0.1, 0.1, 0.11))
ACETATES = ((0.012, 0.012, 0.013), (0.09, 0.035, 0.012), (0.03, 0.02, 0.06), (0.35, 0.3, 0.25))


def material_of(seed: int) -> int:
    """1 for the seeds whose shards were made before there was more, 2 for all others."""
    return 1 if any(seed in seeds for seeds in FIRST_SEEDS) else 2


def _floats(values) -> list[float]:
    return [float(x) for x in values]


def _pick(rng: np.random.Generator, weights: dict) -> str:
    p = np.array(list(weights.values()), float)
    return str(rng.choice(list(weights), p=p / p.sum()))


def _calm_sliders(sliders: dict[str, float], hair: str) -> dict[str, float]:
    """The same face with its extremes pulled in: beyond 0.5 a slider moves at a third, and a bare
    skull, which nothing hides, keeps nearer to the mean."""
    skull = 0.35 if hair == BALD else 0.75
    out = {}
    for key, x in sliders.items():
        region = key.split("/")[0]
        x = x * skull if region == "head" else x
        big = abs(x) - 0.5
        out[key] = float(np.sign(x) * (0.5 + big / 3)) if big > 0 else float(x)
    return out


def _expression(rng: np.random.Generator) -> tuple[str, dict[str, float]]:
    """As the sampler's, but calmer, with the small unevenness of real faces."""
    name = _pick(rng, MOODS)
    strength = 1.0 if name in ("blink", "halfclosed") else float(rng.beta(3, 2))
    units = {}
    for unit, (low, high) in EXPRESSIONS[name][1].items():
        low, high = (low, high) if strength == 1.0 else (0.5 * low, 0.5 * low + 0.5 * high)
        units[unit] = float(rng.uniform(low, high))
    for unit in list(units):
        twin = unit.replace("left", "right")
        if twin != unit:
            units[twin] = units[unit] * float(rng.uniform(0.85, 1.15))
    if name in ("neutral", "smile", "parted", "smirk"):
        lift = float(np.clip(rng.normal() * 0.12, -0.05, 0.3))
        for side in ("left", "right"):
            units[f"eyebrows-{side}-up"] = max(0.0, lift)
    return name, units


def _tone(rng: np.random.Generator, mix: dict[str, float]) -> tuple[float, list[float]]:
    """Melanin (0..1.05) and the linear albedo of the face: absorption by melanin, and a little more
    or less blood and carotene."""
    mean = sum(mix[e] * MELANIN[e][0] for e in ETHNICITIES)
    sd = sum(mix[e] * MELANIN[e][1] for e in ETHNICITIES)
    melanin = float(np.clip(mean + sd * rng.normal(), 0, 1.05))
    blood, carotene = rng.normal() * 0.06, rng.normal() * 0.07
    hue = np.array([0.35 * blood, -0.8 * blood, -0.7 * blood - carotene])
    return melanin, _floats(LIGHTEST * np.exp(-melanin * ABSORPTION + hue))


def _hair_colour(rng: np.random.Generator, male: bool, mix: dict, years: float) -> tuple:
    """Linear colour by two pigments, the share of grey strands, and how far tips are lighter."""
    fair = mix["caucasian"] * float(rng.random() < 0.85)
    dark = float(rng.beta(1.1, 1.2)) if fair > 0.45 else float(rng.beta(9, 0.7))
    red = float(rng.beta(0.7, 4)) if fair > 0.45 else 0.1 * float(rng.random())
    eumelanin = 0.2 + 5.2 * dark
    absorb = eumelanin * np.array([0.80, 0.95, 1.05]) + red * np.array([0.15, 1.4, 2.6])
    colour = np.array([0.62, 0.53, 0.38]) * np.exp(-absorb)
    grey = 0.0
    if years > 30:
        grey = float(np.clip((years - 45) / 25 + rng.normal() * 0.35, 0, 1))
        if rng.random() < 0.3:  # dyed back
            grey = 0.0
    silver = np.array([0.48, 0.475, 0.46]) * float(rng.uniform(0.75, 1.25))
    mixed = colour + (silver - colour) * grey**1.5
    if rng.random() < 0.02 and not male:  # a colour of fashion
        mixed = np.array([(0.35, 0.05, 0.12), (0.04, 0.12, 0.3), (0.3, 0.08, 0.3)][rng.integers(3)])
    salt = float(min(1.0, 2.2 * min(grey, 1 - grey) + 0.08))
    return (
        _floats(np.clip(mixed, 0.006, 0.62)),
        salt,
        float(np.clip(rng.normal() * 0.15, -0.1, 0.5)),
    )


def _skins(pack: Pack, p: dict, melanin: float) -> list[str]:
    """Skins of the person's age and sex that need not be made much lighter or darker."""
    stage = p["skin"].split("_")[0]
    sex = "male" if p["gender"] > 0.5 else "female"
    groups = ("african",) if melanin > 0.5 else ("asian", "caucasian")
    return [s for s in pack.skins if s.startswith(tuple(f"{stage}_{g}_{sex}" for g in groups))]


def _surface(
    rng: np.random.Generator, skins: list[str], p: dict, melanin: float, tone: list
) -> dict:
    male, years = p["gender"] > 0.5, p["years"]
    old = float(np.clip((years - 28) / 45, 0, 1))
    lines = old**1.3 * float(rng.uniform(0.45, 1.1))
    groups = {
        "forehead": 0.8, "frown": 0.55, "crow": 0.9, "bags": 0.6, "nasolabial": 0.75,
        "marionette": 0.55, "chin": 0.3, "neck": 0.6,
    }  # fmt: skip
    creases = {k: float(v * lines * rng.uniform(0.4, 1.3)) for k, v in groups.items()}
    creases["nasolabial"] += float(0.12 * rng.random())
    light = 1 - min(1.0, melanin)
    freckled = rng.random() < 0.22 * light + 0.02
    crown = male and p["hair"] == BALD and years > 34 and rng.random() < 0.6
    cover = float(rng.choice([rng.uniform(0, 0.12), rng.uniform(0.25, 0.75)]))
    if p["hair"] != BALD:
        cover = float(rng.uniform(0.6, 0.9))  # under hair the scalp is dark
    elif not male:
        cover = float(rng.uniform(0.2, 0.8))
    shaved = male and years > 18
    return {
        "seed": int(rng.integers(1 << 30)),
        "tone": tone,
        "other": str(rng.choice(skins)),
        "mix": float(rng.uniform(0, 0.5)),
        "mottle": float(rng.uniform(0.3, 1.3)),
        "redness": float(abs(rng.normal()) * 0.35 * light),
        "tired": float(np.clip(0.25 + 0.35 * old + rng.normal() * 0.2, 0, 1)),
        "pores": float(rng.uniform(0.3, 1.2)),
        "freckles": float(rng.beta(1.2, 2)) if freckled else 0.0,
        "spots": float(old * rng.random() * light),
        "moles": float(rng.choice([0, 1, 2, 3, 5], p=[0.5, 0.2, 0.15, 0.1, 0.05])),
        "blemishes": float(rng.random() if rng.random() < (0.3 if years < 24 else 0.06) else 0),
        "creases": creases,
        "scalp": {"cover": cover, "crown": bool(crown)},
        "beard_shade": float(rng.uniform(0.05, 0.5)) if shaved and rng.random() < 0.6 else 0.0,
        "shine": float(np.exp(rng.normal() * 0.3)),
    }


def _makeup(rng: np.random.Generator, melanin: float) -> dict:
    hue = [(0.35, 0.22, 0.16), (0.28, 0.14, 0.13), (0.4, 0.3, 0.33), (0.2, 0.22, 0.26)]
    shadow = np.array(hue[rng.integers(len(hue))]) * rng.uniform(0.6, 1.2)
    blush = np.array([0.75, 0.25, 0.22]) * rng.uniform(0.8, 1.0)
    strength = 1 - 0.4 * min(1.0, melanin)
    return {
        "shadow": [*_floats(shadow), float(rng.uniform(0.1, 0.7))],
        "blush": [*_floats(blush), float(rng.uniform(0.0, 0.3) * strength)],
        "liner": float(rng.uniform(0.2, 0.85)),
    }


def _eyewear(rng: np.random.Generator) -> dict:
    style = _pick(rng, FRAMES)
    metal = style in ("aviator", "rimless") or (style == "round" and rng.random() < 0.6)
    choices = METALS if metal else ACETATES
    colour = np.array(choices[rng.integers(len(choices))]) * np.exp(rng.normal(size=3) * 0.12)
    tint, density = (1.0, 1.0, 1.0), 0.0
    if rng.random() < 0.25:  # sunglasses
        density = float(rng.uniform(0.8, 0.97))
        tint = [(0.02, 0.02, 0.022), (0.05, 0.03, 0.015), (0.02, 0.035, 0.03)][rng.integers(3)]
    elif rng.random() < 0.12:
        density = float(rng.uniform(0.1, 0.4))
        tint = [(0.25, 0.2, 0.1), (0.2, 0.12, 0.12), (0.1, 0.14, 0.2)][rng.integers(3)]
    return {
        "style": style,
        "width": float(rng.uniform(0.76, 0.92)),  # of the distance between the eyes
        "height": float(rng.uniform(0.52, 0.78)),
        "rim": float(rng.uniform(0.009, 0.016) if metal else rng.uniform(0.016, 0.034)),
        "gap": float(rng.uniform(0.11, 0.18)),
        "colour": _floats(colour.clip(0.005, 0.6)),
        "metal": bool(metal),
        "tint": _floats(tint),
        "density": density,
    }


def _cloth(rng: np.random.Generator) -> dict:
    """A garment's colour, pattern and the size of its pattern."""
    value, spread = rng.uniform(0.02, 0.55), rng.choice([0.04, 0.2, 0.5], p=[0.4, 0.4, 0.2])
    colour = value * np.clip(1 + rng.normal(size=3) * spread, 0.1, 2.2)
    return {"colour": _floats(colour.clip(0.01, 0.8)), "cloth": _pick(rng, CLOTHS),
            "scale": float(rng.uniform(0.7, 1.6))}  # fmt: skip


def _headgear(rng: np.random.Generator, p: dict) -> dict | None:
    x = rng.random()
    male = p["gender"] > 0.5
    if x < HAT_SHARE:
        kind = _pick(rng, HATS)
        return {
            "kind": kind,
            **_cloth(rng),
            "cloth": _pick(rng, {"knit": 1.0} if kind == "beanie" else HAT_CLOTHS),
            "height": float(rng.uniform(0.0, 1.0)),  # how high it sits on the forehead
            "tilt": float(rng.normal() * 4),  # degrees, sideways
            "turn": float(180 if rng.random() < 0.06 else rng.normal() * 5),
            "brim": float(rng.uniform(0.45, 0.85)),  # decimetres
        }
    if not male and x > 1 - 2 * SCARF_SHARE:
        return {"kind": "scarf", **_cloth(rng), "height": float(rng.uniform(0.2, 1.0))}
    return None


def add_extras(pack: Pack, params: dict, rng: np.random.Generator) -> dict:
    """The person `params` (see `sample_params`) with everything of material 2. All JSON values."""
    p = dict(params)
    male, mix = p["gender"] > 0.5, p["ethnicity"]
    p["material"] = 2
    if p["hair"] in ("bob01", "bob02") and rng.random() < 0.7:  # they hide an eye
        p["hair"] = str(rng.choice(["long01", "ponytail01", "short03"]))
    p["sliders"] = _calm_sliders(p["sliders"], p["hair"])
    p["expression_name"], p["expression"] = _expression(rng)
    melanin, tone = _tone(rng, mix)
    p["melanin"] = melanin
    p["hair_colour"], p["hair_salt"], p["hair_tips"] = _hair_colour(rng, male, mix, p["years"])
    skins = _skins(pack, p, melanin)
    p["skin"] = str(rng.choice(skins))
    p["surface"] = _surface(rng, skins, p, melanin, tone)
    p["skin_gain"] = [1.0, 1.0, 1.0]  # the tone is in the surface
    p["brow_density"] = float(np.clip(np.exp(rng.normal() * 0.3) * (1.1 if male else 0.95), 0.4, 2))
    made_up = not male and rng.random() < 0.45
    p["makeup"] = _makeup(rng, melanin) if made_up else None
    p["lip_gloss"] = float(rng.uniform(0.8, 2.5) if made_up else rng.uniform(0.5, 1.1))
    p["iris_gain"] = _floats(np.array(IRIS[p["eye"]]) * np.exp(rng.normal() * 0.25
                             + rng.normal(size=3) * 0.08))  # fmt: skip
    p["glasses"] = _eyewear(rng) if rng.random() < GLASSES_SHARE else None
    p["headgear"] = _headgear(rng, p)
    shirt = _cloth(rng)
    p["shirt_colour"], p["shirt_cloth"], p["shirt_scale"] = (
        shirt["colour"], shirt["cloth"], shirt["scale"]
    )  # fmt: skip
    p["collar"] = None
    if rng.random() < 0.3:
        kind = "shirt" if rng.random() < 0.65 else "turtle"
        p["collar"] = {"kind": kind, "height": float(rng.uniform(0.28, 0.42))}
        p["neckline"], p["neckline_height"] = "crew", NECKLINES["crew"][1]
    p["earrings"] = None
    if not male and rng.random() < 0.25:
        hoop = rng.random() < 0.4
        p["earrings"] = {"radius": float(rng.uniform(0.06, 0.17) if hoop else 0.03),
                         "hoop": bool(hoop),
                         "colour": list(METALS[rng.integers(2)])}  # fmt: skip
    return p
