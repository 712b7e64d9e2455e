"""Configurations of the EG3D-type generator, and how a published checkpoint's record becomes one.

A checkpoint says what it is in the arguments of its constructor and of its renderer: sizes, the
super-resolution module by name, where rays start and end, which way its cameras look. The numbers
that a record leaves out are the original's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import WeightsError
from engine.fields.triplane import OFFICIAL_AXES, TriplaneSettings
from engine.render.volume import RaySettings

LEVEL = 10.0  # raw density at the surface, as the original's shape script takes it
TRIM = 30 / 256  # of the box at either side: what the official shapes leave out
# Beyond what any model was trained with: a record that asks for more is not to be trusted.
SAMPLES_AT_MOST, PIXELS_AT_MOST = 512, 1024
# Focal lengths (of the image's width) of the original's scripts at the radius of their orbits:
# a field of view of 18.837 degrees, with the rounded constants that the original computes with.
HEAD_FOCAL, HEAD_RADIUS = 1 / (math.tan(18.837 * 3.14159 / 360) * 1.414), 2.7
CAR_FOCAL, CAR_RADIUS = 1.7074, 1.7
# Size of a field unit. Faces: their cameras come from face reconstruction in decimetres, at a
# distance of 10, scaled to 2.7. Cats: a head 10 cm wide fills as much of the frame as a face of
# 15 cm. Cars: ShapeNet's are scaled to a diagonal of 1, which is about 5 m of a car 4.5 m long.
FACE_METRES, CAT_METRES, CAR_METRES = 1 / 2.7, 0.25, 5.0


@dataclass(frozen=True)
class SuperResolutionConfig:
    """input_resolution: of the features taken; channels: of its two blocks; doubles_first: whether
    the first block doubles the size too (the second always does).
    clamp: of its layers' outputs (the published ones run in half precision), None for none.
    antialias: of the resizing to input_resolution; noise: whether fresh noise belongs to its
    layers ('none' in the published ones). has_filter: the state dict holds a resampling filter of
    the module's own, which nothing reads."""

    input_resolution: int = 128
    channels: tuple[int, int] = (256, 128)
    clamp: float | None = 256.0
    doubles_first: bool = True
    antialias: bool = True
    noise: Literal["none", "random", "const"] = "none"
    has_filter: bool = False

    @property
    def output_resolution(self) -> int:
        """Pixels a side of the final image."""
        return self.input_resolution * (4 if self.doubles_first else 2)


@dataclass(frozen=True)
class EG3DConfig:
    """Sizes and meanings of one generator.

    z_dim, c_dim (camera numbers that the mapping takes, 0 for none), w_dim, mapping_layers,
    mapping_lr_multiplier: the mapping; camera_scale: its camera is multiplied by it (0: the mapping
    sees zeros).
    plane_resolution, plane_channels (of each plane), channel_base, channel_max, use_noise, clamp:
    the synthesis, see SynthesisNetwork.
    decoder_hidden, decoder_lr_multiplier: the decoder; it gives plane_channels colours.
    superresolution: None where the rendered image is the final one.
    neural_resolution: pixels a side at which the volume is rendered.
    field: what the planes' numbers mean.
    camera_focal: focal length of its cameras, over the image's width. Their places are in the
    field's settings; views near them are what it was trained on.
    """

    field: TriplaneSettings
    z_dim: int = 512
    c_dim: int = 25
    w_dim: int = 512
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    camera_scale: float = 1.0
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    use_noise: bool = True
    clamp: float | None = None
    decoder_hidden: int = 64
    decoder_lr_multiplier: float = 1.0
    neural_resolution: int = 128
    superresolution: SuperResolutionConfig | None = None
    camera_focal: float = HEAD_FOCAL

    @property
    def image_resolution(self) -> int:
        """Pixels a side of the final image."""
        if self.superresolution is None:
            return self.neural_resolution
        return self.superresolution.output_resolution


