"""The job `gallery`: a small picture of each of many seeds, handed out as soon as it is made."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .sample import LATENT, MODEL

PARAMS = (
    Param("first", int, 0, "The first seed", minimum=0, maximum=2**31 - 1),
    Param("count", int, 12, "Number of seeds", minimum=1, maximum=1000),
    *MODEL,
    *LATENT,
    Param("size", int, 128, "Side of a picture", unit="px", minimum=16, maximum=1024),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """An item a seed: {"seed", "index"} and its picture."""
    from engine.jobs.sampling_stages import sample_gallery

    return sample_gallery(params, context)


JOB = Job("gallery", "Show what heads seeds would give.", PARAMS, run)
