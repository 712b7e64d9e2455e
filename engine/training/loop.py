"""What the training scripts share: averaged weights, running losses, stopping and going on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


class Run:
    """One training run in a folder: a model, the exponential average of its weights, an optimiser.

    state.pt holds all of it (tensors only), NAME.safetensors the averaged weights in half
    precision. step and spent (seconds) count over restarts.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        model: nn.Module,
        average: nn.Module,
        optimiser,
        others: dict | None = None,
    ) -> None:
        """others: further parts with a state dict by name, such as a discriminator."""
        self.folder, self.name = folder, name
        self.model, self.average, self.optimiser = model, average, optimiser
        self.others = others or {}
        self.step, self.spent = 0, 0.0
        self.losses: dict[str, float] = {}
        path = folder / "state.pt"
        if path.exists():
            state = torch.load(path, map_location="cpu", weights_only=True)
            for key, part in self._parts().items():
                part.load_state_dict(state[key])
            self.step, self.spent = state["step"], state["spent"]

    def _parts(self) -> dict:
        parts = {"model": self.model, "average": self.average, "optimiser": self.optimiser}
        return parts | self.others

    def update(self, loss: torch.Tensor, values: dict[str, torch.Tensor], clip: float, keep: float):
        """One optimiser step (skipped where the loss is not finite) and the average's."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        if torch.isfinite(loss):
            self.optimiser.step()
        with torch.no_grad():
            share = 1 - min(keep, 1 - 1 / (self.step + 2))
            for a, b in zip(self.average.parameters(), self.model.parameters(), strict=True):
                a.lerp_(b, share)
        self.note(values)
        self.step += 1

    def note(self, values: dict[str, torch.Tensor]) -> None:
        """Takes values into the running losses."""
        for name, value in values.items():
            self.losses[name] = self.losses.get(name, value.item()) * 0.96 + value.item() * 0.04

    def line(self, heads: int) -> str:
        """The running losses as a line of the log."""
        values = " ".join(f"{k} {v:.4f}" for k, v in self.losses.items())
        return f"{self.step} {self.spent / 60:.1f} min {heads} heads: {values}"

    def save(self) -> None:
        """Both files, each whole or not at all."""
        state = {key: part.state_dict() for key, part in self._parts().items()}
        torch.save(state | {"step": self.step, "spent": self.spent}, self.folder / "state.tmp")
        (self.folder / "state.tmp").replace(self.folder / "state.pt")
        weights = {k: v.half().contiguous() for k, v in self.average.state_dict().items()}
        temporary = self.folder / f"{self.name}.tmp"
        save_file(weights, temporary)
        temporary.replace(self.folder / f"{self.name}.safetensors")
