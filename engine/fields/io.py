"""Fields as files: one self-describing .safetensors each.

The file's own metadata hold `format` ("triplane-field"), `version`, `field` (the field's metadata
as JSON, with its kind) and `sha256` over that JSON and every tensor's name, type, shape and bytes.
Nothing in a file is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import struct
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from engine.errors import OutputError, WeightsError
from engine.fields.base import Field, Origin, field_class

FORMAT = "triplane-field"
VERSION = "1"
HALF_FROM = 1 << 14  # tensors of fewer numbers (decoders) stay float32: halving them saves nothing
CODE, RECIPE = "origin.code", "origin"  # the latent code and its recipe, see Origin
_HEADER_LIMIT = 1 << 24  # bytes; a header of ours has a few thousand

_REMEDY = "Save the field again, or reconstruct the head once more."


def field_to_bytes(field: Field, half: bool = True) -> bytes:
    """The field as the bytes of a .safetensors file.

    half: large float32 tensors are stored as float16 (unless a number is too large for it), which
    halves the file; they come back as float32 with about three digits.
    """
    tensors = {}
    for name, tensor in field.tensors().items():
        tensor = tensor.detach().cpu().contiguous()
        tensors[name] = _halved(tensor) if half else tensor
    details = {**field.metadata(), "kind": field.kind}
    if field.origin is not None:
        tensors[CODE] = field.origin.code.detach().float().cpu().contiguous()
        details[RECIPE] = field.origin.recipe
    described = json.dumps(details, sort_keys=True, allow_nan=False)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "field": described,
        "sha256": _digest(described, tensors),
    }
    return safetensors.torch.save(tensors, metadata)


def save_field(field: Field, path: str | os.PathLike, half: bool = True) -> None:
    """Write the field to a file, whole or not at all; half as in field_to_bytes. Raises OutputError
    where it cannot be written."""
    data = field_to_bytes(field, half)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"The field cannot be written to {path.name}: {error.strerror or error}.",
            "Choose a folder that can be written to, with enough free space.",
        ) from error


def load_field(source: str | os.PathLike | bytes) -> Field:
    """A field from a file's path or its bytes, on the CPU.

    Raises WeightsError if it is missing, no field, damaged (the hash does not match), holds numbers
    that are not finite, or of a kind that this version does not know.
    """
    data = source if isinstance(source, bytes) else read_file(source)
    metadata = _file_metadata(data)
    if metadata.get("format") != FORMAT:
        raise WeightsError("The file is a .safetensors file, but not a Triplane field.")
    if metadata.get("version") != VERSION:
        raise WeightsError(
            "The field was saved in a format that this version does not know.",
            "Update Triplane.",
        )
    try:
        tensors = safetensors.torch.load(data)
        described = metadata["field"]
        whole = _digest(described, tensors) == metadata["sha256"]
        details = json.loads(described)
        kind = details["kind"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged() from error
    if not whole:
        raise _damaged()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor = tensor.float()
            if not torch.isfinite(tensor).all():
                raise WeightsError("The field holds numbers that are not finite.", _REMEDY)
    try:
        code, recipe = tensors.pop(CODE, None), details.pop(RECIPE, None)
        field = field_class(kind).from_saved(tensors, details)
        if code is not None:
            field.origin = Origin(code, dict(recipe))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError("The field's parts do not fit together.", _REMEDY) from error
    return field


def _damaged() -> WeightsError:
    return WeightsError("The field's file is damaged or incomplete.", _REMEDY)


def read_file(path: str | os.PathLike) -> bytes:
    """A field file's bytes, for load_field. Raises WeightsError if it cannot be read."""
    path = Path(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError.unreadable("field", path.name, error) from error


def _file_metadata(data: bytes) -> dict[str, str]:
    """The metadata of a .safetensors file: an 8-byte length, then JSON."""
    if len(data) < 8:
        raise _damaged()
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_HEADER_LIMIT, len(data) - 8):
        raise _damaged()
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise _damaged() from error
    return metadata if isinstance(metadata, dict) else {}


def _digest(described: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype != torch.float32 or tensor.numel() < HALF_FROM:
        return tensor
    if tensor.abs().max() > torch.finfo(torch.float16).max:
        return tensor
    return tensor.half()
