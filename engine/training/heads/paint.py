"""The skin of a material-2 head: two pictures mixed, toned, and painted with what they lack.

Freckles, moles, age spots, blemishes, creases by age, make-up, shaved and bald scalps, stubble and
beard shadow. The picture's fourth channel is the height of the skin in decimetres, from which the
shader bends the normals.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from engine.training.heads.pack import Pack
from engine.training.heads.skinmap import BOX, FACE, SIZE, SkinMap, soft

DARK_SCALP = "young_african_male"  # its picture shows the hairline best
FACE_MAPS = ("front", "cheeks", "nose", "forehead", "sockets", "lids", "lashes", "freckled", "used",
             "y")  # fmt: skip
MEAN_SPOTS = (("cheeks", 1.0), ("forehead", 0.25))  # where a skin's tone is measured
CREASE_DEPTH = 0.016  # decimetres, of a full crease
GRAIN_SEED = 5
COARSE = 8  # texels a cell of slow colours


_LINEAR = ((np.arange(256) / 255) ** 2.2).astype(np.float32)


def _linear(picture: np.ndarray) -> np.ndarray:
    return _LINEAR[picture]


def _rgb(r: float, g: float, b: float) -> np.ndarray:
    return np.array((r, g, b), np.float32)


class Paintbox:
    """Pictures, maps and noises that all heads share; about 60 MB. One per process."""

    def __init__(self, pack: Pack) -> None:
        folder = pack.path / "textures"
        self._pictures: dict[str, np.ndarray] = {}
        self._body: dict[str, np.ndarray] = {}
        for name in pack.skins:
            picture = Image.open(folder / "skin" / f"{name}.jpg").convert("RGB")
            self._pictures[name] = np.asarray(picture)[BOX]
            self._body[name] = np.asarray(picture.resize((SIZE // 2, SIZE // 2), Image.BOX))
            if name == DARK_SCALP:
                scalp = _linear(np.asarray(picture))
        self.map = m = SkinMap(pack, scalp)
        self._face = face = {n: getattr(m, n)[FACE] for n in FACE_MAPS}
        for name in ("beard", "lips"):
            mask = np.asarray(Image.open(folder / "mask" / f"{name}.png"))[BOX][FACE]
            face[name] = mask.astype(np.float32) / 255
        face["tint"] = face["forehead"] + face["cheeks"]
        self._crown = np.maximum(soft(m.y, 7.75, 7.35) * soft(m.z, 0.75, 0.55), 0.08)
        self._density = {  # where marks like to be, summed up for drawing from
            "freckles": face["freckled"],
            "spots": face["tint"] * face["front"],
            "moles": face["front"] + 0.4 * (face["used"] & (face["y"] < 6.3)),
            "blemishes": (face["tint"] + face["beard"]) * face["front"],
        }
        self._density = {n: np.cumsum(w, dtype=np.float64) for n, w in self._density.items()}
        weight = sum(k * getattr(m, n) for n, k in MEAN_SPOTS) * m.front
        self._means = {
            n: (_linear(p) * weight[..., None]).sum((0, 1)) / weight.sum()
            for n, p in self._pictures.items()
        }
        self._bare = {n: self._without_hair(_linear(p)) for n, p in self._pictures.items()}
        rng = np.random.default_rng(GRAIN_SEED)
        self._fine = self._noise(rng, 0.8)
        self._grain = soft(self._noise(rng, 0.7), 0.2, 1.6)  # separate hairs
        self._blotch = [self._noise(rng, s) for s in (4.0, 12.0, 12.0, 30.0)]

    @staticmethod
    def _noise(rng: np.random.Generator, blur: float) -> np.ndarray:
        """Smooth noise [1024, 1024] that wraps, mean 0, standard deviation 1."""
        n = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), blur, mode="wrap")
        return (n / n.std()).astype(np.float32)

    def _without_hair(self, picture: np.ndarray) -> np.ndarray:
        """The skin's colour [h / 8, w / 8, 3], carried on from bare skin to under the hair."""
        h, w = (n // COARSE for n in self.map.x.shape)
        cells = (h, COARSE, w, COARSE)
        cut = (slice(0, h * COARSE), slice(0, w * COARSE))
        known = (self.map.used & (self.map.scalp < 0.02) & (self.map.y > 6.6))[cut]
        weight = known.reshape(cells).mean((1, 3))
        colour = (picture[cut] * known[..., None]).reshape(*cells, 3).mean((1, 3))
        colour = colour / np.maximum(weight, 1e-3)[..., None]
        near = ndimage.distance_transform_edt(
            weight < 0.9, return_distances=False, return_indices=True
        )
        return ndimage.gaussian_filter(colour[tuple(near)], (3, 3, 0)).astype(np.float32)

    def paint(self, p: dict) -> tuple[np.ndarray, np.ndarray]:
        """Linear RGB and height float32 [h, w, 4] of the head's box, and the whole picture at half
        size [512, 512, 4] for what lies outside it. p: parameters with `material` 2."""
        skin = p["surface"]
        rng = np.random.default_rng(skin["seed"])
        h, w = self.map.x.shape
        i, j = rng.integers(0, SIZE - h), rng.integers(0, SIZE - w)
        turn = rng.choice([-1, 1])

        def field(noise: np.ndarray) -> np.ndarray:
            return noise[i : i + h, j : j + w][::turn]

        out = np.zeros((h, w, 4), np.float32)
        a = out[..., :3]
        body = np.zeros((SIZE // 2, SIZE // 2, 4), np.float32)
        for name, share in ((p["skin"], 1 - skin["mix"]), (skin["other"], skin["mix"])):
            gain = (np.array(skin["tone"]) / self._means[name] * share).astype(np.float32)
            a += _linear(self._pictures[name]) * gain
            body[..., :3] += _linear(self._body[name]) * gain
        self._scalp(a, p, self._bare_scalp(p), field(self._grain), field(self._blotch[1]))
        slow = field(self._blotch[1])
        blotch = 0.6 * field(self._blotch[0]) + slow
        a *= 1 + skin["mottle"] * blotch[..., None] * _rgb(0.02, 0.035, 0.035)
        f, near, blotch = a[FACE], self._face, blotch[FACE]
        red = skin["redness"] * (near["cheeks"] + 1.1 * near["nose"]) * (1 + 0.3 * blotch)
        tired = skin["tired"] * near["sockets"]
        height = 0.0002 * skin["pores"] * field(self._fine)[FACE] * near["front"]
        height += 0.0006 * near["lips"] * blotch
        height += self._marks(f, skin, rng)
        dark, deep = self._creases(skin, rng, *(field(n)[FACE] for n in self._blotch[2:]))
        height -= CREASE_DEPTH * deep
        taken = red[..., None] * _rgb(0.02, 0.22, 0.2) + tired[..., None] * _rgb(0.32, 0.4, 0.3)
        taken += dark[..., None] * _rgb(0.3, 0.42, 0.45)
        f *= np.exp(-taken)
        if p["makeup"]:
            self._makeup(f, p["makeup"])
        self._stubble(f, p, field(self._grain)[FACE], slow[FACE])
        if p["lips"]:
            k = (near["lips"] * np.float32(p["lips"][3]))[..., None]
            f += k * (_rgb(*p["lips"][:3]) * f.mean(2, keepdims=True) * np.float32(2.2) - f)
        np.clip(a, 0.002, 0.9, out=a)
        out[FACE][..., 3] = height
        return out, body

    def _bare_scalp(self, p: dict) -> np.ndarray:
        """The two skins' colour without hair, toned, at the box's size [h, w, 3]."""
        skin, coarse = p["surface"], 0.0
        for name, share in ((p["skin"], 1 - skin["mix"]), (skin["other"], skin["mix"])):
            gain = np.array(skin["tone"]) / self._means[name] * share
            coarse = coarse + self._bare[name] * gain.astype(np.float32)
        h, w = self.map.x.shape
        planes = [np.asarray(Image.fromarray(c).resize((w, h), Image.BILINEAR))
                  for c in np.moveaxis(coarse, -1, 0)]  # fmt: skip
        return np.stack(planes, -1)

    def _scalp(self, a, p: dict, skin, grain, blotch) -> None:
        """Shaved hair in the hair's colour, or bare skin; a bald crown keeps the sides."""
        scalp = p["surface"]["scalp"]
        cover = np.float32(scalp["cover"]) * (0.5 + 0.75 * grain) * (1 + 0.12 * blotch)
        if scalp["crown"]:
            cover = cover * self._crown
        cover = np.clip(cover, 0, 0.95)[..., None]
        skin *= 1.0 + 0.02 * blotch[..., None]
        skin += (_rgb(*p["hair_colour"]) * np.float32(0.6) - skin) * cover
        skin -= a
        skin *= self.map.scalp[..., None]
        a += skin

    def _marks(self, a: np.ndarray, skin: dict, rng: np.random.Generator) -> np.ndarray:
        """Paints freckles, age spots, moles and blemishes; returns the moles' height."""
        shape = a.shape[:2]
        height = np.zeros(shape, np.float32)
        # name: how many, radius in texels, what full cover takes off (red, green, blue), height
        kinds = {
            "freckles": (380, 0.75, (0.35, 0.55, 0.7), 0.0),
            "spots": (26, 2.3, (0.3, 0.45, 0.55), 0.0),
            "moles": (1, 1.3, (1.1, 1.5, 1.7), 0.009),
            "blemishes": (16, 1.8, (0.02, 0.3, 0.3), 0.004),
        }
        for name, (most, radius, colour, bump) in kinds.items():
            count = int(round(skin[name] * most))
            if not count:
                continue
            density = self._density[name]
            at = np.searchsorted(density, rng.random(count) * density[-1])
            dots = np.zeros(shape, np.float32)
            strength = rng.uniform(0.35, 1.0, count) * rng.uniform(0.6, 1.0)
            np.add.at(dots.ravel(), at, strength.astype(np.float32))
            # the blur spreads a dot over 2 pi r^2 texels: back to about its strength in the middle
            spread = ndimage.gaussian_filter(dots, radius, truncate=3) * (2 * np.pi * radius**2)
            spread = np.clip(spread, 0, 1)
            a *= np.exp(-spread[..., None] * _rgb(*colour))
            height += bump * spread
        return height

    def _creases(self, skin: dict, rng, bend_x, bend_y) -> tuple[np.ndarray, np.ndarray]:
        """How dark and how deep creases are over `FACE`; every line has a weight of its own."""
        names, profiles = self.map.creases
        own = np.clip(1 + 0.35 * rng.normal(size=len(names)), 0.3, 1.5)
        weight = np.array([skin["creases"][n] for n in names]) * own
        total = np.tensordot(weight.astype(np.float32), profiles, 1)
        i, j = np.indices(total.shape, np.float32)
        where = [i + 2.2 * bend_x, j + 2.2 * bend_y]
        total = ndimage.map_coordinates(total, where, order=1, mode="nearest")
        return 0.5 * total * np.clip(1 + 0.25 * bend_x, 0.4, 1.4), total

    def _makeup(self, a: np.ndarray, makeup: dict) -> None:
        for region, colour in (("lids", makeup["shadow"]), ("cheeks", makeup["blush"])):
            k = (self._face[region] * np.float32(colour[3]))[..., None]
            a += k * (_rgb(*colour[:3]) * a.mean(2, keepdims=True) * np.float32(2.2) - a)
        a *= 1 - np.clip(np.float32(makeup["liner"]) * self._face["lashes"], 0, 0.93)[..., None]

    def _stubble(self, a: np.ndarray, p: dict, grain: np.ndarray, blotch: np.ndarray) -> None:
        """Single hairs over the bluish shade that shaved dark hair leaves under the skin."""
        stubble, shade = p["beard"]["stubble"], p["surface"]["beard_shade"]
        if not stubble and not shade:
            return
        area = self._face["beard"] * (1 - self._face["lips"])
        a *= np.exp(-(np.float32(shade) * area)[..., None] * _rgb(0.55, 0.42, 0.3))
        cover = np.float32(stubble) * area * (0.3 + 0.85 * grain) * (1 + 0.15 * blotch)
        a += np.clip(cover, 0, 0.97)[..., None] * (_rgb(*p["hair_colour"]) * np.float32(0.6) - a)
