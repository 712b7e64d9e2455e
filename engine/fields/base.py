"""A Field: a radiance field inside a box, the one thing that every system makes and every product
is made from."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from engine.cameras import Camera
from engine.errors import WeightsError

# Where each kind of field lives; the module is imported when a file of its kind is read.
KINDS = {
    "eg3d": "engine.fields.triplane",
    "head": "engine.fields.head",
    "lrm": "engine.fields.lrm",
}


@dataclass
class Origin:
    """What a field was generated from, kept in its file so that it can be made, mixed and
    interpolated again.

    code: [rows, width] float32, the latent code; recipe: JSON-able, how the code came about (model,
    seeds, truncation).
    """

    code: torch.Tensor
    recipe: dict[str, Any]


@dataclass
class Render:
    """One view of a field.

    image: [H, W, 3], display sRGB 0..1, premultiplied on black; depth: [H, W], field units along
    the camera's z (at the far end where nothing was met); alpha: [H, W], 0..1.
    """

    image: torch.Tensor
    depth: torch.Tensor
    alpha: torch.Tensor

    def rgba(self) -> np.ndarray:
        """The view as a picture: uint8 [H, W, 4], display sRGB, straight alpha."""
        alpha = self.alpha[..., None]
        straight = torch.where(alpha > 1e-4, self.image / alpha.clamp_min(1e-4), 0.0)
        whole = torch.cat([straight, alpha], -1).clamp(0, 1)
        return (whole * 255 + 0.5).byte().cpu().numpy()


class Field(ABC):
    """A radiance field.

    Space: right-handed, +x to the subject's left, +y up, +z out of the face.
    kind: the word that names the class in files (a key of KINDS); bounds: [2, 3], the box, in field
    units; metres_per_unit: size of a field unit; level: the surface is where value() equals it,
    larger values are inside; origin: the latent code it was generated from, if it was.
    """

    kind: ClassVar[str]
    bounds: torch.Tensor
    metres_per_unit: float
    level: float
    origin: Origin | None = None

    @abstractmethod
    def value(self, points: torch.Tensor) -> torch.Tensor:
        """What the iso-surface is taken of: points [N, 3] -> [N]. Defined everywhere; outside the
        box it need not mean anything."""

    def grid(
        self, low: torch.Tensor, step: float, cells: Sequence[int], check: Callable[[], None]
    ) -> torch.Tensor | None:
        """value - level at the nodes low + step * (i, j, k), [cells + 1 ...], if this kind of field
        has a faster way to them than point by point, else None. Exact at the corners of every cell
        through which the surface passes; elsewhere only the sign counts. check: called often."""
        return None

    @abstractmethod
    def query(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points [N, 3] to density [N] (raw: what the renderer activates) and features [N, C]."""

    @abstractmethod
    def color(self, points: torch.Tensor) -> torch.Tensor:
        """Points [N, 3] to display sRGB [N, 3] in 0..1."""

    @abstractmethod
    def render(
        self,
        camera: Camera,
        check: Callable[[], None] = lambda: None,
        only: torch.Tensor | None = None,
    ) -> Render:
        """The view of a camera, camera.width by camera.height pixels; deterministic. check is
        called before every chunk of work and may raise to cancel. only: bool [H, W], the pixels
        that are wanted; all others are 0."""

    @abstractmethod
    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that the field is saved as, by name."""

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """All else that it is saved as, JSON-able; "kind" is the class's kind."""

    @classmethod
    @abstractmethod
    def from_saved(cls, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Field:
        """Inverse of tensors() and metadata(). Raises KeyError, TypeError or ValueError if they do
        not fit together (the reader makes a WeightsError of it)."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Field:
        """This field with its tensors on a device (itself if they are there)."""


def field_class(kind: str) -> type[Field]:
    """The class of a kind. Raises WeightsError for an unknown one."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise WeightsError(
            f"This version knows no fields of the kind {str(kind)[:40]!r}.",
            "The file may come from a newer version of Triplane: update it.",
        )
    importlib.import_module(KINDS[kind])
    for cls in _subclasses(Field):
        if cls.__dict__.get("kind") == kind:
            return cls
    raise LookupError(f"{KINDS[kind]} defines no field of the kind {kind!r}")


def _subclasses(cls: type) -> list[type]:
    direct = cls.__subclasses__()
    return direct + [deeper for sub in direct for deeper in _subclasses(sub)]
