"""All textures of the pack as one flat buffer of mip chains that the numba kernels index."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from scipy import ndimage

from engine.training.heads.cloth import cloths
from engine.training.heads.outfit import FUR
from engine.training.heads.pack import Pack
from engine.training.heads.paint import Paintbox
from engine.training.heads.skinmap import BOX, SIZE

LEVELS = 9
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
# Only what a picture of 200 pixels can show: a skin texel of 512 is already finer than a sample.
SIZES = {"skin": 512, "eye": 256, "hair": 512, "eyebrow": 256, "eyelash": 256}
PAINTED = {"skin": 512, "eye": 256, "brow": 256, "hair": 512, "person": SIZE}
IRISES, IRIS_RADIUS = ((0.2902, 0.2924), (0.7054, 0.7031)), 0.118
MASK_BOX = (slice(75, 450), slice(310, 512))  # where beard and lips lie in a 512 skin picture


@dataclass(frozen=True)
class Slot:
    """One texture: first float, width and height of each level, int64 [9]; number of levels."""

    offset: np.ndarray
    width: np.ndarray
    height: np.ndarray
    levels: int


def _half(a: np.ndarray) -> np.ndarray:
    return 0.25 * (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2])


def _chain(a: np.ndarray) -> list[np.ndarray]:
    out = [a]
    while min(out[-1].shape[:2]) > 8:
        out.append(_half(out[-1]))
    return out


def _shrunk(a: np.ndarray, size: int) -> np.ndarray:
    while a.shape[0] > size:
        a = _half(a)
    return a


class Atlas:
    """Linear RGB and straight alpha, float32, of every texture; about 250 MB.

    Hair, brows and lashes hold the brightness of the strands, 1 on average, to be tinted.
    """

    def __init__(self, pack: Pack):
        self._folder = pack.path / "textures"
        self._slots: dict[str, Slot] = {}
        self._first: dict[str, np.ndarray] = {}
        pieces: list[np.ndarray] = []
        self._used = 0
        for kind, size in SIZES.items():
            for file in sorted((self._folder / kind).iterdir()):
                self._add(pieces, f"{kind}/{file.name}", self._read(file, kind, size))
        self._add(pieces, FUR, self._fur())
        for name, picture in cloths().items():
            self._add(pieces, f"cloth/{name}", picture)
        for name, size in PAINTED.items():
            self._add(pieces, f"painted {name}", np.zeros((size, size, 4), np.float32))
        self.buffer = np.concatenate(pieces)
        self._beard, self._lips = (self._mask(n) for n in ("beard", "lips"))
        rng = np.random.default_rng(5)
        fine = rng.random((512, 512), dtype=np.float32)
        coarse = rng.random((256, 256), dtype=np.float32).repeat(2, 0).repeat(2, 1)
        self._grain = 0.7 * fine + 0.3 * coarse
        self._pack = pack
        self._noise = ndimage.gaussian_filter(rng.normal(size=(512, 512)), (6, 0.8), mode="wrap")
        self._noise = (self._noise / self._noise.std()).astype(np.float32)

    def slot(self, name: str) -> Slot:
        """Where a texture lies. Raises KeyError for an unknown one."""
        return self._slots[name]

    def alpha(self, name: str) -> np.ndarray:
        """Alpha [H, W] of a texture's second level."""
        s = self._slots[name]
        n = s.width[1] * s.height[1] * 4
        level = self.buffer[s.offset[1] : s.offset[1] + n]
        return level.reshape(s.height[1], s.width[1], 4)[..., 3]

    def paint_skin(self, name: str, stubble: float, colour: list[float], lips: list | None) -> Slot:
        """The skin with stubble (0..1) of a colour and lipstick (RGB, strength), in a shared slot
        that the next call overwrites."""
        if not stubble and not lips:
            return self._slots[name]
        a = self._first[name].copy()
        area = a[MASK_BOX][..., :3]
        if stubble:
            cover = stubble * self._beard[MASK_BOX] * (0.55 + 0.9 * self._grain[MASK_BOX])
            d = np.clip(cover, 0, 0.97)[..., None]
            area[:] = area * (1 - d) + d * np.array(colour, np.float32) * 0.6
        if lips:
            w = (self._lips[MASK_BOX] * lips[3])[..., None]
            paint = np.array(lips[:3], np.float32) * (area.mean(2, keepdims=True) * 2.2)
            area[:] = area * (1 - w) + w * paint
        return self._overwrite("painted skin", a)

    @cached_property
    def _paintbox(self) -> Paintbox:
        return Paintbox(self._pack)

    def paint_person(self, params: dict) -> Slot:
        """The skin of a material-2 head with its relief, in a shared slot as `paint_skin`."""
        box, body = self._paintbox.paint(params)
        a = body.repeat(2, 0).repeat(2, 1)
        a[BOX] = box
        return self._overwrite("painted person", a)

    def paint_brow(self, name: str, density: float) -> Slot:
        """A brow with more or fewer hairs (density 1 as it is), in a shared slot."""
        a = self._first[name].copy()
        a[..., 3] = np.clip(a[..., 3] ** (1 / density) * min(1.0, 0.4 + 0.6 * density), 0, 1)
        return self._overwrite("painted brow", a)

    def paint_hair(self, name: str, salt: float, tips: float, seed: int) -> Slot:
        """Hair whose strands differ (salt 0..1: some grey) and whose ends are lighter by a share
        `tips`, in a shared slot. The tint comes on top."""
        a = self._first[name].copy()
        noise = np.roll(self._noise, seed % 512, 1)[: a.shape[0], : a.shape[1]]
        strand = np.exp(0.22 * (0.4 + salt) * noise)
        down = np.linspace(0, 1, a.shape[0], dtype=np.float32)[:, None]
        a[..., :3] *= (strand * (1 + tips * (down - 0.3)))[..., None]
        grey = np.clip(0.9 * salt * (noise - 0.3), 0, 1)[..., None]
        a[..., :3] *= 1 + grey * np.array([0.5, 0.8, 1.1], np.float32)
        return self._overwrite("painted hair", a)

    def paint_eye(self, name: str, gain: list[float]) -> Slot:
        """The eye with its irises multiplied by a colour, in a shared slot."""
        a = self._first[name].copy()
        n = a.shape[0]
        for u, v in IRISES:
            r = int(IRIS_RADIUS * n) + 2
            x, y = int(u * n) - r, int((1 - v) * n) - r
            i, j = np.mgrid[: 2 * r, : 2 * r]
            w = np.clip((IRIS_RADIUS - np.hypot(j - r, i - r) / n) / 0.012, 0, 1)[..., None]
            a[y : y + 2 * r, x : x + 2 * r, :3] *= 1 + (np.array(gain, np.float32) - 1) * w
        return self._overwrite("painted eye", a)

    def _read(self, file, kind: str, size: int) -> np.ndarray:
        a = np.asarray(Image.open(file).convert("RGBA")).astype(np.float32) / 255
        a[..., :3] **= 2.2
        if kind in ("hair", "eyebrow", "eyelash"):
            mean = float((a[..., :3][a[..., 3] > 0.5] @ LUMA).mean())
            strand = (a[..., :3] @ LUMA / max(mean, 1e-3)) ** 0.65
            a[..., :3] = (1.3 * strand / (1 + 0.3 * strand))[..., None]
        return _shrunk(a, size)

    def _mask(self, name: str) -> np.ndarray:
        a = np.asarray(Image.open(self._folder / "mask" / f"{name}.png")).astype(np.float32)
        return _shrunk(a / 255, 512)

    def _fur(self) -> np.ndarray:
        rng = np.random.default_rng(3)
        n = ndimage.gaussian_filter(rng.random((256, 256)), 1.1, mode="wrap")
        n = (np.argsort(np.argsort(n.ravel())) / n.size).reshape(n.shape)
        shade = ndimage.gaussian_filter(rng.random((256, 256)), 1.5, mode="wrap")
        a = np.ones((256, 256, 4), np.float32)
        a[..., :3] = (0.35 + 0.9 * shade)[..., None]
        a[..., 3] = np.clip((n - 0.45) * 4, 0, 1)
        return a

    def _add(self, pieces: list[np.ndarray], name: str, a: np.ndarray) -> None:
        offset, width, height = (np.ones(LEVELS, np.int64) for _ in range(3))
        chain = _chain(a.astype(np.float32))
        for i, level in enumerate(chain):
            offset[i], height[i], width[i] = self._used, *level.shape[:2]
            pieces.append(level.ravel())
            self._used += level.size
        self._slots[name] = Slot(offset, width, height, len(chain))
        if name.startswith(("skin/", "eye/", "eyebrow/", "hair/")):
            self._first[name] = chain[0]

    def _overwrite(self, name: str, a: np.ndarray) -> Slot:
        slot = self._slots[name]
        for i, level in enumerate(_chain(a)[: slot.levels]):
            self.buffer[slot.offset[i] : slot.offset[i] + level.size] = level.ravel()
        return slot
