"""Small generators of every published layout, with weights from a seed: what
benchmarks/make_variant_fixture.py runs the original on, and test_eg3d_variants.py ours."""

from __future__ import annotations

import copy
import zlib
from typing import Any

import numpy as np

FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
MODULE = "training.superresolution.SuperresolutionHybrid"

# Super-resolutions by themselves: module, sr_num_fp16_res, side of the features, sr_antialias (the
# oldest module takes none), noise mode.
SUPERRESOLUTIONS = {
    "8X_from64": ("8X", 512, 4, 64, True, "none"),
    "8X_from160": ("8X", 512, 0, 160, False, "none"),
    "8XDC_from160": ("8XDC", 512, 4, 160, True, "none"),
    "4X_from128": ("4X", 256, 4, 128, True, "none"),
    "4X_from48": ("4X", 256, 0, 48, True, "none"),
    "Deepfp32_from64": ("Deepfp32", 256, 0, 64, None, "none"),
    "2X_from64": ("2X", 128, 4, 64, True, "none"),
    "2X_from96": ("2X", 128, 4, 96, True, "none"),
    "2X_noise": ("2X", 128, 4, 64, True, "const"),
}

_COMMON = {
    "disparity_space_sampling": False,
    "clamp_mode": "softplus",
    "superresolution_noise_mode": "none",
    "decoder_lr_mul": 1.0,
    "sr_antialias": True,
}
_FACES = _COMMON | {
    "depth_resolution": 48,
    "depth_resolution_importance": 48,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "avg_camera_radius": 2.7,
}
# Whole generators: rendering arguments, then other arguments of the constructor, and the neural
# resolution at which they are compared.
GENERATORS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "cars": (
        _COMMON
        | {
            "superresolution_module": MODULE + "2X",
            "c_gen_conditioning_zero": True,
            "c_scale": 1.0,
            "depth_resolution": 64,
            "depth_resolution_importance": 64,
            "ray_start": 0.1,
            "ray_end": 2.6,
            "box_warp": 1.6,
            "white_back": True,
            "avg_camera_radius": 1.7,
            "avg_camera_pivot": [0, 0, 0],
        },
        {"img_resolution": 128, "sr_num_fp16_res": 4, "mapping_kwargs": {"num_layers": 2}},
        32,
    ),
    "cats": (
        _FACES
        | {
            "superresolution_module": MODULE + "8X",
            "c_gen_conditioning_zero": False,
            "c_scale": 1.0,
            "decoder_lr_mul": 0.5,
            "avg_camera_pivot": [0, 0, -0.06],
        },
        {"img_resolution": 512, "sr_num_fp16_res": 4, "mapping_kwargs": {"num_layers": 2}},
        24,
    ),
    "old256": (
        _FACES
        | {
            "superresolution_module": MODULE + "4X",
            "c_gen_conditioning_zero": False,  # but without c_scale, which then is 0
            "avg_camera_pivot": [0, 0, 0.2],
        },
        {
            "img_resolution": 256,
            "sr_num_fp16_res": 0,
            "mapping_kwargs": {"num_layers": 3, "lr_multiplier": 0.012},
            "num_fp16_res": 4,
            "conv_clamp": 1.5,
        },
        24,
    ),
}
SEED = 5  # of the jitter in the seeded renders


def init_kwargs(name: str) -> dict[str, Any]:
    """The constructor's arguments of a generator, without the rendering arguments."""
    given = {"z_dim": 512, "c_dim": 25, "w_dim": 512, "img_channels": 3, "num_fp16_res": 0}
    given |= {"conv_clamp": None, "channel_base": 2048, "channel_max": 16}
    return given | copy.deepcopy(GENERATORS[name][1])


def record(name: str) -> dict[str, Any]:
    """A model file's record of a generator."""
    rendering, _, resolution = GENERATORS[name]
    return {
        "system": "eg3d",
        "init_kwargs": init_kwargs(name),
        "rendering_kwargs": copy.deepcopy(rendering),
        "neural_rendering_resolution": resolution,
    }


def seeded(key: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Normal numbers float32 that depend on the key alone."""
    draw = np.random.RandomState(zlib.crc32(key.encode()))
    return (draw.standard_normal(shape) * scale).astype(np.float32)


def seeded_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Every tensor of a state dict, such that nothing degenerates."""
    state = {}
    for key, shape in shapes.items():
        value = seeded(key, shape)
        if key.endswith("resample_filter"):
            value = FILTER.astype(np.float32)
        elif key.endswith("affine.bias"):
            value = 1 + 0.1 * value
        elif "mapping.fc" in key and key.endswith("weight"):
            value *= 100
        elif "superresolution" in key and key.endswith("torgb.weight"):
            value *= 0.3
            value[:, 7] *= 0.02
        elif key.endswith("torgb.weight"):
            # Smooth planes: on rough ones the last bit of a ray's direction shows in the image.
            value *= min(1.0, 6 / int(key.split(".")[2][1:]))
        elif key.endswith(("bias", "noise_strength")):
            value *= 0.1
        if key == "decoder.net.2.weight":
            value[0] = 120 * (value[0] - value[0].mean())
        elif key == "decoder.net.2.bias":
            value[0] = -5  # so that some rays meet nothing at all
        elif key.endswith("block1.conv1.bias"):
            value[7] = 300  # beyond the clamp of layers in half precision; it shows little
        state[key] = np.asarray(value, np.float32)
    return state


def cameras(name: str) -> np.ndarray:
    """Two cameras [2, 25] on the generator's orbit, one from the front, one from the side."""
    rendering = GENERATORS[name][0]
    radius, pivot = rendering["avg_camera_radius"], np.array(rendering["avg_camera_pivot"], float)
    focal = 1.7074 if rendering.get("white_back") else 4.2634
    rows = []
    for yaw, height in ((0.0, 0.0), (0.6, 0.3)):
        level = np.sqrt(1 - height**2)
        eye = radius * np.array([level * np.sin(yaw), height, level * np.cos(yaw)])
        z = (pivot - eye) / np.linalg.norm(pivot - eye)
        x = np.cross(z, [0, 1, 0])
        x /= np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3] = np.stack([x, np.cross(z, x), z, eye], 1)
        k = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
        rows.append(np.concatenate([pose.ravel(), k.ravel()]))
    return np.stack(rows).astype(np.float32)
