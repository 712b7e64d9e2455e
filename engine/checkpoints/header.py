"""The head of a .safetensors file, and the hash of a model file. Standard library only, so that
Blender can list and verify models without loading anything.

A model file is one .safetensors whose metadata hold `format` ("triplane-model"), `version`, `model`
(a record as JSON: system, constructor's and rendering arguments, plane axes, source, licence) and
`sha256` over that record and every tensor's name, type, shape and bytes, by name.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError

FORMAT = "triplane-model"
VERSION = "1"
HEADER_AT_MOST = 8 << 20  # bytes; a published model's has 20 thousand
CHUNK = 1 << 22
BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip
_REMEDY = "Add the model again from its original file."


@dataclass(frozen=True)
class Entry:
    """A tensor's place: its bytes are start..stop of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """metadata: texts by name; entries: tensors by name; size: of the file, in bytes."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    size: int


def damaged() -> WeightsError:
    """The sentence for a file that contradicts itself."""
    return WeightsError("The model's file is damaged or incomplete.", _REMEDY)


def file_state(path: str | os.PathLike, what: str = "model") -> tuple[str, int, int]:
    """The whole path of a file, when it changed and its size: what caches of opened files tell
    them apart by. Raises WeightsError, about a "model" or a "field"."""
    path = os.path.abspath(path)
    try:
        facts = os.stat(path)
    except OSError as error:
        raise WeightsError.unreadable(what, os.path.basename(path), error) from error
    return path, facts.st_mtime_ns, facts.st_size


def read_header(path: str | os.PathLike) -> Header:
    """The checked head of a .safetensors file; reads nothing else. Raises WeightsError."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(HEADER_AT_MOST, size - 8):
                raise damaged()
            described = json.loads(file.read(length))
        metadata = described.pop("__metadata__", {})
        if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
            raise damaged()
        entries = {k: _entry(v, 8 + length) for k, v in described.items()}
    except OSError as error:
        raise WeightsError.unreadable("model", Path(path).name, error) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise damaged() from error
    # As the format demands: one after another without gaps or overlaps, up to the file's end.
    at = 8 + length
    for entry in sorted(entries.values(), key=lambda e: (e.start, e.stop)):
        if entry.start != at:
            raise damaged()
        at = entry.stop
    if at != size:
        raise damaged()
    return Header(metadata, entries, size)


def _entry(described: dict[str, Any], base: int) -> Entry:
    shape = tuple(described["shape"])
    start, stop = described["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, start, stop)) or len(shape) > 8:
        raise damaged()
    if stop - start != math.prod(shape) * BYTES[described["dtype"]]:
        raise damaged()
    return Entry(described["dtype"], shape, base + start, base + stop)


def read_record(header: Header) -> dict[str, Any]:
    """The record of a model file. Raises WeightsError if it is none, or of another version."""
    if header.metadata.get("format") != FORMAT:
        raise WeightsError(
            "The file is a .safetensors file, but not a model of Triplane's.",
            "Add it to the models first.",
        )
    if header.metadata.get("version") != VERSION:
        raise WeightsError(
            "The model was written in a format that this version does not know.", "Update Triplane."
        )
    try:
        record = json.loads(header.metadata["model"])
    except (KeyError, ValueError, RecursionError) as error:
        raise damaged() from error
    if not isinstance(record, dict) or not isinstance(record.get("system"), str):
        raise damaged()
    return record


def tensor_line(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """What the hash takes of a tensor before its bytes."""
    return f"\n{name} {dtype} {list(shape)}\n".encode("utf-8", "surrogatepass")


def verify(path: str | os.PathLike, check: Callable[[], None] = lambda: None) -> None:
    """Raises WeightsError unless the file is a model file with the hash that it tells.

    check: called between pieces, may raise to cancel.
    """
    header = read_header(path)
    read_record(header)
    digest = hashlib.sha256(header.metadata["model"].encode())
    with open(path, "rb") as file:
        for name in sorted(header.entries):
            entry = header.entries[name]
            digest.update(tensor_line(name, entry.dtype, entry.shape))
            file.seek(entry.start)
            left = entry.stop - entry.start
            while left:
                check()
                piece = file.read(min(left, CHUNK))
                if not piece:
                    raise damaged()
                digest.update(piece)
                left -= len(piece)
    if digest.hexdigest() != header.metadata.get("sha256"):
        raise damaged()
