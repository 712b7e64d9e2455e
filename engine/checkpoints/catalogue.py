"""Published models that Triplane can use, and where they are. Standard library only: Blender's
preferences list them.

Only what is certain is written here. A file is fetched for the user only if its SHA-256 is known
beforehand; of the others the page is shown, and the file is added from disk.
"""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Published:
    """One published model.

    key: its short name, also of the model made from it; title, licence: for people; page: its own
    page, where its licence stands; noncommercial: whether the licence forbids commercial use.
    file: name of its weights; bytes: their size (about, if they are not fetched); address: where
    they are, "" if they are not fetched; sha256: what they must be.
    """

    key: str
    title: str
    page: str
    licence: str
    noncommercial: bool
    file: str
    bytes: int = 0
    address: str = ""
    sha256: str = ""


# The revision names one state of the repository for ever. Size and hash are those that many
# projects pin for this file; what else the network says of it is not believed.
_TRIPOSR = f"{HUB}/stabilityai/TripoSR"
_REVISION = "5b521936b01fbe1890f6f9baed0254ab6351c04a"
_OPENLRM = "CC BY-NC 4.0 (weights): not for commercial use"


def _openlrm(key: str, repository: str, title: str, size: int) -> Published:
    page = f"{HUB}/zxhezexin/{repository}"
    return Published(key, title, page, _OPENLRM, True, "model.safetensors", size)


CATALOGUE = (
    Published(
        "triposr",
        "TripoSR",
        _TRIPOSR,
        "MIT",
        False,
        "model.ckpt",
        1_677_246_742,
        f"{_TRIPOSR}/resolve/{_REVISION}/model.ckpt",
        "429e2c6b22a0923967459de24d67f05962b235f79cde6b032aa7ed2ffcd970ee",
    ),
    # Sizes from OpenLRM's model card, rounded there.
    _openlrm("openlrm-small", "openlrm-mix-small-1.1", "OpenLRM small 1.1", 446_000_000),
    _openlrm("openlrm-base", "openlrm-mix-base-1.1", "OpenLRM base 1.1", 1_040_000_000),
    _openlrm("openlrm-large", "openlrm-mix-large-1.1", "OpenLRM large 1.1", 1_810_000_000),
)


def published(key: str) -> Published | None:
    """The published model of that name, or None."""
    return next((p for p in CATALOGUE if p.key == key), None)
