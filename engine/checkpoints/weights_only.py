"""Files that hold tensors only: which of them are the generator's, and what sizes they speak of.

What shapes cannot tell (where rays start, which way cameras look) is taken from the published
models: `like` names one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.checkpoints.pickle_stream import REMEDY, too_large
from engine.checkpoints.registry import LIKE
from engine.checkpoints.tensors import StoredTensor
from engine.errors import ParameterError, WeightsError

Shapes = Mapping[str, tuple[int, ...]]
_FIRST = "backbone.synthesis.b4.const"  # every generator has it
_TENSORS_AT_MOST = 10_000
_OUTER_AT_MOST = 6  # dictionaries round the tensors

_CAMERAS: dict[str, dict[str, Any]] = {
    "ffhq": {
        "depth_resolution": 48,
        "depth_resolution_importance": 48,
        "ray_start": 2.25,
        "ray_end": 3.3,
        "box_warp": 1,
        "avg_camera_radius": 2.7,
        "avg_camera_pivot": [0, 0, 0.2],
        "c_gen_conditioning_zero": False,
    },
    "cats": {
        "depth_resolution": 48,
        "depth_resolution_importance": 48,
        "ray_start": 2.25,
        "ray_end": 3.3,
        "box_warp": 1,
        "avg_camera_radius": 2.7,
        "avg_camera_pivot": [0, 0, -0.06],
        "c_gen_conditioning_zero": False,
    },
    "cars": {
        "depth_resolution": 64,
        "depth_resolution_importance": 64,
        "ray_start": 0.1,
        "ray_end": 2.6,
        "box_warp": 1.6,
        "white_back": True,
        "avg_camera_radius": 1.7,
        "avg_camera_pivot": [0, 0, 0],
        "c_gen_conditioning_zero": True,
    },
}
# Image size, channels of the first block -> the published module.
_MODULES = {
    (512, 256): "SuperresolutionHybrid8XDC",
    (512, 128): "SuperresolutionHybrid8X",
    (256, 128): "SuperresolutionHybrid4X",
    (128, 128): "SuperresolutionHybrid2X",
}


def flatten(root: Any) -> dict[str, StoredTensor]:
    """The tensors in nested dictionaries by dotted name. Raises WeightsError."""
    flat: dict[str, StoredTensor] = {}
    waiting = [("", root, 0)]
    seen = 0
    while waiting:
        prefix, value, depth = waiting.pop()
        if not isinstance(value, dict) or depth > _OUTER_AT_MOST:
            continue
        for key, item in value.items():
            seen += 1
            if seen > _TENSORS_AT_MOST:
                raise too_large()
            name = f"{prefix}{key}" if len(str(key)) <= 100 else ""
            if isinstance(item, StoredTensor):
                flat[name] = item
            elif isinstance(item, dict):
                waiting.append((f"{name}.", item, depth + 1))
    return flat


def find_tensors(flat: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The generator's among flat tensors (perhaps under a common prefix), by the published names;
    the running average's where there are several generators. Raises WeightsError."""
    prefixes = [name[: -len(_FIRST)] for name in flat if name.endswith(_FIRST)]
    if not prefixes:
        raise WeightsError(
            "The file holds no EG3D generator, and no TripoSR or OpenLRM.",
            "Choose EG3D's training pickle or a state dict of its generator, TripoSR's model.ckpt "
            "or OpenLRM's model.safetensors.",
        )
    prefix = min(prefixes, key=lambda p: ("ema" not in p.lower(), len(p), p))
    return {n[len(prefix) :]: t for n, t in flat.items() if n.startswith(prefix)}


def guess_record(shapes: Shapes, like: str = "") -> dict[str, Any]:
    """`init_kwargs`, `rendering_kwargs` and `neural_rendering_resolution` of a generator with
    tensors of these shapes. like: "" chooses by the image's size. Raises WeightsError for shapes
    that no published generator has, ParameterError for an unknown `like`."""
    if like not in ("", *LIKE):
        raise ParameterError(f"like must be one of {', '.join(LIKE)}, not {like[:40]}.")
    try:
        first = shapes["superresolution.block0.conv1.weight"][0]
        size = _image_size(shapes)
        like = like or ("cars" if size == 128 else "ffhq")
        channels = {n: shapes[f"backbone.synthesis.b{n}.conv1.weight"][0] for n in (4, 256)}
        w_dim = shapes["backbone.mapping.w_avg"][0]
        embed = shapes.get("backbone.mapping.embed.weight", (0, 0))
        z_dim = shapes["backbone.mapping.fc0.weight"][1] - embed[0]
        module = _MODULES[size, first]
    except (KeyError, IndexError) as error:
        raise WeightsError(
            "The tensors are not those of a published EG3D configuration.", REMEDY
        ) from error
    layers = sum(f"backbone.mapping.fc{i}.weight" in shapes for i in range(64))
    init = {
        "z_dim": z_dim,
        "c_dim": embed[1],
        "w_dim": w_dim,
        "mapping_kwargs": {"num_layers": layers},
        # Channels at size n are min(base / n, max): the ends of the network tell both.
        "channel_base": channels[256] * 256,
        "channel_max": channels[4],
        "num_fp16_res": 0,
        "sr_num_fp16_res": 4,
        "conv_clamp": None,
        "img_resolution": size,
        "img_channels": 3,
    }
    rendering = {
        "image_resolution": size,
        "disparity_space_sampling": False,
        "clamp_mode": "softplus",
        "superresolution_module": f"training.superresolution.{module}",
        "c_scale": 1.0,
        "superresolution_noise_mode": "none",
        "decoder_lr_mul": 1.0,
        "sr_antialias": True,
        **_CAMERAS[like],
    }
    return {
        "init_kwargs": init,
        "rendering_kwargs": rendering,
        "neural_rendering_resolution": 64 if size == 128 else 128,
    }


def _image_size(shapes: Shapes) -> int:
    """Pixels a side: the noise map of the last layer has one number for each."""
    return shapes["superresolution.block1.conv1.noise_const"][0]
