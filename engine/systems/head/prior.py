"""The learned prior of our own head model: random numbers -> identity, expression, hair and w+.

The head model's encoder and generator come without a mapping network, so what heads look like is
kept as a mixture of Gaussians: a class is a hair style of women or of men; the classes of women
share a low-rank basis of deviations, those of men another, in which shape and colour go together as
they do in the training heads. The class is drawn by the Gumbel trick (Jang et al. 2017,
"Categorical reparameterization with Gumbel-softmax"), so that it, too, moves smoothly with the
random numbers.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import WeightsError
from engine.systems.head.faces import Faces

PATH = Path(__file__).resolve().parents[2] / "weights" / "prior.safetensors"
REMEDY = "Install the extension again."
TEMPERATURE = 0.05  # of the softmax over classes: nearly always one class
SHAPES = {
    "class_share": 1,
    "class_style": 1,
    "class_basis": 1,
    "class_mean": 2,
    "basis": 3,
    "rest": 1,
}


@dataclass(frozen=True)
class Parts:
    """identity [Ki], expression [Ke]: coefficients; hair [styles]: convex weights; ws [n, w]."""

    identity: Tensor
    expression: Tensor
    hair: Tensor
    ws: Tensor


class HeadPrior:
    """class_share [C]: how common each class is; class_style [C]: its hair weight's index;
    class_mean [C, D], basis [G, K, D]: over identity, expression and w+ laid end to end;
    class_basis [C]: which basis is a class's; rest [C]: the mix of classes that the average head
    is made of; faces.*: see Faces. config: sizes, and the makers' notes.

    A code is [3 + n, w]: rows identity, expression, hair (weights), then w+; short ones end in
    zeros.
    """

    def __init__(self, tensors: dict[str, Tensor], config: dict, sha256: str = "") -> None:
        """Raises WeightsError if a tensor is missing or does not fit."""
        for name, dims in SHAPES.items():
            if name not in tensors or tensors[name].ndim != dims:
                raise WeightsError(f"The head prior's weights lack a usable '{name}'.", REMEDY)
        try:
            self.sizes = tuple(config[k] for k in ("identity", "expression", "styles", "ws", "w"))
        except KeyError as error:
            raise WeightsError(
                "The head prior's weights are of another version.", REMEDY
            ) from error
        self.config, self.sha256 = config, sha256
        prefix = "faces."
        inner = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self.faces = Faces(inner)
        self.share, self.rest = tensors["class_share"].double(), tensors["rest"].double()
        self.style, self.group = tensors["class_style"].long(), tensors["class_basis"].long()
        self.mean, self.basis = tensors["class_mean"].float(), tensors["basis"].float()
        identity, expression, styles, n, w = self.sizes
        width = identity + expression + n * w
        classes = len(self.share)
        if (
            self.mean.shape != (classes, width)
            or self.basis.shape[2] != width
            or not len(self.style) == len(self.group) == len(self.rest) == classes
            or not 0 <= int(self.group.min()) <= int(self.group.max()) < len(self.basis)
            or not 0 <= int(self.style.min()) <= int(self.style.max()) < styles
            or max(identity, expression, styles) > w
        ):
            raise WeightsError("The head prior's weights do not fit together.", REMEDY)

    @property
    def z_dim(self) -> int:
        """Numbers that make a head: one for each class and each basis vector."""
        return len(self.share) + self.basis.shape[1]

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of a code's rows."""
        return ("identity", "expression", "hair", *(f"w{i}" for i in range(self.sizes[3])))

    def classes(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """z [D] -> weights of the classes [C], nearly one-hot at psi 1, `rest` at 0."""
        gumbel = -(-torch.special.log_ndtr(z[: len(self.share)].double())).log()
        logits = psi * (self.share.log() + gumbel) / TEMPERATURE + (1 - psi) * self.rest.log()
        return logits.softmax(0)

    def map(self, z: Tensor, psi: float = 0.7) -> Tensor:
        """Normal numbers z [z_dim] -> code [3 + n, w]. psi: truncation: 1 for none, 0 for the
        average head. The class stays nearly as it is until psi is small, since half a hair style
        is none."""
        if z.shape != (self.z_dim,):
            raise ValueError(f"z has the shape {tuple(z.shape)}, not ({self.z_dim},)")
        weights = self.classes(z, psi).float()
        share = torch.zeros(len(self.basis)).index_add(0, self.group, weights)
        basis = torch.tensordot(share, self.basis, 1)
        flat = weights @ self.mean + psi * z[len(self.share) :].float() @ basis
        hair = torch.zeros(self.sizes[2]).index_add(0, self.style, weights)
        identity, expression, _, n, w = self.sizes
        a, b, ws = flat.split([identity, expression, n * w])
        return self.pack(Parts(a, b, hair, ws.reshape(n, w)))

    def pack(self, parts: Parts) -> Tensor:
        """The code [3 + n, w] of a head's parts."""
        w = self.sizes[4]
        top = [F.pad(x, (0, w - len(x))) for x in (parts.identity, parts.expression, parts.hair)]
        return torch.cat([torch.stack(top), parts.ws])

    def unpack(self, code: Tensor) -> Parts:
        """The parts of a code [3 + n, w]. Hair weights that a mix has left the simplex with are
        brought back to it. Raises ValueError for another shape."""
        identity, expression, styles, n, w = self.sizes
        if code.shape != (3 + n, w):
            raise ValueError(f"the code has the shape {tuple(code.shape)}, not {(3 + n, w)}")
        hair = code[2, :styles].clamp_min(0)
        total = hair.sum()
        hair = hair / total if total > 1e-6 else F.one_hot(torch.tensor(styles - 1), styles).float()
        return Parts(code[0, :identity], code[1, :expression], hair, code[3:])


@lru_cache(maxsize=1)
def load_prior(path: Path = PATH) -> HeadPrior:
    """Raises WeightsError if the file is missing, damaged or of another layout."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(str(path), "pt") as file:
            config = json.loads((file.metadata() or {})["prior"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError("The head prior's weights cannot be read.", REMEDY) from error
    return HeadPrior(tensors, config, digest)
