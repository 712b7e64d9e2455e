"""Puts the trained parts into the one file that ships.

    python -m engine.training.pack_weights --headspace headspace.safetensors \
        --perception DIR/perception.safetensors --appearance DIR/gan.safetensors \
        --out engine/weights/head.safetensors

--appearance: of train_gan, or of train_appearance: a file without a mapping network, whose heads
from seeds come from the prior alone. --no-mapping leaves it out of train_gan's.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.inversion.pose import FOCAL
from engine.systems.head.model import HeadConfig
from engine.training.data import WIDEN


def config_of(tensors: dict[str, Tensor]) -> HeadConfig:
    """The sizes of trained generator and encoder by their tensors; what a run never changes is as
    HeadConfig has it."""
    fine = tensors.get("generator.fine.conv1.weight", ())
    colour = tensors.get("encoder.colour.weight")
    cells = 0 if colour is None else math.isqrt(colour.shape[1] // 4)
    styles = len(tensors.get("generator.hair.to_style.weight", ()))
    return HeadConfig(fine_channels=len(fine), hair_styles=styles, colour_grid=cells)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("headspace", "perception", "appearance", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--no-mapping", action="store_true")
    args = parser.parse_args(argv)
    tensors = {f"space.{k}": v for k, v in load_file(args.headspace).items()}
    tensors |= {f"perception.{k}": v for k, v in load_file(args.perception).items()}
    appearance = load_file(args.appearance)  # generator.*, encoder.*, and mapping.*
    head = config_of(appearance)
    tensors |= {
        k: v
        for k, v in appearance.items()
        if not (args.no_mapping and k.startswith("mapping."))
    }
    tensors = {
        k: v.half() if v.is_floating_point() and v.numel() > 4096 and k != "space.mean" else v
        for k, v in tensors.items()
    }
    model = {
        "name": "triplane-head",
        "version": 2 if head.fine_channels else 1,
        "head": head.to_json(),
        "widen": WIDEN,
        "focal": FOCAL,
        "bounds_m": [-0.2, 0.2],
        "axes": "x to the subject's left, y up, z out of the face",
        "planes": ["x y front", "x y back", "z y", "x z"],
    }
    temporary = args.out.with_suffix(".tmp")
    save_file(tensors, temporary, {"model": json.dumps(model, sort_keys=True), "format": "pt"})
    temporary.replace(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
