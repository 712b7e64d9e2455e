"""A Sampler: a generator of heads as artists use it, whatever system is behind it.

A seed gives a random vector z; z gives a latent code (truncated: drawn towards the average head);
a code gives a field. Codes may be mixed and interpolated, see engine/sampling/recipe.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.cameras import Camera
from engine.fields.base import Field


@dataclass(frozen=True)
class Picture:
    """A view of a head as the model shows it best.

    image: uint8 [S, S, 3], display sRGB; alpha: uint8 [S, S], 0 where nothing is, None if there is
    none to tell. painted: the image stands before its own background (which alpha may take for
    matter); otherwise its colours are straight, to be laid over any.
    """

    image: np.ndarray
    alpha: np.ndarray | None
    painted: bool = False


class Sampler(ABC):
    """One model, ready to make heads. Deterministic: the same arguments give the same result on the
    same machine, and no call depends on an earlier one.

    name: the model's, as the artist knows it; sha256: of its file (hex), which tells whether a code
    was made with it; rows: names of a code's rows, from coarse to fine; picture_size: pixels a side
    at which its pictures are sharp; directions: the file in which directions that were found for
    the model are, or would be; None where they come with it.
    """

    name: str
    sha256: str
    rows: tuple[str, ...]
    picture_size: int
    directions: Path | None = None

    @abstractmethod
    def z(self, seed: int) -> torch.Tensor:
        """The random vector [D] of a seed (0 .. 2^32 - 1), float32 on the CPU: normal numbers, the
        same on every machine."""

    @abstractmethod
    def map(
        self,
        z: torch.Tensor,
        psi: float = 0.7,
        cutoff: int = -1,
        yaw: float = 0.0,
        pitch: float = 0.0,
    ) -> torch.Tensor:
        """z [D] -> the code [R, W], float32 on the CPU.

        psi: truncation, 1 for none, 0 for the average head; cutoff: only so many rows get it, from
        the first on; -1 for all. yaw, pitch: the camera, in degrees as in camera(), for which the
        head is conditioned; a model without conditioning ignores it.
        """

    @abstractmethod
    def field(self, code: torch.Tensor) -> Field:
        """The head's field of a code [R, W]; its origin is not set."""

    def front(self) -> Camera:
        """The camera that looks the head in the face, at picture_size."""
        return self.camera(0.0, 0.0)

    @abstractmethod
    def camera(self, yaw: float, pitch: float, size: int = 0) -> Camera:
        """A camera on the orbit on which the model's cameras lie, with its focal length; square.

        yaw, pitch: degrees; 0, 0 is the front; positive yaw moves it to the subject's left,
        positive pitch above. size: pixels a side, 0 for picture_size.
        """

    @abstractmethod
    def picture(
        self,
        code: torch.Tensor,
        camera: Camera,
        check: Callable[[], None] = lambda: None,
        field: Field | None = None,
    ) -> Picture:
        """The head of a code [R, W] through a camera, at camera.width pixels a side.

        field: of this code, if there is one already: it saves the work. check: called between
        chunks of work, may raise to cancel.
        """

    def photo_cameras(self) -> tuple[Camera, ...]:
        """Cameras whose pictures show more of the head's skin than its field does; a texture takes
        from them what they see. The first is front(). None by default."""
        return ()
