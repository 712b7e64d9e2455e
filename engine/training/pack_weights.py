"""Puts the trained parts into the one file that ships.

    python -m engine.training.pack_weights --headspace headspace.safetensors \
        --perception DIR/perception.safetensors --appearance DIR/appearance.safetensors \
        --out engine/weights/head.safetensors
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from engine.inversion.pose import FOCAL
from engine.systems.head.model import HeadConfig
from engine.training.data import WIDEN


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("headspace", "perception", "appearance", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    tensors = {f"space.{k}": v for k, v in load_file(args.headspace).items()}
    tensors |= {f"perception.{k}": v for k, v in load_file(args.perception).items()}
    tensors |= dict(load_file(args.appearance))  # generator.* and encoder.*
    tensors = {
        k: v.half() if v.is_floating_point() and v.numel() > 4096 and k != "space.mean" else v
        for k, v in tensors.items()
    }
    model = {
        "name": "triplane-head",
        "version": 1,
        "head": HeadConfig().to_json(),
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
