"""Where an edited head's points were before: the displacement that takes a changed shape back.

A head field keeps its baked distance and its warp to canonical space, not the formula they came
from. A change of coefficients moves the canonical head's points by a known amount G, linear in the
change; with the field's own warp, that is a displacement H(p) = G(p + warp(p)) of the unedited
head's points p. An edited point p' was at p = p' + E(p'), where E(p') = H(p' + E(p')), found by
fixed-point iteration. So the new distance is the old one at p, whatever went into it: the outline
that was fitted to a photo, its hair, everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.headspace import lattice
from engine.headspace.space import HeadSpace

NODES = 64  # of the displacement's lattice along the box, the head space's own warp's
ROUNDS = 5  # of the fixed-point iteration
DAMPING = 0.7
MARGIN = 2.0  # lattice steps round the surface within which the displacement is exact
COARSE, FINE = 2, 1.8  # a grid is first computed on every second node; nodes nearer to the surface
# than so many coarse steps are computed for themselves


class Displacements:
    """The displacements H of one head, by direction; `warp` [3, L, L, L] and `distance` [R, R, R]
    are its field's. Each is computed when it is first asked for."""

    def __init__(self, space: HeadSpace, warp: Tensor, distance: Tensor) -> None:
        self.space, self.bounds = space, space.bounds
        self.nodes = lattice.nodes(NODES, self.bounds)
        self.warp = lattice.sample(warp, self.nodes, self.bounds)
        self.distance = lattice.sample(distance[None], self.nodes, self.bounds)[:, 0]
        self._spread = lattice.Spread(space.mean, self.bounds, NODES)
        self._known: dict[str, Tensor] = {}

    def of(self, name: str, identity: Tensor, expression: Tensor) -> Tensor:
        """H [3, NODES, NODES, NODES] of a change of coefficients, kept under `name`."""
        if name not in self._known:
            moved = self._spread(self.space.displacement(identity, expression))
            canonical = self.nodes + self.warp
            found = lattice.sample(-lattice.blur(moved, 2), canonical, self.bounds)
            self._known[name] = found.T.reshape(3, NODES, NODES, NODES).contiguous()
        return self._known[name]

    def back(self, moved: Tensor) -> Tensor:
        """E [3, NODES, NODES, NODES] of H of the same shape."""
        out = moved.reshape(3, -1).T.clone()
        step = float(self.bounds[1, 0] - self.bounds[0, 0]) / (NODES - 1)
        reach = MARGIN * step + float(out.square().sum(1).max()) ** 0.5
        near = (self.distance.abs() < reach).nonzero()[:, 0]
        points, e = self.nodes[near], out[near]
        for _ in range(ROUNDS):
            e = torch.lerp(e, lattice.sample(moved, points + e, self.bounds), DAMPING)
        out[near] = e
        return out.T.reshape(moved.shape).contiguous()


def on_grid(evaluate: Callable[[Tensor], Tensor], resolution: int, bounds: Tensor) -> Tensor:
    """A distance [R, R, R] from a function of points [N, 3] -> [N], exact near the surface and
    interpolated from every COARSE-th node elsewhere."""
    few = resolution // COARSE
    coarse = evaluate(lattice.nodes(few, bounds)).reshape(1, 1, few, few, few)
    out = F.interpolate(coarse, (resolution,) * 3, mode="trilinear", align_corners=True)[0, 0]
    flat = out.reshape(-1)
    step = float(bounds[1, 0] - bounds[0, 0]) / (few - 1)
    near = (flat.abs() < FINE * step).nonzero()[:, 0]
    flat[near] = evaluate(node_places(near, resolution, bounds))
    return flat.reshape((resolution,) * 3)


def node_places(index: Tensor, resolution: int, bounds: Tensor) -> Tensor:
    """Positions [N, 3] of a grid's nodes by their flat numbers [N], x fastest."""
    x, y, z = index % resolution, index // resolution % resolution, index // resolution**2
    unit = torch.stack([x, y, z], 1) / (resolution - 1)
    return bounds[0] + unit * (bounds[1] - bounds[0])


def total(parts: Mapping[str, Tensor], amounts: Mapping[str, float]) -> Tensor | None:
    """The sum of tensors by their amounts; None where all are 0."""
    out = None
    for name, tensor in parts.items():
        if amounts[name]:
            part = tensor * amounts[name]
            out = part if out is None else out.add_(part)
    return out
