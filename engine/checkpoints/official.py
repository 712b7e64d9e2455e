"""EG3D's training pickles: what their names stand for here, and the generator inside them.

Such a file is a dictionary with the networks G, D and G_ema, each with its source code as a text
that the original program executes; here it is a text and nothing else. G_ema (the generator's
running average) is what pictures are made with.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from engine.checkpoints.pickle_stream import (
    REMEDY,
    Blob,
    Budget,
    Items,
    Name,
    Obj,
    damaged,
    printable,
    too_large,
)
from engine.checkpoints.tensors import Storage, StoredTensor
from engine.checkpoints.torch_files import read_payload
from engine.errors import WeightsError

Names = dict[tuple[str, str], Name]
CLASS = "TriPlaneGenerator"
POSITIONAL = (
    "z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "sr_num_fp16_res",
    "mapping_kwargs", "rendering_kwargs", "sr_kwargs",
)  # fmt: skip
_PARTS = ("_parameters", "_buffers", "_modules")
_PARTS_AT_MOST = 20_000  # of all modules together
_DEPTH_AT_MOST = 24
_VALUES_AT_MOST = 2000  # of a network's arguments
_VERSION = 6
_PLAIN_CLASSES = (
    ("torch.nn.modules.activation", "Softplus"),
    ("torch.nn.modules.container", "Sequential"),
    ("training.triplane", "OSGDecoder"),
    ("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
    ("training.volumetric_rendering.ray_sampler", "RaySampler"),
    ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
)


@dataclass
class Generator:
    """What a file says about a generator. Arguments are JSON-able; axes is three 3 x 3 matrices."""

    tensors: dict[str, StoredTensor]
    init_kwargs: dict[str, Any]
    rendering_kwargs: dict[str, Any]
    neural_resolution: int
    axes: StoredTensor


def names(budget: Budget) -> Names:
    """Every name that such files, and torch.save of their networks, may mention."""
    table: Names = {}

    def add(module: str, name: str, call: Any = None, new: Any = None) -> None:
        table[module, name] = Name(f"{module}.{name}", call, new)

    def payload(blob: Blob) -> Storage:
        return read_payload(_checked(blob, Blob), budget)

    add("collections", "OrderedDict", lambda: Items())
    add("dnnlib.util", "EasyDict", new=Items)
    add("torch._utils", "_rebuild_parameter", _parameter)
    add("torch._utils", "_rebuild_tensor_v2", _tensor)
    add("torch.storage", "_load_from_bytes", payload)
    add("torch_utils.persistence", "_reconstruct_persistent_obj", _persistent)
    add("numpy", "dtype", _NumberType)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        add(module, "scalar", _scalar)
    for module in ("builtins", "__builtin__"):  # how protocol 2 writes sets and bytes
        add(module, "set", _set)
    add("_codecs", "encode", _encode)
    for module, name in _PLAIN_CLASSES:
        add(module, name, new=lambda name=name: Obj(name))
    return table


def find_generator(root: Any) -> Generator | None:
    """The generator in a file's value: G_ema of a training pickle, or a network saved alone; None
    where there is no network object at all. Raises WeightsError for other networks."""
    if isinstance(root, Obj):
        return _generator(root)
    if not isinstance(root, dict):
        return None
    if isinstance(root.get("G_ema"), Obj):
        return _generator(root["G_ema"])
    if any(isinstance(value, Obj) for value in root.values()):
        raise WeightsError(
            "The file holds networks, but no averaged generator (G_ema).",
            "Choose a snapshot that training has saved as a whole.",
        )
    return None


def _generator(network: Obj) -> Generator:
    if network.name != CLASS:
        raise WeightsError(
            f"The file's network is a {printable(network.name)}, not EG3D's {CLASS}.",
            "Choose a file that EG3D's training has saved.",
        )
    state = network.state
    given = plain(state.get("_init_args", ())) or []
    if not isinstance(given, list) or len(given) > len(POSITIONAL):
        raise damaged()
    arguments = dict(zip(POSITIONAL, given)) | _dictionary(state.get("_init_kwargs", {}))
    # The object's own settings: training may have changed them since it was constructed.
    rendering = _dictionary(state.get("rendering_kwargs", arguments.get("rendering_kwargs")))
    resolution = plain(state.get("neural_rendering_resolution"))
    if type(resolution) is not int or not 1 <= resolution <= 4096:
        raise damaged()
    renderer = _checked(state.get("_modules"), dict).get("renderer")
    axes = renderer.state.get("plane_axes") if isinstance(renderer, Obj) else None
    if not isinstance(axes, StoredTensor) or axes.shape != (3, 3, 3):
        raise WeightsError("The file does not say how its three planes lie.", REMEDY)
    return Generator(tensors_of(network), arguments, rendering, resolution, axes)


def tensors_of(network: Obj) -> dict[str, StoredTensor]:
    """What state_dict() of the module tree would hold: parameters and lasting buffers by name.
    Raises WeightsError."""
    found: dict[str, StoredTensor] = {}
    waiting = [("", network, 0)]
    left = _PARTS_AT_MOST
    while waiting:
        prefix, module, depth = waiting.pop()
        parts = [_checked(module.state.get(k, {}), dict) for k in _PARTS]
        left -= 1 + sum(len(p) for p in parts)
        if left < 0 or depth > _DEPTH_AT_MOST:  # modules may be shared, or hold themselves
            raise too_large()
        passing = _checked(module.state.get("_non_persistent_buffers_set", set()), set)
        parameters, buffers, children = parts
        lasting = {k: v for k, v in buffers.items() if k not in passing}
        for name, tensor in (parameters | lasting).items():
            if tensor is not None:
                found[prefix + _part(name)] = _checked(tensor, StoredTensor)
        waiting += [
            (f"{prefix}{_part(name)}.", _checked(child, Obj), depth + 1)
            for name, child in reversed(children.items())
            if child is not None
        ]
    return found


def plain(value: Any) -> Any:
    """A network's argument in JSON's types, tuples as lists. Raises WeightsError for whatever is
    not numbers, texts, lists and dictionaries of a sane size."""
    left = _VALUES_AT_MOST

    def walk(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 8:
            raise too_large()
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) < 1 << 53:
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        if isinstance(value, str) and len(value) <= 1000:
            return value.encode("utf-8", "replace").decode()
        if isinstance(value, list | tuple):
            return [walk(v, depth + 1) for v in value]
        if isinstance(value, dict):
            return {str(k)[:100]: walk(v, depth + 1) for k, v in value.items()}
        raise WeightsError(
            "The file's network was made with an argument that is no number or text.", REMEDY
        )

    return walk(value, 0)


def _dictionary(value: Any) -> dict[str, Any]:
    return _checked(plain(value), dict)


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise damaged()
    return value


def _part(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 100 or "." in name:
        raise damaged()
    return name


def _persistent(meta: Any) -> Obj:
    """An object that the original would make by executing meta['module_src']."""
    meta = _checked(meta, dict)
    if meta.get("type") != "class" or meta.get("version") != _VERSION:
        raise WeightsError("The file stores its networks in an unknown way.", REMEDY)
    return Obj(_checked(meta.get("class_name"), str), _checked(meta.get("state"), dict))


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    _requires_grad: Any,
    _hooks: Any,
    _metadata: Any = None,
) -> StoredTensor:
    _checked(storage, Storage)
    return StoredTensor(storage, offset, _checked(shape, tuple), _checked(stride, tuple))


def _parameter(tensor: Any, _requires_grad: Any, _hooks: Any) -> StoredTensor:
    return _checked(tensor, StoredTensor)


class _NumberType:
    """numpy.dtype, of the single numbers that networks keep as attributes."""

    def __init__(self, code: Any, _align: Any = False, _copy: Any = True) -> None:
        layouts = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "b1": "<?"}
        self.layout = layouts[_checked(code, str)]

    def set_state(self, state: Any) -> None:
        """BUILD: only its byte order could matter."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|"):
            raise damaged()


def _scalar(kind: Any, raw: Any) -> Any:
    layout = _checked(kind, _NumberType).layout
    data = raw.read(8) if isinstance(raw, Blob) else _checked(raw, bytes)
    return struct.unpack(layout, data)[0]


def _encode(text: Any, code: Any) -> bytes:
    if code != "latin1" or len(_checked(text, str)) > 64:
        raise damaged()
    return text.encode("latin1")


def _set(items: Any) -> set:
    items = _checked(items, list)
    if len(items) > 1000 or any(not isinstance(item, str) for item in items):
        raise damaged()
    return set(items)
