"""From a seed or parameters to a posed head in field space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engine.training.heads.extras import add_extras, material_of
from engine.training.heads.eyewear import collar, earrings, eyewear
from engine.training.heads.hair import warp_hair
from engine.training.heads.headgear import dome, hat, scarf, under_hat
from engine.training.heads.materials import gloss
from engine.training.heads.morph import Neck, fit, morph_pair
from engine.training.heads.outfit import beard, garment, glasses
from engine.training.heads.pack import Pack
from engine.training.heads.parts import Part, quad_normals
from engine.training.heads.sampler import BALD, mean_params, sample_params

METRES = np.float32(0.1)  # per pack unit
EYE_CENTRE = np.array([0.0, 0.02, 0.075], np.float32)  # of the eye joints' midpoint, metres
EYES = "eye/high_poly"
TEETH = "teeth/teeth_base"


@dataclass(frozen=True)
class Head:
    """One person in field space (metres; the torso turned against the upright head).

    params: what `sample_params` returned. parts: meshes by name ('skin', 'cap' (its closed cuts),
    'eyes', 'cornea', 'teeth', 'tongue', 'brow', 'lash', 'hair', 'beard', 'shirt', 'frame', 'lens',
    and of material 2 'hat', 'scarf', 'pressed' (hair under a hat), 'collar', 'earrings'; some are
    absent). gloss: of material 2, how much each vertex of the skin part shines, float32 [V].
    skin: all vertices of the pack's mesh float32 [7604, 3]; neutral: the same without expression,
    in the same frame; eyes: the eyeballs' outer shells [512, 3]; landmarks [84, 3].
    """

    params: dict
    parts: dict[str, Part]
    skin: np.ndarray
    neutral: np.ndarray
    eyes: np.ndarray
    landmarks: np.ndarray
    gloss: np.ndarray | None = None


def head_rng(seed: int, stream: int) -> np.random.Generator:
    """Independent random streams of one head: 0 the person, 1 light and cameras, 2 what material 2
    adds to the person, 3 its light and cameras."""
    return np.random.default_rng([stream, seed])


def _mesh_part(pack: Pack, v: np.ndarray, group: str, texture: str | None = None):
    """The faces of one group as a part, and its vertices' indices in the pack's mesh."""
    if group not in (cache := pack.__dict__.setdefault("_group_cache", {})):
        chosen = pack.face_group == pack.group_names.index(group)
        used, faces = np.unique(pack.faces[chosen], return_inverse=True)
        used_uv, face_uv = np.unique(pack.face_uv[chosen], return_inverse=True)
        cache[group] = used, faces.reshape(-1, 4), pack.uv[used_uv], face_uv.reshape(-1, 4)
    used, faces, uv, face_uv = cache[group]
    return Part(v[used], faces, uv, face_uv, texture, group), used


def _cap_part(pack: Pack, v: np.ndarray, texture: str | None) -> Part:
    """Flat lids on the skin's cuts (chest and arms), so that a bust is closed."""
    if "_cap_cache" not in pack.__dict__:
        skin = pack.face_group == pack.group_names.index("skin")
        quads, uvs = pack.faces[skin], pack.face_uv[skin]
        edges = {
            (int(a), int(b)): int(t)
            for q, u in zip(quads, uvs, strict=True)
            for a, b, t in zip(q, np.roll(q, -1), u, strict=True)
        }
        following = {a: b for a, b in edges if (b, a) not in edges}
        loops = []
        while following:
            loop = [next(iter(following))]
            while (n := following.pop(loop[-1])) != loop[0]:
                loop.append(n)
            loops.append(loop)
        uv = pack.uv[edges[loops[0][0], loops[0][1]]][None]  # one flat colour
        pack.__dict__["_cap_cache"] = loops, uv
    loops, uv = pack.__dict__["_cap_cache"]
    vertices, faces, n = [], [], 0
    for loop in loops:
        points, i = v[loop], np.arange(len(loop))
        vertices += [points, points.mean(0)[None]]
        centre = np.full(len(loop), len(loop))
        faces.append(n + np.stack([(i + 1) % len(loop), i, centre, centre], 1))
        n += len(loop) + 1
    faces = np.concatenate(faces)
    return Part(np.concatenate(vertices), faces, uv, np.zeros_like(faces), texture, "cap")


def _hair_vertices(pack: Pack, fitted: np.ndarray, v: np.ndarray, params: dict) -> np.ndarray:
    skin, index = _mesh_part(pack, v, "skin")
    marks = dict(zip(pack.landmark_names, pack.landmarks(v), strict=True))
    ear = np.zeros(len(index), bool)
    for side in "lr":
        low, top = marks[f"ear_lobe_{side}"], marks[f"ear_top_{side}"]
        back = marks[f"ear_back_{side}"]
        middle = (low + top + back) / 3
        size = 0.75 * np.linalg.norm(top - low)
        ear |= np.linalg.norm(skin.vertices - middle, axis=1) < size
    normals = quad_normals(skin.vertices, skin.faces)
    return warp_hair(fitted, skin.vertices, normals, ear, marks, params["hair_warp"])


