"""How a JPEG wants to be turned: Blender shows its pixels as stored, the engine as meant."""

from __future__ import annotations

import struct


def orientation(path: str) -> int:
    """EXIF's orientation of the JPEG file at `path`, 1..8; 1 for any other or damaged file."""
    try:
        with open(path, "rb") as file:
            return _orientation(file.read(1 << 17))
    except (OSError, struct.error, IndexError):
        return 1


def turned(x: float, y: float, width: int, height: int, how: int) -> tuple[float, float]:
    """Where the point (x, y) of the stored image (from its top left) lies in the turned one.

    width, height: of the stored image. how: EXIF's orientation.
    """
    right, low = width - x, height - y
    return {
        2: (right, y),
        3: (right, low),
        4: (x, low),
        5: (y, x),
        6: (low, x),
        7: (low, right),
        8: (y, right),
    }.get(how, (x, y))


def _orientation(data: bytes) -> int:
    if data[:2] != b"\xff\xd8":
        return 1
    place = 2
    while data[place] == 0xFF and data[place + 1] != 0xDA:  # segments, up to the pixels
        kind, length = struct.unpack(">xBH", data[place : place + 4])
        segment = data[place + 4 : place + 2 + length]
        if kind == 0xE1 and segment[:6] == b"Exif\0\0":
            return _tag(segment[6:])
        place += 2 + length
    return 1


def _tag(tiff: bytes) -> int:
    order = "<" if tiff[:2] == b"II" else ">"
    start = struct.unpack(order + "I", tiff[4:8])[0]
    (count,) = struct.unpack(order + "H", tiff[start : start + 2])
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack(order + "HHIH", tiff[entry : entry + 10])
        if tag == 0x0112 and 1 <= value <= 8:
            return value
    return 1
