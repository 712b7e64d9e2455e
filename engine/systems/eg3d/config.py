"""Configurations of the EG3D-type generator; the published 512 model is one of them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.fields.triplane import OFFICIAL_AXES, TriplaneSettings
from engine.render.volume import RaySettings


@dataclass(frozen=True)
class SuperResolutionConfig:
    """input_resolution: of the features taken; channels: of its two blocks, each of which doubles
    the size; clamp: of its layers' outputs (the published ones run in half precision)."""

    input_resolution: int = 128
    channels: tuple[int, int] = (256, 128)
    clamp: float | None = 256.0


@dataclass(frozen=True)
class EG3DConfig:
    """Sizes and meanings of one generator.

    z_dim, c_dim (camera numbers that the mapping takes, 0 for none), w_dim, mapping_layers: the
    mapping; camera_scale: its camera is multiplied by it (0: the mapping sees zeros).
    plane_resolution, plane_channels (of each plane), channel_base, channel_max, use_noise: the
    synthesis, see SynthesisNetwork.
    decoder_hidden, decoder_lr_multiplier: the decoder; it gives plane_channels colours.
    superresolution: None where the rendered image is the final one.
    neural_resolution: pixels a side at which the volume is rendered.
    field: what the planes' numbers mean.
    """

    field: TriplaneSettings
    z_dim: int = 512
    c_dim: int = 25
    w_dim: int = 512
    mapping_layers: int = 2
    camera_scale: float = 1.0
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    use_noise: bool = True
    decoder_hidden: int = 64
    decoder_lr_multiplier: float = 1.0
    neural_resolution: int = 128
    superresolution: SuperResolutionConfig | None = None

    @property
    def image_resolution(self) -> int:
        """Pixels a side of the final image."""
        return (
            4 * self.superresolution.input_resolution
            if self.superresolution
            else (self.neural_resolution)
        )


# FFHQ 512-128. Its cameras come from face reconstruction in decimetres, at a distance of 10, which
# was scaled to 2.7: hence the metres.
FFHQ512 = EG3DConfig(
    field=TriplaneSettings(
        plane_axes=OFFICIAL_AXES,
        box=1.0,
        rays=RaySettings(near=2.25, far=3.3, coarse=48, fine=48),
        level=10.0,
        metres_per_unit=1.0 / 2.7,
    ),
    superresolution=SuperResolutionConfig(),
)
