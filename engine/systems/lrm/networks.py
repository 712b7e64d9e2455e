"""Picture -> planes: TripoSR and the LRM that OpenLRM publishes, with their files' names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.fields.lrm import LrmField
from engine.networks.products import Branch, LayerNorm, Linear, parameter
from engine.networks.transformer import GatedBlock, ModulatedBlock
from engine.networks.vit import IMAGENET_DEVIATION, IMAGENET_MEAN, Dino, Dinov2
from engine.systems.lrm.config import LrmConfig

Check = Callable[[], None]


def _ignore() -> None:
    return None


class LrmNetwork(nn.Module):
    """What both kinds share. Subclasses give image_tokens, plane_tokens and planes."""

    def __init__(self, config: LrmConfig) -> None:
        super().__init__()
        self.config = config

    def image_tokens(self, images: Tensor, check: Check = _ignore) -> Tensor:
        """images [B, 3, S, S] in 0..1, S the config's input_size -> tokens [B, M, E]. check: called
        before every layer, may raise to cancel."""
        if self.config.normalises:
            mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
            images = (images - mean) / images.new_tensor(IMAGENET_DEVIATION)[:, None, None]
        return self._encoder()(images, check)

    def plane_tokens(
        self, tokens: Tensor, camera: Tensor | None = None, check: Check = _ignore
    ) -> Tensor:
        """Image tokens [B, M, E] and, of OpenLRM, the cameras [B, camera_numbers] -> plane tokens
        [B, 3 * n * n, C], plane by plane and row by row."""
        raise NotImplementedError

    def planes(self, tokens: Tensor) -> Tensor:
        """Plane tokens [B, 3 * n * n, C] -> planes [B, 3, channels, 2 n, 2 n], float32: every token
        becomes 2 x 2 texels (a transposed convolution whose pieces do not overlap)."""
        layer, size = self._upsampler(), self.config.plane_size
        texels = tokens.to(layer.weight.dtype) @ layer.weight.flatten(1)
        texels = texels.float().view(-1, 3, size, size, self.config.channels, 2, 2)
        texels = texels + layer.bias.float()[:, None, None]
        out = texels.permute(0, 1, 4, 2, 5, 3, 6)  # batch, plane, channel, row, 0/1, column, 0/1
        return out.reshape(-1, 3, self.config.channels, 2 * size, 2 * size)

    def forward(
        self, images: Tensor, camera: Tensor | None = None, check: Check = _ignore
    ) -> Tensor:
        """images [B, 3, S, S] in 0..1, cameras as in plane_tokens -> planes."""
        return self.planes(self.plane_tokens(self.image_tokens(images, check), camera, check))

    def low_precision_names(self) -> set[str]:
        """Names of the parameters that may be of less than float32: the large matrices."""
        return {
            name
            for name, tensor in self.named_parameters()
            if tensor.ndim == 2
            and "camera_embedder" not in name
            and "norm" not in name
            and "decoder" not in name
        }

    def field(self, planes: Tensor) -> LrmField:
        """The field of one picture's planes [3, channels, 2 n, 2 n]."""
        layers = [m for m in self._decoder() if isinstance(m, nn.Linear)]
        weights = [(m.weight.detach().float(), m.bias.detach().float()) for m in layers]
        return LrmField(planes.float().contiguous(), weights, self.config.field)

    def _encoder(self) -> nn.Module:
        raise NotImplementedError

    def _upsampler(self) -> nn.ConvTranspose2d:
        raise NotImplementedError

    def _decoder(self) -> nn.Sequential:
        raise NotImplementedError


class TripoSR(LrmNetwork):
    """TripoSR; the published `model.ckpt`."""

    def __init__(self, config: LrmConfig) -> None:
        super().__init__(config)
        width, size = config.width, config.plane_size
        self.image_tokenizer = Branch(model=Dino(config.encoder))
        self.tokenizer = Branch(embeddings=parameter(3, width, size, size))
        blocks = [
            GatedBlock(width, config.heads, config.encoder.width) for _ in range(config.layers)
        ]
        self.backbone = Branch(
            norm=nn.GroupNorm(32, width, eps=1e-6),
            proj_in=Linear(width, width),
            transformer_blocks=nn.ModuleList(blocks),
            proj_out=Linear(width, width),
        )
        self.post_processor = Branch(upsample=nn.ConvTranspose2d(width, config.channels, 2, 2))
        self.decoder = Branch(layers=_mlp(config, nn.SiLU))
        self._begun: Tensor | None = None

    def plane_tokens(
        self, tokens: Tensor, camera: Tensor | None = None, check: Check = _ignore
    ) -> Tensor:
        body = self.backbone
        tokens = tokens.to(body.proj_in.weight.dtype)
        x = self.begun().expand(len(tokens), -1, -1)
        for number, block in enumerate(body.transformer_blocks):
            check()
            x = block(x, tokens, begun=number == 0)
        return body.proj_out(x) + self.tokenizer.embeddings.flatten(2).transpose(1, 2).flatten(0, 1)

    def begun(self) -> Tensor:
        """The plane tokens [1, 3 n n, C] after the first block's self-attention: no picture has
        come in so far, so a network whose parameters are fixed keeps them."""
        fixed = not self.tokenizer.embeddings.requires_grad and not torch.is_grad_enabled()
        if fixed and self._begun is not None:
            return self._begun
        body = self.backbone
        start = self.tokenizer.embeddings.transpose(0, 1).flatten(1)[None]  # [1, C, 3 n n]
        x = body.transformer_blocks[0].alone(body.proj_in(body.norm(start).transpose(1, 2)))
        self._begun = x if fixed else None
        return x

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._begun = None
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._begun = None  # other devices and number types
        return super()._apply(*args, **kwargs)

    def _encoder(self) -> nn.Module:
        return self.image_tokenizer.model

    def _upsampler(self) -> nn.ConvTranspose2d:
        return self.post_processor.upsample

    def _decoder(self) -> nn.Sequential:
        return self.decoder.layers


