"""A file from somewhere becomes one of the user's models.

What a file is, is read from its first bytes, not from its name: EG3D's training pickle, one of
torch.save's two formats, or .safetensors. Nothing is written before the model has been built, or of
the large ones every shape has been compared.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from engine.checkpoints import header, lrm, registry, torch_files, weights_only
from engine.checkpoints.model_file import check_finite, write_model
from engine.checkpoints.official import find_generator, names, plain
from engine.checkpoints.pickle_stream import Budget, Buffer, Machine, damaged, too_large
from engine.checkpoints.registry import ModelInfo
from engine.checkpoints.tensors import Storage, StoredTensor
from engine.errors import WeightsError

Progress = Callable[[float, str], None]

OFFICIAL_LICENCE = "NVIDIA Source Code License for EG3D: non-commercial"
# (x, y), (x, z), (z, x): the published layout, for files that hold tensors only.
OFFICIAL_AXES = [
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
    [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
]
_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NONCOMMERCIAL = re.compile(r"\bnc\b|non[- ]?commercial|\bresearch\b", re.IGNORECASE)
_RECORD_AT_MOST = 1 << 16  # characters; a published model's has three thousand
LRM_SYSTEMS = ("triposr", "openlrm")
_REMEDY = (
    "Choose a .pkl, .pt, .pth, .ckpt or .safetensors file with the weights of EG3D, TripoSR or "
    "OpenLRM."
)


class OneByOne(Mapping):
    """Tensors as float32, each read from its file when it is asked for: models of gigabytes are
    never held whole. size: bytes of the file. Raises WeightsError as read_tensors does."""

    def __init__(self, stored: dict[str, StoredTensor], size: int) -> None:
        _check_room(stored, size)
        self._stored = stored

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._stored[name].read()
        check_finite(name, tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@dataclass
class Source:
    """What a file holds: the record's parts that it tells, and its tensors, still in the file."""

    record: dict[str, Any]
    tensors: dict[str, StoredTensor]


def add_model(
    file: str | os.PathLike,
    name: str = "",
    folder: str | os.PathLike = "",
    *,
    like: str = "",
    metres: float | None = None,
    licence: str = "",
    config: str | os.PathLike = "",
    progress: Progress = lambda fraction, step: None,
    check: Callable[[], None] = lambda: None,
) -> ModelInfo:
    """Read a file with the weights of EG3D, TripoSR or OpenLRM and write it as the model `name`
    ("": after the file).

    like: for files that hold tensors only, the published model whose cameras it shares (see
    registry.LIKE). metres: size of a field unit; None: the record's, or guessed by the system.
    licence: a text for people; "": what is known of the file's kind. config: of TripoSR and
    OpenLRM, the config.yaml or config.json published beside the file; "": sizes follow from shapes.
    Raises WeightsError for files that cannot be used, ParameterError for a name that is taken,
    OutputError where the folder cannot be written; then nothing has changed.
    """
    file = Path(file)
    name = name or registry.suggest_name(file, folder)
    target = registry.check_new_name(folder, name)
    progress(0.0, "reading the file")
    with opened(file) as (handle, data):
        source = read_source(handle, data, like, config)
        sha256 = _hash(handle, len(data), progress, check)
        record = source.record
        large = record["system"] in LRM_SYSTEMS
        progress(0.4, "reading the weights")
        tensors: Mapping[str, np.ndarray] = (
            OneByOne(source.tensors, len(data))
            if large
            else read_tensors(source.tensors, len(data), check)
        )
        _complete(record, file, sha256, metres, licence)
        progress(0.6, "checking the model")
        if large:  # torch: late, so that most refusals come at once
            from engine.systems.lrm.open import check_shapes

            check_shapes(record, {n: t.shape for n, t in source.tensors.items()})
        else:
            from engine.checkpoints.open import build

            build(record, tensors)
        check()
        progress(0.8, "writing the model")
        registry.check_new_name(folder, name)  # somebody may have been faster
        write_model(target, record, tensors, check)
    return registry.describe(target)


def _complete(
    record: dict[str, Any], file: Path, sha256: str, metres: float | None, licence: str
) -> None:
    """Write into the record what the caller says and where the file came from."""
    record["source"] = record.get("source") or {
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": sha256,
    }
    if metres is not None:
        record["metres_per_unit"] = metres
    if licence:
        record["licence"] = licence
        record["noncommercial"] = bool(_NONCOMMERCIAL.search(licence))
    if len(json.dumps(record)) > _RECORD_AT_MOST:
        raise too_large()


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Buffer]]:
    """The file and its bytes, mapped. Raises WeightsError for what is no file or empty."""
    if path.is_dir():
        raise WeightsError(f"{path.name} is a folder, not a model's file.", _REMEDY)
    try:
        handle = open(path, "rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(
            f"The file {path.name} cannot be read: {reason}.", "Check where the file is."
        ) from error
    with handle:
        if not os.fstat(handle.fileno()).st_size:
            raise WeightsError(f"The file {path.name} is empty.", _REMEDY)
        data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            yield handle, data
        finally:
            with suppress(BufferError):  # an error's traceback may still hold a view of it
                data.close()


