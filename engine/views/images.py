"""Picture files that Pillow cannot write: PNG with 16 bits and alpha, and multilayer OpenEXR."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np

from engine.surface.export import output_error
from engine.views.frame import Frame

LAYER = "Head"
NOTHING = 1e10  # depth where nothing is, as in Blender's own Depth pass


def png_bytes(image: np.ndarray) -> bytes:
    """uint8 or uint16 [H, W], [H, W, 3] or [H, W, 4] as the bytes of a PNG.

    Rows are stored as differences from the row above (filter 2), which suits smooth pictures.
    Source: W3C, "Portable Network Graphics (PNG) Specification", third edition.
    """
    image = image[..., None] if image.ndim == 2 else image
    height, width, channels = image.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    bits = image.dtype.itemsize * 8
    rows = np.ascontiguousarray(image.astype(f">u{bits // 8}")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(filtered.data, 3)),
            (b"IEND", b""),
        )
    )


def linear(display: np.ndarray) -> np.ndarray:
    """Display sRGB 0..1 to linear light (IEC 61966-2-1)."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def write_exr(path: Path, frame: Frame, unit: float, turn: np.ndarray) -> None:
    """Write a frame as multilayer OpenEXR, whole or not at all; raises OutputError.

    Passes as Blender names them, in the layer Head: Combined (linear, premultiplied, half floats),
    Depth (NOTHING where nothing is) and, if the frame has normals, Normal.
    unit: scene units per unit of the frame's depth; turn: [3, 3], normals (columns) from field axes
    to the scene's.
    """
    import OpenEXR  # a compiled library: only where it is needed

    colour = linear(frame.colour) * frame.alpha[..., None]
    channels = {
        f"{LAYER}.Combined.{c}": np.ascontiguousarray(colour[..., i], np.float16)
        for i, c in enumerate("RGB")
    }
    channels[f"{LAYER}.Combined.A"] = frame.alpha.astype(np.float16)
    depth = np.where(np.isfinite(frame.depth), frame.depth * unit, NOTHING)
    channels[f"{LAYER}.Depth.Z"] = depth.astype(np.float32)
    if frame.normals is not None:
        normals = frame.normals @ turn.T
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        for i, c in enumerate("XYZ"):
            channels[f"{LAYER}.Normal.{c}"] = np.ascontiguousarray(normals[..., i], np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with OpenEXR.File(header, channels) as file:
            file.write(str(part))
        with open(part, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        known = error if isinstance(error, OSError) else OSError(0, str(error)[:200])
        raise output_error(path, known) from error
    finally:
        part.unlink(missing_ok=True)
