"""Model files written and read: whole or not at all, one tensor in memory beside the result."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from engine.checkpoints.header import (
    FORMAT,
    VERSION,
    damaged,
    read_header,
    read_record,
    tensor_line,
)
from engine.checkpoints.registry import output_error
from engine.errors import WeightsError

Check = Callable[[], None]


def write_model(
    path: Path,
    record: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    check: Check = lambda: None,
) -> None:
    """Write a model file: tensors as float32 by name. Its folder is made; an existing file is
    replaced. Raises OutputError; then, or when check raises, nothing is left behind."""
    described = json.dumps(record, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(described.encode())
    entries: dict[str, Any] = {}
    at = 0
    for name in sorted(tensors):
        tensor = _numbers(tensors[name])
        digest.update(tensor_line(name, "F32", tensor.shape))
        digest.update(tensor.reshape(-1))
        entries[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
        check()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": described,
        "sha256": digest.hexdigest(),
    }
    head = json.dumps({"__metadata__": metadata, **entries}).encode()
    head += b" " * (-len(head) % 8)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            for name in entries:
                file.write(_numbers(tensors[name]))
                check()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        with suppress(OSError):
            if made:
                path.parent.rmdir()
        if isinstance(error, OSError):
            raise output_error(path.parent, error) from error
        raise


def read_model(
    path: str | os.PathLike, check: Check = lambda: None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(record, tensors as float32) of a model file. Raises WeightsError if it is no model file or
    its hash does not match: the hash is taken of the bytes as they arrive, so that damage never
    becomes a strange picture; that costs about a tenth of a second for a published model."""
    record = read_record(read_header(path))
    return record, dict(stream_model(path, check))


def stream_model(
    path: str | os.PathLike, check: Check = lambda: None
) -> Iterator[tuple[str, np.ndarray]]:
    """A model file's tensors by name, one after the other, for models too large to be held twice.
    Raises WeightsError as read_model does, for a wrong hash only after the last tensor."""
    header = read_header(path)
    read_record(header)
    digest = hashlib.sha256(header.metadata["model"].encode())
    with open(path, "rb", buffering=0) as file:
        for name in sorted(header.entries):
            entry = header.entries[name]
            if entry.dtype != "F32":
                raise damaged()
            tensor = np.empty(entry.shape, "<f4")
            file.seek(entry.start)
            _fill(file, tensor)
            digest.update(tensor_line(name, "F32", entry.shape))
            digest.update(tensor.reshape(-1))
            yield name, tensor
            check()
    if digest.hexdigest() != header.metadata.get("sha256"):
        raise damaged()


def check_finite(name: str, tensor: np.ndarray) -> None:
    """Raises WeightsError if a number is infinite or not a number."""
    if not np.isfinite(tensor).all():
        raise WeightsError(
            f"The model's weights hold numbers that are not finite ({name[:80]}).",
            "Choose an earlier snapshot of the training.",
        )


def _numbers(tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor, "<f4").reshape(tensor.shape)


def _fill(file: Any, tensor: np.ndarray) -> None:
    room = memoryview(tensor.reshape(-1).view(np.uint8))
    while len(room):
        read = file.readinto(room)
        if not read:
            raise damaged()
        room = room[read:]
