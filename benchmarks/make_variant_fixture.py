"""Write tests/data/eg3d_variants.npz: what the original EG3D code makes of small seeded weights in
every published layout. Needs that code; nothing of it is kept but numbers.

    python benchmarks/make_variant_fixture.py --original PATH

PATH is the folder `eg3d` of a checkout of the original. Random numbers are replaced by rules: the
middle of every stratum, or the numbers that our seeded mode draws.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "data" / "eg3d_variants.npz"


def drawing(seed: int | None, coarse: int, fine: int, batch: int, rays: int):
    """torch.rand_like and torch.rand of the renderer, replaced by the rules of our renderer."""
    from engine.render.sampling import uniforms

    index = torch.arange(rays)

    def rand_like(x: torch.Tensor) -> torch.Tensor:
        assert x.shape == (batch, rays, coarse, 1), x.shape
        u = uniforms(coarse, index, seed, stream=0, jitter=True)
        return u[None, :, :, None].expand(batch, -1, -1, -1)

    def rand(n: int, k: int, device: torch.device) -> torch.Tensor:
        assert (n, k) == (batch * rays, fine), (n, k)
        return uniforms(fine, index, seed, stream=1).repeat(batch, 1).to(device)

    return mock.patch.multiple(torch, rand_like=rand_like, rand=rand)


def load(module: torch.nn.Module, prefix: str = "") -> None:
    """Seeded weights for the original's module."""
    import variant_fixtures as rule

    shapes = {prefix + key: tuple(value.shape) for key, value in module.state_dict().items()}
    state = rule.seeded_state(shapes).items()
    module.load_state_dict({k.removeprefix(prefix): torch.from_numpy(v) for k, v in state})
    module.eval().requires_grad_(False)


def superresolutions() -> dict[str, np.ndarray]:
    import training.superresolution as original
    import variant_fixtures as rule

    out = {}
    for name, (kind, side, half, size, antialias, noise) in rule.SUPERRESOLUTIONS.items():
        options = {} if antialias is None else {"sr_antialias": antialias}
        make = getattr(original, f"SuperresolutionHybrid{kind}")
        module = make(channels=32, img_resolution=side, sr_num_fp16_res=half, **options)
        load(module, "superresolution.")
        x = torch.from_numpy(rule.seeded(f"features{size}", (1, 32, size, size), 0.5))
        ws = torch.from_numpy(rule.seeded("ws", (1, 14, 512)))
        image = module(x[:, :3].clone(), x, ws, noise_mode=noise)[0]
        step = side // 16
        out[f"sr_{name}"] = image[:, 1::step, 2::step].numpy()
    return out


def generators() -> dict[str, np.ndarray]:
    import variant_fixtures as rule
    from training.triplane import TriPlaneGenerator

    out = {}
    for name, (rendering, _, size) in rule.GENERATORS.items():
        given = rule.init_kwargs(name)
        model = TriPlaneGenerator(rendering_kwargs=rendering, **given)
        load(model)
        c = torch.from_numpy(rule.cameras(name))
        z = torch.from_numpy(rule.seeded("z", (2, 512)))
        ws = model.mapping(z, c, truncation_psi=0.7, truncation_cutoff=8)
        # The original adds to its raw image in place where a block keeps the size: take a copy.
        seen = {}

        def kept(*args, forward=model.renderer.forward, seen=seen):
            seen["out"] = forward(*args)
            return tuple(x.clone() for x in seen["out"])

        for label, seed in (("seeded_", rule.SEED), ("", None)):
            coarse, fine = rendering["depth_resolution"], rendering["depth_resolution_importance"]
            rules = drawing(seed, coarse, fine, len(c), size * size)
            with rules, mock.patch.object(model.renderer, "forward", kept):
                image = model.synthesis(
                    ws, c, neural_rendering_resolution=size, noise_mode="const"
                )["image"]
            raw, depth, opacity = (
                x.transpose(1, 2).unflatten(2, (size, size)) for x in seen["out"]
            )
            step = image.shape[-1] // 16
            out |= {f"{name}_{label}raw": raw[:, :3], f"{name}_{label}depth": depth[:, 0]}
            out[f"{name}_{label}opacity"] = opacity[:, 0]
            print(f"{name} {label}: {(opacity == 0).sum()} rays of {opacity.numel()} met nothing")
        out[f"{name}_image"] = image[:, :, 1::step, 2::step]
        out[f"{name}_ws"] = ws[:, ::5, ::16]
    return {key: value.numpy() for key, value in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", type=Path, required=True, help="its folder eg3d")
    original = parser.parse_args().original.resolve()
    sys.path[:0] = [str(original), str(ROOT), str(ROOT / "tests")]
    torch.set_num_threads(1)
    with torch.no_grad():
        arrays = superresolutions() | generators()
    for key, value in arrays.items():
        spread = f"{value.min():.3g} .. {value.max():.3g}, std {value.std():.3g}"
        print(f"{key} {value.shape}: {spread}")
        assert np.isfinite(value).all(), key
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **{k: v.astype(np.float32) for k, v in arrays.items()})
    print(f"wrote {OUT.relative_to(ROOT)}, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
