"""What torch.save has written, in both of its formats, read by the inert machine.

The old one ("legacy") is a row of small pickles (a magic number, a version, facts on the machine,
the object, the storages' keys) and then each storage's count and numbers; inside other pickles the
same bytes stand for one storage. The new one is a zip archive, uncompressed, with the object in
`data.pkl` and one member a storage. In both, a storage in the object is a persistent id.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

from engine.checkpoints.pickle_stream import (
    REMEDY,
    Blob,
    Budget,
    Buffer,
    Machine,
    Name,
    damaged,
    too_large,
)
from engine.checkpoints.tensors import DTYPES, Storage
from engine.errors import WeightsError

Names = Mapping[tuple[str, str], Name]

LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # the magic number
ZIP_START = b"PK\x03\x04"
MEMBERS_AT_MOST = 20_000
DIRECTORY_AT_MOST = 4 << 20  # bytes
_VERSION = 1001

_KINDS = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "Untyped": "uint8",
}  # fmt: skip
STORAGES: dict[tuple[str, str], Name] = {
    (module, f"{kind}Storage"): Name(f"{module}.{kind}Storage", detail=dtype)
    for kind, dtype in _KINDS.items()
    for module in ("torch", "torch.storage")
}


def read_legacy(data: Buffer, start: int, end: int, names: Names, budget: Budget) -> Any:
    """The object of a legacy file or payload that fills data[start:end]. Raises WeightsError."""
    at = start + len(LEGACY_START)
    if data[start:at] != LEGACY_START:
        raise damaged()
    at, version = _plain(data, at, end, budget)
    at, system = _plain(data, at, end, budget)
    little = isinstance(system, dict) and system.get("little_endian") is True
    if version != _VERSION or not little:
        raise WeightsError("The model's file was written by an unknown kind of machine.", REMEDY)
    wanted: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        key, dtype, count = _identity(identity)
        known = wanted.setdefault(key, Storage(data, dtype, 0, count))
        if (known.dtype, known.count) != (dtype, count):
            raise damaged()
        return known

    machine = Machine(data, at, end, {**names, **STORAGES}, budget, persistent)
    value = machine.run()
    at, keys = _plain(data, machine.at, end, budget)
    if not isinstance(keys, list) or any(not isinstance(k, str) for k in keys):
        raise damaged()
    if len(set(keys)) != len(keys) or set(keys) != set(wanted):
        raise damaged()
    for key in keys:
        storage = wanted[key]
        if end - at < 8 or struct.unpack_from("<q", data, at)[0] != storage.count:
            raise damaged()
        storage.start = at + 8
        at = storage.checked(end).start + storage.nbytes
    if at != end:
        raise damaged()
    return value


def read_payload(blob: Blob, budget: Budget) -> Storage:
    """The storage that torch.storage._load_from_bytes would make of these bytes."""
    value = read_legacy(blob.data, blob.start, blob.start + blob.length, {}, budget)
    if not isinstance(value, Storage):
        raise damaged()
    return value


def read_zip(file: BinaryIO, data: Buffer, names: Names, budget: Budget) -> Any:
    """The object of a zip file; data: the whole file, mapped. Raises WeightsError."""
    members = _members(file, data)
    objects = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(objects) != 1:
        raise WeightsError(
            "The zip archive is not one that torch.save has written.",
            "Choose the model's own file.",
        )
    folder = objects[0].partition("/")[0]
    order = members.get(f"{folder}/byteorder")
    if order and bytes(data[order[0] : order[0] + min(order[1], 16)]) != b"little":
        raise WeightsError("The model's file was written by an unknown kind of machine.", REMEDY)
    known: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        key, dtype, count = _identity(identity)
        place = members.get(f"{folder}/data/{key}")
        if place is None:
            raise damaged()
        storage = known.setdefault(key, Storage(data, dtype, place[0], count))
        if (storage.dtype, storage.count) != (dtype, count) or storage.nbytes > place[1]:
            raise damaged()
        return storage

    start, length = members[objects[0]]
    machine = Machine(data, start, start + length, {**names, **STORAGES}, budget, persistent)
    value = machine.run()
    if machine.at != start + length:
        raise damaged()
    return value


def _plain(data: Buffer, at: int, end: int, budget: Budget) -> tuple[int, Any]:
    """A pickle without any names: (the byte after it, its value)."""
    machine = Machine(data, at, end, {}, budget)
    value = machine.run()
    return machine.at, value


def _identity(identity: Any) -> tuple[str, str, int]:
    """(key, number type, count) of a storage's persistent id."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise damaged()
    kind, key, _device, count = identity[1:5]
    if len(identity) == 6 and identity[5] is not None:  # a view of another storage, of old times
        raise damaged()
    if not isinstance(kind, Name) or kind.detail not in DTYPES:
        raise damaged()
    if not isinstance(key, str) or not key or "/" in key:
        raise damaged()
    if type(count) is not int or count < 0:
        raise damaged()
    return key, kind.detail, count


def _members(file: BinaryIO, data: Buffer) -> dict[str, tuple[int, int]]:
    """Where each member's bytes are: {name: (start, length)}. Nothing is ever unpacked to disk."""
    entries, size = _directory(data)
    if entries > MEMBERS_AT_MOST or size > DIRECTORY_AT_MOST:
        raise too_large()
    try:
        with zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise damaged(error) from error
    members: dict[str, tuple[int, int]] = {}
    for info in listed:
        name = info.orig_filename
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or ":" in name:
            raise WeightsError(
                "The archive holds a file that wants to be written elsewhere.", REMEDY
            )
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise WeightsError(
                "The archive is compressed, which torch.save never does.",
                "Choose the file as torch.save has written it.",
            )
        header = info.header_offset
        if name in members or info.flag_bits & 1 or not 0 <= header <= len(data) - 30:
            raise damaged()
        if data[header : header + 4] != ZIP_START:
            raise damaged()
        start = header + 30 + sum(struct.unpack_from("<HH", data, header + 26))
        if start + info.file_size > len(data):
            raise damaged()
        members[name] = (start, info.file_size)
    return members


def _directory(data: Buffer) -> tuple[int, int]:
    """(entries, bytes) of the archive's directory, before anybody reads it into memory."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - 22 - (1 << 16)))
    if at < 0 or len(data) - at < 22:
        raise damaged()
    entries, size = struct.unpack_from("<HI", data, at + 10)
    where = at - 20
    if where >= 0 and data[where : where + 4] == b"PK\x06\x07":  # then it counts, see zipfile
        (place,) = struct.unpack_from("<Q", data, where + 8)
        if place > len(data) - 56 or data[place : place + 4] != b"PK\x06\x06":
            raise damaged()
        entries, size = struct.unpack_from("<QQ", data, place + 32)
    return entries, size