def read_source(
    handle: BinaryIO, data: Buffer, like: str = "", config: str | os.PathLike = ""
) -> Source:
    """What the file holds, by its first bytes; like and config as in add_model. Raises
    WeightsError."""
    budget = Budget()
    table = names(budget)
    if data[:4] == torch_files.ZIP_START:
        root = torch_files.read_zip(handle, data, table, budget)
    elif data[: len(torch_files.LEGACY_START)] == torch_files.LEGACY_START:
        root = torch_files.read_legacy(data, 0, len(data), table, budget)
    elif data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        machine = Machine(data, 0, len(data), table, budget)
        root = machine.run()
        if machine.at != len(data):
            raise damaged()
    elif data[8:9] == b"{" and data[6:8] == b"\0\0":
        return _safetensors(handle, data, like, config)
    else:
        raise WeightsError(f"{Path(handle.name).name} is not a model's file.", _REMEDY)
    found = find_generator(root)
    if found is None:
        return _weights_only(root, like, config)
    _no_config(config)
    axes = found.axes.read()
    check_finite("plane_axes", axes)
    return Source(
        {
            "system": "eg3d",
            "init_kwargs": found.init_kwargs,
            "rendering_kwargs": found.rendering_kwargs,
            "neural_rendering_resolution": found.neural_resolution,
            "plane_axes": axes.tolist(),
            "metres_per_unit": None,
            "licence": OFFICIAL_LICENCE,
            "noncommercial": True,
        },
        found.tensors,
    )


def read_tensors(
    stored: dict[str, StoredTensor], size: int, check: Callable[[], None] = lambda: None
) -> dict[str, np.ndarray]:
    """All tensors as float32; size: bytes of the file. Raises WeightsError if they are not finite,
    or together larger than the file that they are said to come from."""
    _check_room(stored, size)
    tensors = {}
    for name, tensor in stored.items():
        check()
        tensors[name] = tensor.read()
        check_finite(name, tensors[name])
    return tensors


def _check_room(stored: dict[str, StoredTensor], size: int) -> None:
    """Raises WeightsError if tensors are together larger than the file of `size` bytes."""
    room = size
    for tensor in stored.values():
        room -= tensor.count * (tensor.storage.nbytes // max(tensor.storage.count, 1))
    if room < 0:
        raise too_large()


def _safetensors(
    handle: BinaryIO, data: Buffer, like: str, config: str | os.PathLike
) -> Source:
    head = header.read_header(handle.name)
    stored = {}
    for name, entry in head.entries.items():
        count = (entry.stop - entry.start) // header.BYTES[entry.dtype]
        storage = Storage(data, _SAFETENSORS[entry.dtype], entry.start, count).checked(len(data))
        stored[name] = StoredTensor(storage, 0, entry.shape, _steps(entry.shape))
    if head.metadata.get("format") == header.FORMAT:  # one of ours again
        _no_config(config)
        header.verify(handle.name)
        return Source(header.read_record(head), stored)
    return _weights_only(stored, like, config)


def _weights_only(root: Any, like: str, config: str | os.PathLike) -> Source:
    """A file that holds tensors, and perhaps OpenLRM's arguments, in dictionaries."""
    flat = weights_only.flatten(root)
    found = lrm.find_layout(flat)
    if found is not None:
        layout, prefix = found
        stored = {n[len(prefix) :]: t for n, t in flat.items() if n.startswith(prefix)}
        given = lrm.read_config(config) if os.fspath(config) else _arguments(root)
        shapes = {name: tensor.shape for name, tensor in stored.items()}
        return Source(lrm.guess_record(layout, shapes, given), stored)
    _no_config(config)
    stored = weights_only.find_tensors(flat)
    record = weights_only.guess_record({n: t.shape for n, t in stored.items()}, like)
    record |= {
        "system": "eg3d",
        "plane_axes": OFFICIAL_AXES,
        "metres_per_unit": None,
        "licence": "",
        # Nothing says so, but most such weights descend from the published ones.
        "noncommercial": True,
    }
    return Source(record, stored)


def _arguments(root: Any) -> dict[str, Any]:
    """What OpenLRM 1.0 keeps beside its weights; {} where there is nothing."""
    given = root.get("kwargs") if isinstance(root, dict) else None
    return plain(given) if isinstance(given, dict) else {}


def _no_config(config: str | os.PathLike) -> None:
    if os.fspath(config):
        raise WeightsError(
            "Only TripoSR's and OpenLRM's weights come with a config of their own.",
            "Add this file without one.",
        )


def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps = []
    step = 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


def _hash(handle: BinaryIO, size: int, progress: Progress, check: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    handle.seek(0)
    done = 0
    while piece := handle.read(header.CHUNK):
        check()
        digest.update(piece)
        done += len(piece)
        progress(0.05 + 0.35 * done / size, "reading the file")
    return digest.hexdigest()