FFHQ512 = EG3DConfig(
    field=TriplaneSettings(
        plane_axes=OFFICIAL_AXES,
        box=1.0,
        rays=RaySettings(near=2.25, far=3.3, coarse=48, fine=48),
        level=LEVEL,
        metres_per_unit=FACE_METRES,
        orbit_radius=HEAD_RADIUS,
        orbit_pivot=(0.0, 0.0, 0.2),
        trim=TRIM,
    ),
    superresolution=SuperResolutionConfig(),
)

# The published modules: final image's side, input_resolution, channels, doubles_first, has_filter.
_SUPERRESOLUTIONS = {
    "SuperresolutionHybrid8XDC": (512, 128, (256, 128), True, False),
    "SuperresolutionHybrid8X": (512, 128, (128, 64), True, True),
    "SuperresolutionHybrid4X": (256, 128, (128, 64), False, True),
    "SuperresolutionHybridDeepfp32": (256, 128, (128, 64), False, True),
    "SuperresolutionHybrid2X": (128, 64, (128, 64), False, True),
}


class _Arguments:
    """A record's arguments, read with their types; all failures are WeightsErrors."""

    def __init__(self, values: Any, what: str) -> None:
        if not isinstance(values, Mapping):
            raise WeightsError(f"The model's record lacks its {what}.")
        self.values = values

    def number(self, name: str, default: float | None = None, least: float = 0.0) -> float:
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            raise WeightsError(f"The model's record has no usable {name}.")
        if not math.isfinite(value):
            raise WeightsError(f"The model's {name} is not a finite number.")
        return float(value)

    def whole(
        self, name: str, default: int | None = None, least: int = 0, most: int = 1 << 24
    ) -> int:
        value = self.number(name, default, least)
        if value != int(value) or value > most:
            raise WeightsError(f"The model's {name} is not a whole number in bounds.")
        return int(value)

    def expect(self, **known: tuple) -> None:
        """Each argument must be missing or one of the values that this program implements."""
        for name, values in known.items():
            if name in self.values and self.values[name] not in values:
                raise WeightsError(
                    f"The model uses {name} = {str(self.values[name])[:40]}, which Triplane does "
                    "not support."
                )


def config_from_record(record: Mapping[str, Any]) -> EG3DConfig:
    """The configuration of a model file's record: `init_kwargs` and `rendering_kwargs` of the
    original's constructor, `neural_rendering_resolution`, `plane_axes`, `metres_per_unit`.

    Raises WeightsError, in one sentence, for what is missing, malformed or not supported.
    """
    if record.get("system", "eg3d") != "eg3d":
        raise WeightsError("The model is not of the EG3D kind.")
    init = _Arguments(record.get("init_kwargs"), "sizes")
    rendering = _Arguments(
        record.get("rendering_kwargs") or init.values.get("rendering_kwargs"), "rendering settings"
    )
    mapping = _Arguments(init.values.get("mapping_kwargs", {}), "mapping's settings")
    w_dim = init.whole("w_dim", least=1)
    init.expect(
        c_dim=(0, 25),
        img_channels=(3,),
        architecture=("skip",),
        activation=("lrelu",),
        kernel_size=(3,),
        resample_filter=([1, 3, 3, 1], (1, 3, 3, 1)),
    )
    mapping.expect(
        embed_features=(None, w_dim), layer_features=(None, w_dim), activation=("lrelu",)
    )
    rendering.expect(clamp_mode=("softplus",), disparity_space_sampling=(False,))
    white = bool(rendering.values.get("white_back", False))
    pivot = _triple(rendering.values.get("avg_camera_pivot", (0.0, 0.0, 0.0)), "camera pivot")
    radius = rendering.number("avg_camera_radius", HEAD_RADIUS, 1e-3)
    metres = record.get("metres_per_unit")
    if metres is None:
        metres = CAR_METRES if white else CAT_METRES if pivot[2] < 0 else FACE_METRES
    focal = radius * (CAR_FOCAL / CAR_RADIUS if white else HEAD_FOCAL / HEAD_RADIUS)
    blind = bool(rendering.values.get("c_gen_conditioning_zero", True))
    clamp = init.values.get("conv_clamp", 256)  # the original's blocks clamp unless told not to
    return EG3DConfig(
        field=TriplaneSettings(
            plane_axes=_axes(record.get("plane_axes", OFFICIAL_AXES)),
            box=rendering.number("box_warp", least=1e-6),
            rays=_rays(rendering),
            level=LEVEL,
            metres_per_unit=_Arguments({"m": metres}, "size").number("m", least=1e-9),
            orbit_radius=radius,
            orbit_pivot=pivot,
            trim=TRIM,
            white_background=white,
        ),
        z_dim=init.whole("z_dim", least=1),
        c_dim=init.whole("c_dim"),
        w_dim=w_dim,
        mapping_layers=mapping.whole("num_layers", 8),
        mapping_lr_multiplier=mapping.number("lr_multiplier", 0.01),
        camera_scale=0.0 if blind else rendering.number("c_scale", 0.0, -math.inf),
        channel_base=init.whole("channel_base", 32768, 1),
        channel_max=init.whole("channel_max", 512, 1),
        use_noise=bool(init.values.get("use_noise", True)),
        clamp=None if clamp is None else init.number("conv_clamp", 256, 1e-6),
        decoder_lr_multiplier=rendering.number("decoder_lr_mul", 1.0),
        neural_resolution=_Arguments(record, "record").whole(
            "neural_rendering_resolution", 64, 1, PIXELS_AT_MOST
        ),
        superresolution=_superresolution(init, rendering),
        camera_focal=focal,
    )