class OpenLRM(LrmNetwork):
    """OpenLRM 1.1's `model.safetensors`, or 1.0's `weights`, which keep the plane tokens and the
    up-sampling in the transformer."""

    def __init__(self, config: LrmConfig) -> None:
        super().__init__(config)
        width, size = config.width, config.plane_size
        encoder = Dino if config.encoder_kind == "dino" else Dinov2
        self.encoder = Branch(model=encoder(config.encoder))
        wide = config.camera_width
        self.camera_embedder = Branch(
            mlp=nn.Sequential(
                nn.Linear(config.camera_numbers, wide), nn.SiLU(), nn.Linear(wide, wide)
            )
        )
        blocks = [
            ModulatedBlock(width, config.heads, config.encoder.width, wide)
            for _ in range(config.layers)
        ]
        self.transformer = Branch(layers=nn.ModuleList(blocks), norm=LayerNorm(width, eps=1e-6))
        start = parameter(1, 3 * size * size, width)
        upsampler = nn.ConvTranspose2d(width, config.channels, 2, 2)
        if config.layout == "openlrm-1.0":
            self.transformer.pos_embed, self.transformer.deconv = start, upsampler
        else:
            self.pos_embed, self.upsampler = start, upsampler
        self.synthesizer = Branch(decoder=Branch(net=_mlp(config, nn.ReLU)))

    def plane_tokens(
        self, tokens: Tensor, camera: Tensor | None = None, check: Check = _ignore
    ) -> Tensor:
        if camera is None:
            camera = self.input_camera().expand(len(tokens), -1)
        vector = F.silu(self.camera_embedder.mlp(camera))
        start = self.transformer.pos_embed if self._old() else self.pos_embed
        x = start.expand(len(tokens), -1, -1)
        tokens = tokens.to(self.transformer.layers[0].self_attn.in_proj_weight.dtype)
        for block in self.transformer.layers:
            check()
            x = block(x, tokens, vector)
        return self.transformer.norm(x)

    def input_camera(self) -> Tensor:
        """The numbers [1, camera_numbers] of the camera that the picture is assumed to have been
        taken with: its pose (3 x 4 or 4 x 4, axes x right, y up, z backwards, in OpenLRM's world)
        and normalised intrinsics."""
        distance = self.config.field.camera_distance
        pose = [1, 0, 0, 0, 0, 0, -1, -distance, 0, 1, 0, 0]
        if self.config.camera_numbers == 20:
            pose += [0, 0, 0, 1]
        focal = 0.5 / torch.tan(torch.tensor(self.config.field.camera_fov / 2))
        numbers = torch.tensor([*pose, focal, focal, 0.5, 0.5])
        return numbers[None].to(self.camera_embedder.mlp[0].weight)

    def _old(self) -> bool:
        return self.config.layout == "openlrm-1.0"

    def _encoder(self) -> nn.Module:
        return self.encoder.model

    def _upsampler(self) -> nn.ConvTranspose2d:
        return self.transformer.deconv if self._old() else self.upsampler

    def _decoder(self) -> nn.Sequential:
        return self.synthesizer.decoder.net


def network_of(config: LrmConfig) -> LrmNetwork:
    """A network of zeros with this configuration's sizes and names."""
    return TripoSR(config) if config.layout == "triposr" else OpenLRM(config)


def _mlp(config: LrmConfig, activation: type[nn.Module]) -> nn.Sequential:
    """The field's decoder, its layers at even numbers."""
    widths = [3 * config.channels] + [config.decoder_width] * (config.decoder_layers - 1) + [4]
    parts: list[nn.Module] = []
    for first, second in zip(widths, widths[1:]):
        parts += [nn.Linear(first, second), activation()]
    return nn.Sequential(*parts[:-1])