def build(pack: Pack, params: dict) -> Head:
    """The head of `params` (see `sample_params`)."""
    raw, raw_neutral = morph_pair(pack, params)
    neck = Neck(pack, raw, params["neck"])
    v = neck.skin(raw)
    eye_mid = 0.5 * (pack.joint(v, "eye_l") + pack.joint(v, "eye_r"))

    def metres(x: np.ndarray) -> np.ndarray:
        return ((x - eye_mid) * METRES + EYE_CENTRE).astype(np.float32)

    parts: dict[str, Part] = {}
    parts["skin"], skin_index = _mesh_part(
        pack, v, "skin", f"skin/{params['skin']}.jpg" if "skin" in params else None
    )
    parts["cap"] = _cap_part(pack, v, parts["skin"].texture)
    parts["tongue"], _ = _mesh_part(pack, v, "tongue")
    fitted = {"eyes": EYES, "teeth": TEETH}
    if "brow" in params:
        fitted["brow"] = f"eyebrow/{params['brow']}"
    if params.get("lash"):
        fitted["lash"] = f"eyelash/{params['lash']}"
    if params.get("hair", BALD) != BALD:
        fitted["hair"] = f"hair/{params['hair']}"
    for name, key in fitted.items():
        proxy = pack.proxy(key)
        points = fit(proxy, raw)
        faces, face_uv, mirrored = proxy.faces, proxy.face_uv, False
        if name == "hair":
            points = _hair_vertices(pack, points, raw, params)
            mirrored = params["hair_warp"]["mirror"]
        if mirrored:  # keeps the outside outside
            faces, face_uv = faces[:, ::-1], face_uv[:, ::-1]
        texture = f"{key}.png"
        if name in ("eyes", "teeth"):
            texture = f"eye/{params['eye']}.png" if name == "eyes" and "eye" in params else None
        cache_key = key + ("-mirrored" if mirrored else "")
        points = neck.part(points, proxy).astype(np.float32)
        parts[name] = Part(points, faces, proxy.uv, face_uv, texture, cache_key)
    eyes = parts["eyes"]
    for name, mask in (("cornea", pack.cornea_faces), ("eyes", ~pack.cornea_faces)):
        texture = eyes.texture if name == "eyes" else None
        faces, face_uv = eyes.faces[mask], eyes.face_uv[mask]
        parts[name] = Part(eyes.vertices, faces, eyes.uv, face_uv, texture, f"{EYES}-{name}")
    marks = pack.landmarks(v)
    if "neckline" in params:
        tights, index = _mesh_part(pack, v, "tights")
        style, height = params["neckline"], params["neckline_height"]
        parts["shirt"] = garment(pack, tights, index, style, height)
    if params.get("beard", {}).get("length"):
        parts["beard"] = beard(pack, parts["skin"], skin_index, params["beard"])
    named = dict(zip(pack.landmark_names, marks, strict=True))
    shine = None
    if params.get("material", 1) == 2:
        _dress(pack, parts, skin_index, named, params)
        shine = gloss(pack, skin_index, params["lip_gloss"])
    elif params.get("glasses"):
        parts["frame"], parts["lens"] = glasses(named, params["glasses"])
    parts = {name: part.moved(metres(part.vertices)) for name, part in parts.items()}
    return Head(
        params=params,
        parts=parts,
        skin=metres(v),
        neutral=metres(neck.skin(raw_neutral)),
        eyes=parts["eyes"].vertices[pack.eye_surface],
        landmarks=metres(marks),
        gloss=shine,
    )


def _dress(pack: Pack, parts: dict[str, Part], index: np.ndarray, marks: dict, p: dict) -> None:
    """Adds what material 2 wears; index: the pack's vertices of the skin part."""
    skin = parts["skin"].vertices
    shirt = parts["shirt"]
    cloth = f"cloth/{p['shirt_cloth']}"
    parts["shirt"] = replace(shirt, uv=shirt.uv * 14 * p["shirt_scale"], texture=cloth)
    if p["collar"]:
        cut = shirt.vertices[len(pack.group_vertices["tights"]) :]  # clip_below's new points
        rest = pack.rest[index]
        parts["collar"] = collar(cut, rest, skin, p["collar"], p["shirt_cloth"], 2.0)
    if p["earrings"]:
        parts["earrings"] = earrings(marks, p["earrings"])
    if p["glasses"]:
        parts["frame"], parts["lens"] = eyewear(skin, marks, p["glasses"])
    gear = p["headgear"]
    if gear and gear["kind"] == "scarf":
        parts["scarf"] = scarf(skin, marks, gear)
    elif gear:
        skull = dome(skin, marks, gear)
        parts["hat"] = hat(skull, gear)
        if "hair" in parts:
            hair = parts["hair"]
            parts["pressed"] = hair.moved(under_hat(skull, hair.vertices))


def person(pack: Pack, seed: int, material: int | None = None) -> dict:
    """The parameters of a seed. material: 1 or 2; default: what the seed's shards were made with
    (see `extras.material_of`)."""
    params = sample_params(pack, head_rng(seed, 0))
    if (material or material_of(seed)) == 1:
        return params
    return add_extras(pack, params, head_rng(seed, 2))


def build_head(pack: Pack, seed: int, material: int | None = None) -> Head:
    """The random head of a seed; the same on every machine with the same pack and numpy."""
    return build(pack, person(pack, seed, material))


def mean_head(pack: Pack) -> Head:
    """The average neutral adult head: skin, tongue, eyes and teeth; no hair, no garment."""
    return build(pack, mean_params())
