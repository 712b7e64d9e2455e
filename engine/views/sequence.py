"""A sequence of views on disk: rendered, written while the next one renders, never done twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from engine import __version__
from engine.cameras import Camera
from engine.fields.base import Field
from engine.surface.export import write_whole
from engine.views.frame import Frame, look
from engine.views.images import png_bytes, write_exr
from engine.views.ledger import Ledger

FORMATS = {"png": ".png", "png16": ".png", "exr": ".exr"}
WAITING = 2  # pictures that may wait for the disk,
LARGE = 1 << 23  # unless they have more pixels: of those one after the other


@dataclass(frozen=True)
class View:
    """One picture to make: through which camera, and its frame number.

    field_to_world: where the head stands in this frame, where it moves (see Style). edits: changes
    of the head in this frame, such as "age=1" (see bake); "" for none.
    """

    camera: Camera
    frame: int
    field_to_world: tuple[float, ...] | None = None
    edits: str = ""


@dataclass(frozen=True)
class Style:
    """How pictures are written.

    format: a key of FORMATS; normals: whether an .exr has them; field_to_world: 16 numbers, field
    space to the scene's, for an .exr's depth (in scene units) and normals.
    """

    format: str = "png"
    normals: bool = True
    field_to_world: tuple[float, ...] = tuple(np.eye(4).ravel())

    def scene_unit(self, camera: Camera) -> float:
        """Scene units per unit of the camera's depths."""
        if is_stretched(camera):
            return 1.0  # such a camera measures in scene units already
        world = np.array(self.field_to_world).reshape(4, 4)
        return float(np.cbrt(abs(np.linalg.det(world[:3, :3]))))

    def write(self, path: Path, frame: Frame, camera: Camera) -> None:
        """Write a frame, whole or not at all. Raises OutputError."""
        if self.format == "exr":
            turn = np.linalg.inv(np.array(self.field_to_world).reshape(4, 4)[:3, :3]).T
            write_exr(path, frame, self.scene_unit(camera), turn)
        elif self.format == "png16":
            both = np.concatenate([frame.colour, frame.alpha[..., None]], -1)
            write_whole({path: png_bytes((both * 65535 + 0.5).astype(np.uint16))})
        else:
            write_whole({path: png_bytes(frame.rgba)})


@dataclass(frozen=True)
class Written:
    """A picture that is on disk: its frame, file, and, if it has just been made, what it shows."""

    index: int
    frame: int
    path: Path
    shown: Frame | None


def is_stretched(camera: Camera) -> bool:
    """Whether the camera's matrix holds a stretch of the head (see Camera.cam2world)."""
    r = camera.cam2world[:3, :3]
    return not np.allclose(r.T @ r, np.eye(3), atol=1e-6)


def bake(
    field: Field,
    identity: str,
    views: list[View],
    folder: Path,
    name: str,
    style: Style,
    check: Callable[[], None],
    inside: str = "",
    edited: Callable[[str], Field] | None = None,
) -> Iterator[Written]:
    """Make the pictures name_0001.png ... in a folder, yielding each that is on disk, in order.

    identity: tells the field's contents apart; together with camera and style it decides whether a
    picture that is there is the one wanted. However it ends, what was finished stays, whole, and is
    recorded. check: called often, may raise to cancel. inside: a folder within the folder, where
    the pictures go. edited: gives the field with the edits of a view that has any. Raises
    OutputError.
    """
    ledger = Ledger(folder, name, inside)
    waiting: list[tuple[Written, Future]] = []

    def write(path: Path, frame: Frame, camera: Camera, own: Style, key: str) -> None:
        own.write(path, frame, camera)
        ledger.record(path, key)

    def settled(most: int) -> Iterator[Written]:
        while len(waiting) > most:
            written, future = waiting.pop(0)
            future.result()
            yield written

    # Leaving the executor's block waits for what is being written.
    with ThreadPoolExecutor(1, "triplane-writer") as writer:
        for index, view in enumerate(views):
            check()
            path = folder / inside / f"{name}_{view.frame:04d}{FORMATS[style.format]}"
            own = style
            if view.field_to_world and style.format == "exr":
                own = replace(style, field_to_world=view.field_to_world)
            key = _key(identity, view, own)
            if ledger.has(path, key):
                yield from settled(0)
                yield Written(index, view.frame, path, None)
                continue
            with_normals = style.format == "exr" and style.normals
            seen = edited(view.edits) if edited is not None and view.edits else field
            shown = look(seen, view.camera, with_normals, check)
            future = writer.submit(write, path, shown, view.camera, own, key)
            waiting.append((Written(index, view.frame, path, shown), future))
            yield from settled(WAITING if shown.alpha.size <= LARGE else 0)
        yield from settled(0)
    ledger.tidy()


def _key(identity: str, view: View, style: Style) -> str:
    facts = view.camera.to_json()
    del facts["name"]
    made_from = [__version__, identity, facts, asdict(style)]
    text = json.dumps(made_from + [view.edits] * bool(view.edits), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
