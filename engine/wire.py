"""Messages between Blender and the engine's process: framing and arrays. numpy only, no pickle.

A message is

    b"TPW1"  u32 header length  u64 body length      (little-endian, 16 bytes)
    header   JSON object, UTF-8
    body     empty, or arrays in the safetensors format

The safetensors format (https://huggingface.co/docs/safetensors) is a u64 length, a JSON object
{name: {"dtype", "shape", "data_offsets": [begin, end]}} and the arrays' bytes back to back. Both
ends check everything they read: a process that prints garbage makes a WireError, never a hang on
a huge allocation or a wrong array.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, BinaryIO

import numpy as np

PROTOCOL = 1
MAX_HEADER = 16 << 20  # bytes of JSON; 100,000 pictures' paths fit
MAX_BODY = 2 << 30  # bytes of arrays; an 8192 x 8192 texture with its photo and field is 0.4 GB

_MAGIC = b"TPW1"
_FRAME = struct.Struct("<4sIQ")
_LENGTH = struct.Struct("<Q")
_MAX_ARRAY_AXES = 8
_DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class WireError(Exception):
    """The stream is not a message of ours: garbage, oversize, cut off, or a closed pipe."""


def write_message(
    stream: BinaryIO, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write one message and flush.

    header: JSON-able after json_safe; at most MAX_HEADER bytes.
    arrays: of the dtypes bool, (u)int8..64, float16..64, any shape; at most MAX_BODY bytes.
    Raises WireError if the pipe is closed. Before anything is written: ValueError for a message
    that is too large, TypeError for values that cannot travel.
    """
    head = json.dumps(json_safe(header), allow_nan=False, separators=(",", ":")).encode()
    body = pack_arrays(arrays) if arrays else []
    size = sum(len(part) for part in body)
    if len(head) > MAX_HEADER or size > MAX_BODY:
        raise ValueError(f"the message is too large: {len(head)} + {size} bytes")
    try:
        for part in (_FRAME.pack(_MAGIC, len(head), size) + head, *body):
            _write_all(stream, part)
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream object was closed
        raise WireError(f"the pipe is closed: {error}") from error


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Read one message; blocks. None at the end of the stream.

    Returns the header and the arrays (writable, C-contiguous, sharing one buffer). Raises
    WireError for anything else than a whole message; the stream cannot be used after that.
    """
    frame = _read_exactly(stream, _FRAME.size, may_end=True)
    if frame is None:
        return None
    magic, head_size, body_size = _FRAME.unpack(frame)
    if magic != _MAGIC:
        raise WireError(f"not a message: it begins with {bytes(frame)!r}")
    if head_size > MAX_HEADER or body_size > MAX_BODY:
        raise WireError(f"the message is too large: {head_size} + {body_size} bytes")
    header = _json_object(_read_exactly(stream, head_size), "header")
    return header, unpack_arrays(_read_exactly(stream, body_size)) if body_size else {}


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> list[bytes | memoryview]:
    """Arrays as the parts of a safetensors file, the data without copying where possible.

    Raises TypeError for a dtype outside the format.
    """
    prepared = []
    for name, array in arrays.items():
        array = np.asarray(array)
        dtype = array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype
        if dtype not in _NAMES:
            raise TypeError(f"array {name!r} of dtype {array.dtype} cannot travel")
        prepared.append((name, np.asarray(array, dtype, order="C")))
    # Widest first, as the format's own writer does it: every array is then aligned in the buffer.
    prepared.sort(key=lambda item: -item[1].dtype.itemsize)
    table, offset = {}, 0
    for name, array in prepared:
        table[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    data = [memoryview(a.reshape(-1).view(np.uint8)) for _, a in prepared if a.nbytes]
    return [_LENGTH.pack(len(head)) + head, *data]


def unpack_arrays(buffer: bytes | bytearray | memoryview) -> dict[str, np.ndarray]:
    """Inverse of pack_arrays, for a whole safetensors file of the same dtypes.

    The arrays are views of `buffer` (writable if it is). Raises WireError unless every entry is
    well-formed and the entries cover the data exactly, without gap or overlap.
    """
    view = memoryview(buffer)
    if len(view) < _LENGTH.size:
        raise WireError("the arrays are cut off")
    (head_size,) = _LENGTH.unpack(view[: _LENGTH.size])
    start = _LENGTH.size + head_size
    if head_size > MAX_HEADER or start > len(view):
        raise WireError("the arrays' table is longer than the message")
    table = _json_object(view[_LENGTH.size : start], "table of arrays")
    table.pop("__metadata__", None)
    entries = [(*_checked_entry(name, entry), name) for name, entry in table.items()]
    entries.sort(key=lambda e: e[:2])
    data, expected, views = view[start:], 0, {}
    for begin, end, dtype, shape, name in entries:
        if begin != expected:
            raise WireError(f"array {name!r} overlaps another or leaves a gap")
        if end > len(data):
            raise WireError(f"array {name!r} is cut off")
        views[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
        expected = end
    if expected != len(data):
        raise WireError("there is data after the last array")
    return {name: views[name] for name in table}


def json_safe(value: Any) -> Any:
    """`value` in JSON's own types: numpy scalars and small arrays become numbers and lists, paths
    strings, infinite and undefined numbers null. Raises TypeError for anything else."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return json_safe(value.tolist())
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot travel in a message's header")


def _checked_entry(name: str, entry: Any) -> tuple[int, int, np.dtype, list[int]]:
    try:
        dtype = _DTYPES[entry["dtype"]]
        shape = entry["shape"]
        begin, end = entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise WireError(f"array {name!r} has no valid description") from error
    if not isinstance(shape, list) or len(shape) > _MAX_ARRAY_AXES:
        raise WireError(f"array {name!r} has no valid shape")
    if not _are_counts((*shape, begin, end)):
        raise WireError(f"array {name!r} has no valid shape or offsets")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise WireError(f"array {name!r} has another size than its shape says")
    return begin, end, dtype, shape


def _are_counts(values: Iterable[Any]) -> bool:
    return all(type(v) is int and 0 <= v <= MAX_BODY for v in values)


def _json_object(data: bytearray | memoryview, what: str) -> dict[str, Any]:
    try:
        value = json.loads(bytes(data).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"the message's {what} is not JSON") from error
    if not isinstance(value, dict):
        raise WireError(f"the message's {what} is not a JSON object")
    return value


def _read_exactly(stream: BinaryIO, size: int, may_end: bool = False) -> bytearray | None:
    """`size` bytes, however the pipe chops them; None if `may_end` and the stream is at its end."""
    try:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            # A pipe gives what it has; read(n) of an unbuffered stream may be short.
            count = stream.readinto(view[done:])
            if not count:
                if may_end and done == 0:
                    return None
                raise WireError(f"the stream ended after {done} of {size} bytes")
            done += count
    except (OSError, ValueError, MemoryError) as error:
        raise WireError(f"the message cannot be read: {error}") from error
    return data


def _write_all(stream: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[stream.write(view) or 0 :]
