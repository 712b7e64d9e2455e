"""The job `sample`: seeds or saved heads -> a new textured head mesh, its camera and its field."""

from __future__ import annotations

from typing import Any

from .base import Context, Job, Param, Result
from .mesh import QUADS, SURFACE

SPACES = ("w", "z")
# Which model, and how a seed becomes a code: the same in every job that samples.
MODEL = (
    Param("model", str, "", "Model: its name or a model file; empty: the default model"),
    Param("models", str, "", "Folder of the models; empty: the user's"),
)
LATENT = (
    Param("psi", float, 0.7, "Truncation: 1 for none, 0 for the average head", "", -2.0, 2.0),
    Param(
        "cutoff",
        int,
        -1,
        "How many rows of the code are truncated, from the coarsest on; -1: all",
        minimum=-1,
        maximum=64,
    ),
    Param(
        "yaw",
        float,
        0.0,
        "Camera that the head is conditioned on: to the subject's left",
        "degrees",
        -180.0,
        180.0,
    ),
    Param(
        "pitch", float, 0.0, "Camera that the head is conditioned on: above", "degrees", -90.0, 90.0
    ),
)
SPACE = Param(
    "space",
    str,
    "w",
    "Blend heads on a line between their codes (w) or on an arc between random vectors (z)",
    choices=SPACES,
)
PARAMS = (
    Param("heads", str, "", "Seed, or several seeds and saved heads (.safetensors), with commas"),
    *MODEL,
    Param(
        "at",
        float,
        0.0,
        "Place on the path through the heads: 0 is the first, 1 the second",
        minimum=0.0,
        maximum=1000.0,
    ),
    SPACE,
    *LATENT,
    Param(
        "mix_seed",
        int,
        -1,
        "Seed whose rows replace some of the head's; -1: none",
        minimum=-1,
        maximum=2**31 - 1,
    ),
    Param("mix_from", int, 0, "First row to replace", minimum=0, maximum=63),
    Param("mix_to", int, -1, "Last row to replace; -1: the last", minimum=-1, maximum=63),
    Param(
        "edits",
        str,
        "",
        "Changes of a head of the built-in model, such as age=1, smile=0.5 (names and units:"
        " engine/weights/directions.md)",
    ),
    *SURFACE,
    *QUADS,
    Param("name", str, "", "Name of the head; empty: after its seed"),
)


def run(params: dict[str, Any], context: Context) -> Result:
    """Samples the code and its field, extracts the mesh, bakes the texture."""
    from engine.jobs.sampling_stages import sample_head

    return sample_head(params, context)


JOB = Job("sample", "Make a new textured head from a seed.", PARAMS, run)
