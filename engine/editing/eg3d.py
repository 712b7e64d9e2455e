"""A head of an added EG3D model opened for editing: sampled, or inverted and tuned.

The difference that the edit makes to the generator's planes is added to the field's own, so that a
tuned field keeps what tuning gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.editing.photo import Edited
from engine.editing.planes import PlaneChanges
from engine.errors import WeightsError
from engine.fields.base import Origin
from engine.fields.triplane import TriplaneField
from engine.sampling.eg3d import EG3DSampler
from engine.systems.head.directions import Directions


class TriplaneEditor:
    """One head, with what its edits share kept. The field given is never changed."""

    def __init__(self, field: TriplaneField, sampler: EG3DSampler, directions: Directions) -> None:
        """Raises WeightsError for a head without a code of this model."""
        rows = (len(sampler.rows), sampler.config.w_dim)
        if field.origin is None or field.origin.code.shape != rows:
            raise WeightsError(f"The head's latent code does not fit the model {sampler.name}.")
        self.base, self.directions, self._sampler = field, directions, sampler
        self.code = field.origin.code.float()
        self._planes = PlaneChanges(self._change, directions)
        self._rest: Tensor | None = None

    @torch.no_grad()
    def edited(
        self,
        amounts: Mapping[str, float],
        quick: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> Edited:
        """The edited head; as of HeadEditor.edited()."""
        code = self.directions.apply(self.code, amounts)
        some = {name: float(a) for name, a in amounts.items() if a}
        change = self._planes.quick if quick else self._planes.exact
        added = change(some, check) if some else None
        base = self.base
        planes = base.planes if added is None else base.planes + added.to(base.planes)
        made = TriplaneField(planes, base.decoder, base.settings)
        made.origin = Origin(code, {**base.origin.recipe, "edited": some})
        return Edited(made)

    def _change(self, amounts: Mapping[str, float], check: Callable[[], None]) -> Tensor | None:
        if self._rest is None:
            self._rest = self._generated(self.code)
            check()
        return self._generated(self.directions.apply(self.code, amounts)) - self._rest

    def _generated(self, code: Tensor) -> Tensor:
        """The generator's planes [3, C, R, R] of a code [rows, W]."""
        compute = self._sampler.compute
        with compute.autocast():
            return self._sampler.generator.planes(code[None].to(compute.device))[0].float()
