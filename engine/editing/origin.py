"""The latent code of a head that came from a photo, so that it can be edited, blended and mixed."""

from __future__ import annotations

from torch import Tensor

from engine.checkpoints.default import DefaultModel
from engine.fields.base import Origin
from engine.fields.head import HeadField
from engine.inversion.shape import Shape
from engine.sampling.builtin import BuiltInSampler
from engine.systems.head.prior import Parts

PHOTO = "photo"  # what stands for the head in a recipe: its file's name is nobody's business


def remember(field: HeadField, shape: Shape, ws: Tensor, model: DefaultModel) -> None:
    """Gives a field its origin: the code of a fitted shape and w+ [1, n, w] or [n, w], laid out as
    the sampler's own. What the code cannot say (the hair's residual, tuned colours) stays in the
    field alone."""
    sampler = BuiltInSampler(model=model)
    ws = ws.detach().float().reshape(-1, ws.shape[-1])
    parts = Parts(shape.identity.detach(), shape.expression.detach(), shape.hair.detach(), ws)
    recipe = {"model": sampler.name, "sha256": sampler.sha256, "heads": [PHOTO]}
    field.origin = Origin(sampler.prior.pack(parts), recipe)


def from_photo(field: HeadField) -> bool:
    """Whether a field's code was remembered of a photo."""
    return field.origin is not None and field.origin.recipe.get("heads") == [PHOTO]
