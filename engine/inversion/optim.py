"""Adam (Kingma and Ba 2015), plain.

torch.optim brings in its compiler when first used: 800 modules, 1.4 s of every worker's first job,
and a folder left in the system's temporary files. The few hundred small steps here need none of it.
"""

from __future__ import annotations

from typing import Any

import torch


class Adam:
    """groups: dicts with "params" (tensors with gradients) and "lr", which may be changed between
    steps; parameters without a gradient are left alone."""

    def __init__(
        self, groups: list[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self.param_groups = groups
        self.betas, self.steps = betas, 0
        self._moments = {
            p: (torch.zeros_like(p), torch.zeros_like(p)) for g in groups for p in g["params"]
        }

    def zero_grad(self) -> None:
        for parameter in self._moments:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        b1, b2 = self.betas
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean, square = self._moments[p]
                mean.lerp_(p.grad, 1 - b1)
                square.mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                size = (square / (1 - b2**self.steps)).sqrt_().add_(1e-8)
                p.addcdiv_(mean, size, value=-group["lr"] / (1 - b1**self.steps))
