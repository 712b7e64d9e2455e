"""Errors that an artist may see: a kind, one sentence, and how to mend it."""

from __future__ import annotations


class TriplaneError(Exception):
    """Base of every expected failure.

    kind: a short stable word ("photo", "no-face", "output", ...), for programs.
    sentence: what went wrong, one sentence, for the artist.
    remedy: what the artist can do about it, one sentence (may be empty).
    """

    kind = "error"

    def __init__(self, sentence: str, remedy: str = "") -> None:
        super().__init__(f"{sentence} {remedy}".strip())
        self.sentence = sentence
        self.remedy = remedy


class PhotoError(TriplaneError):
    """The photo cannot be used: missing, not an image, damaged, too large, too small."""

    kind = "photo"


class NoFaceError(TriplaneError):
    """No face was found and no points were given."""

    kind = "no-face"


class ParameterError(TriplaneError):
    """A job's parameter is missing, of the wrong type or out of bounds."""

    kind = "parameter"


class OutputError(TriplaneError):
    """Results cannot be written: folder read-only, disk full."""

    kind = "output"


class WeightsError(TriplaneError):
    """A weights or field file is missing, damaged or of another layout."""

    kind = "weights"

    @classmethod
    def unreadable(cls, what: str, name: str, error: OSError) -> WeightsError:
        """What to say where a "model" or a "field" has a file of this name that cannot be read."""
        return cls(
            f"The {what}'s file {name} cannot be read: {error.strerror or error}.",
            "Check that the file is still where it was.",
        )


class ReconstructionError(TriplaneError):
    """A stage could not produce a usable result from this photo."""

    kind = "reconstruction"


class DownloadError(TriplaneError):
    """A file cannot be fetched: no connection, a dead server, a wrong hash, a full disk."""

    kind = "download"


class Cancelled(TriplaneError):
    """The user cancelled; nothing was changed."""

    kind = "cancelled"

    def __init__(self) -> None:
        super().__init__("Cancelled.")
