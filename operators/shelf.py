"""The gallery's pictures: which seeds have one, and for which settings they hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import models, session

PAGE = 12  # pictures to be seen at once
_KEPT = 20 * PAGE


@dataclass
class Shelf:
    """key: what the pictures depend on beside the seed. seeds: those made, oldest first."""

    key: tuple = ()
    seeds: list[int] = field(default_factory=list)


_shelf = Shelf()


def key(latent) -> tuple:
    """What pictures depend on, of anything with sampling.Latent's properties."""
    model = models.find(latent.model)
    place = models.stamp(model.path) if model is not None else (latent.model, 0)
    numbers = (round(latent.psi, 4), latent.cutoff, round(latent.yaw, 3), round(latent.pitch, 3))
    return (*place, *numbers)


def put(wanted: tuple, seed: int, image) -> None:
    """Keep the picture (uint8 [H, W, 3]) of a seed; those for other settings go."""
    if wanted != _shelf.key:
        forget()
        _shelf.key = wanted
    if seed in _shelf.seeds:
        _shelf.seeds.remove(seed)
    _shelf.seeds.append(seed)
    session.thumbnails.show(image, _name(seed))
    while len(_shelf.seeds) > _KEPT:
        session.thumbnails.drop(_name(_shelf.seeds.pop(0)))


def icon(wanted: tuple, seed: int) -> int:
    """The icon of a seed's picture; 0 if there is none for these settings."""
    return session.thumbnails.icon(_name(seed)) if wanted == _shelf.key else 0


def missing(wanted: tuple, first: int, count: int) -> list[int]:
    """The seeds of a page that have no picture for these settings."""
    there = set(_shelf.seeds) if wanted == _shelf.key else set()
    return [seed for seed in range(first, first + count) if seed not in there]


def forget() -> None:
    """Drop all pictures."""
    for seed in _shelf.seeds:
        session.thumbnails.drop(_name(seed))
    _shelf.key, _shelf.seeds = (), []


def _name(seed: int) -> str:
    return f"seed {seed}"