def _superresolution(init: _Arguments, rendering: _Arguments) -> SuperResolutionConfig:
    name = str(rendering.values.get("superresolution_module", "")).rpartition(".")[2]
    if name not in _SUPERRESOLUTIONS:
        raise WeightsError(
            f"The model's super-resolution {name[:60] or '(none named)'} is not supported."
        )
    output, size, channels, doubles_first, has_filter = _SUPERRESOLUTIONS[name]
    if init.whole("img_resolution") != output:
        raise WeightsError(f"The model's image size does not fit its super-resolution {name}.")
    rendering.expect(superresolution_noise_mode=("none", "random", "const"))
    return SuperResolutionConfig(
        input_resolution=size,
        channels=channels,
        # Layers in half precision are clamped, and the original does so in float32 too.
        clamp=256.0 if init.number("sr_num_fp16_res", 0) > 0 else None,
        doubles_first=doubles_first,
        antialias=bool(rendering.values.get("sr_antialias", False)) and "Deep" not in name,
        noise=rendering.values.get("superresolution_noise_mode", "none"),
        has_filter=has_filter,
    )


def _rays(rendering: _Arguments) -> RaySettings:
    if "auto" in (rendering.values.get("ray_start"), rendering.values.get("ray_end")):
        raise WeightsError(
            "The model starts its rays at its box's walls, which Triplane does not support."
        )
    near, far = rendering.number("ray_start"), rendering.number("ray_end")
    if not far > near:
        raise WeightsError("The model's rays end before they start.")
    return RaySettings(
        near=near,
        far=far,
        coarse=rendering.whole("depth_resolution", least=4, most=SAMPLES_AT_MOST),
        fine=rendering.whole("depth_resolution_importance", 0, most=SAMPLES_AT_MOST),
    )


def _triple(value: Any, what: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(v) for v in value)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"The model's {what} is not three numbers.") from error
    if not all(math.isfinite(v) for v in (x, y, z)):
        raise WeightsError(f"The model's {what} is not finite.")
    return x, y, z


def _axes(value: Any) -> tuple:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise WeightsError("The model's planes are not three, which Triplane does not support.")
    axes = []
    for matrix in value:
        if not isinstance(matrix, list | tuple) or len(matrix) != 3:
            raise WeightsError("The model's plane axes are not three matrices of 3 x 3.")
        a, b, c = rows = tuple(_triple(row, "plane axes") for row in matrix)
        cross = (b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0])
        if abs(sum(x * y for x, y in zip(a, cross))) < 1e-6:
            raise WeightsError("The model's plane axes span no space.")
        axes.append(rows)
    return tuple(axes)
