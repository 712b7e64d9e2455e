"""Files as EG3D's users have them, made here: training pickles, torch.save's formats, hostile ones.

The classes that a training pickle names exist only while it is written. Its networks carry a source
text that leaves a file EXECUTED in the current folder if anybody executes it.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from engine.systems.eg3d.config import config_from_record
from engine.systems.eg3d.generator import EG3DGenerator

SOURCE = "open('EXECUTED', 'a').write('network')\n"
AXES = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
]
# A car model in small: everything as published but for the widths.
RENDERING = {
    "image_resolution": 128,
    "disparity_space_sampling": False,
    "clamp_mode": "softplus",
    "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
    "c_gen_conditioning_zero": True,
    "c_scale": 1.0,
    "superresolution_noise_mode": "none",
    "decoder_lr_mul": 1.0,
    "sr_antialias": True,
    "depth_resolution": 64,
    "depth_resolution_importance": 64,
    "ray_start": 0.1,
    "ray_end": 2.6,
    "box_warp": 1.6,
    "white_back": True,
    "avg_camera_radius": 1.7,
    "avg_camera_pivot": [0, 0, 0],
}
INIT = {
    "z_dim": 8,
    "c_dim": 25,
    "w_dim": 16,
    "mapping_kwargs": {"num_layers": 2},
    "channel_base": 1024,
    "channel_max": 8,
    "num_fp16_res": 0,
    "sr_num_fp16_res": 4,
    "conv_clamp": None,
    "img_resolution": 128,
    "img_channels": 3,
    "rendering_kwargs": RENDERING,
}


def record() -> dict[str, Any]:
    """The record of the small model."""
    return {
        "system": "eg3d",
        "init_kwargs": INIT,
        "rendering_kwargs": RENDERING,
        "neural_rendering_resolution": 64,
        "plane_axes": AXES,
        "metres_per_unit": None,
    }


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of the small model, drawn."""
    torch.manual_seed(seed)
    state = EG3DGenerator(config_from_record(record())).state_dict()
    return {k: v if "filter" in k else torch.randn_like(v) for k, v in state.items()}


class Network:
    """An object of a class that the original keeps with its source code."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> tuple:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": self.class_name,
            "state": self.state,
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def module_state(**more: Any) -> dict[str, Any]:
    """The attributes of a module without anything in it."""
    return {
        "training": False,
        "_parameters": OrderedDict(),
        "_buffers": OrderedDict(),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict(),
        **more,
    }


def generator(tensors: dict[str, torch.Tensor], changes: dict[str, Any] | None = None) -> Network:
    """TriPlaneGenerator as pickled: a tree of modules with these tensors, settings as in INIT.
    changes: other attributes."""
    root = module_state(
        _init_args=(),
        _init_kwargs=_easy(INIT),
        rendering_kwargs=dict(RENDERING),
        neural_rendering_resolution=64,
        weight_gain=np.float64(0.25),
    )
    renderer = sys.modules["training.volumetric_rendering.renderer"].ImportanceRenderer()
    vars(renderer).update(module_state(plane_axes=torch.tensor(AXES)))
    root["_modules"]["renderer"] = renderer
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        state = root
        for part in path:
            if part not in state["_modules"]:
                state["_modules"][part] = Network("SynthesisBlock", module_state())
            state = state["_modules"][part].state
        if last in ("noise_const", "resample_filter", "w_avg", "dataset_label_std"):
            state["_buffers"][last] = tensor
        else:
            state["_parameters"][last] = torch.nn.Parameter(tensor, requires_grad=False)
    root.update(changes or {})
    return Network("TriPlaneGenerator", root)


def training_pickle(
    tensors: dict[str, torch.Tensor], protocol: int = 4, changes: dict[str, Any] | None = None
) -> bytes:
    """A training pickle whose G_ema has these tensors."""
    with original_classes():
        data = {
            "training_set_kwargs": _easy({"path": "cars.zip", "use_labels": True}),
            "G": Network("TriPlaneGenerator", module_state()),
            "D": Network("DualDiscriminator", module_state()),
            "G_ema": generator(tensors, changes),
            "augment_pipe": None,
        }
        return pickle.dumps(data, protocol)


def saved(value: Any, zipped: bool = True) -> bytes:
    """torch.save's bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@contextlib.contextmanager
def original_classes() -> Iterator[None]:
    """The names of the original program, while something is pickled."""

    def reconstruct(meta: dict) -> None:
        raise AssertionError("a test file was unpickled")

    easy = type("EasyDict", (dict,), {})
    renderer = type("ImportanceRenderer", (), {})
    made = {
        "torch_utils.persistence": ("_reconstruct_persistent_obj", reconstruct),
        "dnnlib.util": ("EasyDict", easy),
        "training.volumetric_rendering.renderer": ("ImportanceRenderer", renderer),
    }
    before = dict(sys.modules)
    for module, (name, thing) in made.items():
        thing.__module__, thing.__qualname__ = module, name
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            at = ".".join(parts[:length])
            sys.modules.setdefault(at, types.ModuleType(at))
        setattr(sys.modules[module], name, thing)
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("torch_utils", "dnnlib", "training"):
                del sys.modules[name]


def _easy(items: dict) -> dict:
    return sys.modules["dnnlib.util"].EasyDict(items)
