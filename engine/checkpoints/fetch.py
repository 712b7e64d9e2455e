"""A published model, from its address to one of the user's models."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.checkpoints import registry
from engine.checkpoints.add import add_model
from engine.checkpoints.catalogue import published
from engine.checkpoints.download import download
from engine.checkpoints.registry import ModelInfo
from engine.errors import DownloadError, ParameterError, WeightsError

DOWNLOADS = "downloads"  # below the models' folder: what is not finished


def fetch_model(
    key: str,
    accept: bool,
    folder: str | os.PathLike = "",
    progress: Callable[[float, str], None] = lambda fraction, step: None,
    check: Callable[[], None] = lambda: None,
) -> tuple[ModelInfo, str]:
    """Download the published model `key` (see catalogue), check it, add it to the models; the file
    itself is removed. Returns the model and the file's SHA-256.

    accept: whether the user has accepted its licence. Raises ParameterError, DownloadError,
    WeightsError or OutputError; an unfinished download stays, and the next call goes on with it.
    """
    wanted = published(key)
    if wanted is None:
        raise ParameterError(f"There is no published model named {key[:40]}.")
    if not wanted.address:
        raise DownloadError(
            f"{wanted.title} is not downloaded by Triplane: the SHA-256 of its file is not known.",
            f"Get {wanted.file} from {wanted.page} and add it from disk.",
        )
    if not accept:
        raise ParameterError(
            f"The licence of {wanted.title} has not been accepted: {wanted.licence}.",
            f"Read it at {wanted.page} first.",
        )
    models = Path(folder) if os.fspath(folder) else registry.default_folder()
    place = models / DOWNLOADS
    target = place / f"{wanted.key}-{wanted.file}"
    progress(0.0, "connecting")

    def show(done: int, size: int) -> None:
        progress(0.7 * done / size, "downloading")

    try:
        download(wanted.address, target, wanted.bytes, wanted.sha256, show, check)
    except BaseException:
        with suppress(OSError):
            place.rmdir()  # only if nothing is left to go on with
        raise
    name = registry.suggest_name(f"{wanted.key}.x", models)
    try:
        made = add_model(
            target,
            name,
            models,
            licence=wanted.licence,
            progress=lambda f, step: progress(0.7 + 0.3 * f, step),
            check=check,
        )
    except WeightsError:  # whole, and of the right hash, but of no use: it will never be
        target.unlink(missing_ok=True)
        raise
    finally:
        with suppress(OSError):
            place.rmdir()
    with suppress(OSError):
        target.unlink()
        place.rmdir()
    return made, wanted.sha256
