"""The EG3D-type generator: style code -> tri-plane -> field -> image.

Source: Chan et al. 2022. Modules and parameters are named as in published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from engine.errors import WeightsError
from engine.fields.triplane import TriplaneField
from engine.networks.resample import fir_kernel
from engine.networks.stylegan2 import (
    MappingNetwork,
    NoiseMode,
    StyleGenerator,
    SynthesisNetwork,
)
from engine.render.rays import pixel_rays
from engine.render.volume import last_depths, render_chunked
from engine.systems.eg3d.config import EG3DConfig
from engine.systems.eg3d.decoder import OSGDecoder
from engine.systems.eg3d.superresolution import SuperResolution


@dataclass
class Views:
    """Rendered views, one a row of the batch.

    image: [B, 3, S, S] in about -1..1, the final one (raw where there is no super-resolution);
    raw: [B, 3, R, R] and features: [B, C, R, R], -1..1 with background -1; depth: [B, R, R], field
    units along the ray; opacity: [B, R, R], 0..1.
    """

    image: torch.Tensor
    raw: torch.Tensor
    features: torch.Tensor
    depth: torch.Tensor
    opacity: torch.Tensor


class EG3DGenerator(nn.Module):
    """A generator of the sizes in config."""

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        self.config = config
        synthesis = SynthesisNetwork(
            config.w_dim,
            config.plane_resolution,
            3 * config.plane_channels,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
            use_noise=config.use_noise,
            clamp=config.clamp,
        )
        mapping = MappingNetwork(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            synthesis.num_ws,
            config.mapping_layers,
            config.mapping_lr_multiplier,
        )
        self.backbone = StyleGenerator(mapping, synthesis)
        self.decoder = OSGDecoder(
            config.plane_channels,
            config.decoder_hidden,
            config.plane_channels,
            config.decoder_lr_multiplier,
        )
        self.superresolution = None
        if config.superresolution is not None:
            self.superresolution = SuperResolution(
                config.plane_channels, config.w_dim, config.superresolution
            )
        if config.c_dim > 0:
            self.register_buffer("dataset_label_std", torch.zeros(config.c_dim))  # not read

    @property
    def num_ws(self) -> int:
        """Rows of w."""
        return self.backbone.synthesis.num_ws

    def mapping(
        self,
        z: torch.Tensor,
        c: torch.Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> torch.Tensor:
        """z [B, z_dim] and conditioning cameras c [B, c_dim] (EG3D's 25 numbers; not the cameras to
        render from) -> ws [B, num_ws, w_dim]. psi, cutoff: truncation, see MappingNetwork."""
        if c is not None:
            c = c * self.config.camera_scale
        return self.backbone.mapping(z, c, psi, cutoff)

    def planes(
        self,
        ws: torch.Tensor,
        noise_mode: NoiseMode = "const",
        generators: Sequence[torch.Generator] | None = None,
    ) -> torch.Tensor:
        """ws [B, num_ws, w_dim] -> planes [B, 3, C, R, R], float32; noise as in SynthesisLayer."""
        planes = self.backbone.synthesis(ws, noise_mode, generators)
        return planes.unflatten(1, (3, self.config.plane_channels))

    def field(self, planes: torch.Tensor) -> TriplaneField:
        """The field of one sample's planes [3, C, R, R]; gradients flow to planes and decoder."""
        return TriplaneField(planes.contiguous(), self.decoder.folded(), self.config.field)

    def render(
        self,
        planes: torch.Tensor | Sequence[TriplaneField],
        cameras: torch.Tensor,
        ws: torch.Tensor | None = None,
        *,
        resolution: int | None = None,
        seed: int | None = None,
        batch_depth: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Views:
        """Render each sample from its camera [B, 25].

        planes: [B, 3, C, R, R], or the samples' fields, which are quicker the second time. ws:
        [B, num_ws, w_dim], needed by the super-resolution; without them the image is the raw one.
        resolution: of the volume rendering, the config's by default. seed: of the samples' jitter
        (and of the super-resolution's noise where a model has any), None for the deterministic
        rule; a sample's image never depends on its batch.
        batch_depth: for parity only: as in the original, rays that meet nothing get the depth of
        the batch's farthest sample, not their own (with a seed; else these are the same).
        check: called between chunks, may raise to cancel.
        """
        size = resolution or self.config.neural_resolution
        features, depths, opacities = [], [], []
        for sample, camera in zip(planes, cameras):
            field = sample if isinstance(sample, TriplaneField) else self.field(sample)
            if not torch.is_grad_enabled():
                field.folded()  # once, before several threads ask for it
            cam2world, intrinsics = camera[:16].view(4, 4), camera[16:25].view(3, 3)
            origin, directions = pixel_rays(cam2world, intrinsics, size, size)
            out = render_chunked(
                field,
                origin,
                directions,
                self.config.field.rays,
                bytes_per_sample=field.bytes_per_point(),
                seed=seed,
                check=check,
            )
            seen = out.features
            if field.settings.white_background:
                seen = seen + (1 - out.opacity[:, None])
            features.append((seen * 2 - 1).T.reshape(-1, size, size))
            depths.append(out.depth.view(size, size))
            opacities.append(out.opacity.view(size, size))
        stacked = torch.stack(features)
        raw = stacked[:, :3]
        image = raw
        if self.superresolution is not None and ws is not None:
            check()
            generators = None
            if seed is not None:
                generators = [torch.Generator().manual_seed(seed) for _ in stacked]
            image = self.superresolution(stacked, ws, generators)
        depth, opacity = torch.stack(depths), torch.stack(opacities)
        if batch_depth:
            farthest = last_depths(self.config.field.rays, size * size, seed).max()
            depth = torch.where(opacity > 0, depth, farthest.to(depth))
        return Views(image, raw, stacked, depth, opacity)

    def forward(self, ws: torch.Tensor, cameras: torch.Tensor) -> torch.Tensor:
        """ws [B, num_ws, w_dim], cameras [B, 25] -> final images [B, 3, S, S]."""
        return self.render(self.planes(ws), cameras, ws).image

    def load_official(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors of a published state dict, strictly: every key, every shape.

        Only `dataset_label_std` may be missing (some files lack it; nothing reads it). Raises
        WeightsError if anything else differs or a resampling filter is not the published one.
        """
        state = dict(state)
        own = self.state_dict()
        if "dataset_label_std" in own:
            state.setdefault("dataset_label_std", own["dataset_label_std"])
        for key, tensor in state.items():
            if key.endswith("resample_filter") and not (
                tensor.shape == (4, 4) and torch.allclose(tensor.float().cpu(), fir_kernel())
            ):
                raise WeightsError(f"The weights use another resampling filter ({key}).")
        try:
            self.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise WeightsError(
                "The weights do not fit the model's layout.",
                "Choose the configuration that belongs to this file.",
            ) from error
