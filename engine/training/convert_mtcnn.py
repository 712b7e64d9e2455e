"""Make engine/weights/mtcnn.safetensors from the face detector that facenet-pytorch ships.

    python -m pip download facenet-pytorch==2.6.0 --no-deps -d build/mtcnn
    python -m engine.training.convert_mtcnn build/mtcnn/facenet_pytorch-2.6.0-py3-none-any.whl

The wheel is a zip that carries three torch state dicts (pnet.pt, rnet.pt, onet.pt). They are read
with weights_only=True, so nothing in them is executed, checked against the SHA-256 of the files
that this project was built from, and written unchanged (float32) under the names that
engine/portrait/detect.py uses: `<net>.<layer>.<parameter>`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

OUTPUT = Path(__file__).resolve().parent.parent / "weights" / "mtcnn.safetensors"
SHA256 = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
METADATA = {
    "format": "triplane-mtcnn-1",
    "source": "facenet_pytorch 2.6.0 wheel on PyPI: data/pnet.pt, data/rnet.pt, data/onet.pt",
    "licence": "MIT, Copyright (c) 2019 Timothy Esler",
    "origin": "ported there from David Sandberg's facenet (MIT), and there from the authors' "
    "Caffe models (MIT): Zhang et al., Joint Face Detection and Alignment Using Multitask "
    "Cascaded Convolutional Networks, 2016",
    "input": "RGB, (value - 127.5) / 128",
}
# Layer names of the source -> ours. The heads are named by what they answer.
HEADS = {
    "pnet": {"conv4_1": "score", "conv4_2": "box"},
    "rnet": {"dense5_1": "score", "dense5_2": "box"},
    "onet": {"dense6_1": "score", "dense6_2": "box", "dense6_3": "points"},
}


def convert(wheel: Path) -> dict[str, torch.Tensor]:
    """The tensors of all three networks under our names. Raises ValueError when a file in the wheel
    is not the one expected."""
    tensors: dict[str, torch.Tensor] = {}
    with zipfile.ZipFile(wheel) as archive:
        for net, digest in SHA256.items():
            data = archive.read(f"facenet_pytorch/data/{net}.pt")
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError(f"{net}.pt is not the file that this converter was written for.")
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            for key, value in state.items():
                layer, parameter = key.split(".")
                name = f"{net}.{HEADS[net].get(layer, layer)}.{parameter}"
                tensors[name] = value.to(torch.float32).contiguous()
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    args = parser.parse_args()
    data = save(convert(args.wheel), METADATA)
    temporary = args.out.with_suffix(".part")
    temporary.write_bytes(data)
    os.replace(temporary, args.out)
    print(f"{args.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
