"""The user's models: files in one folder, by name, and which of them is the default.

Standard library only: Blender lists them without torch. Nothing here reads a tensor but verify().
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError, ParameterError, WeightsError
from . import header

BUILT_IN = "built-in"
BUILT_IN_PATH = Path(__file__).resolve().parents[1] / "weights" / "head.safetensors"
SUFFIX = ".safetensors"
LIKE = ("ffhq", "cats", "cars")  # published models whose cameras a file without settings may share
OBJECT_SYSTEMS = ("triposr", "openlrm")  # that make objects from one picture
ENVIRONMENT = "TRIPLANE_MODELS"  # a folder, instead of the user's own
DIRECTIONS = "directions"  # the folder, within that of the models, of what was found for them
_SETTINGS = "models.json"
_NAME = re.compile(r"\w[\w .-]{0,63}")
# Device names that Windows takes for no file's, whatever their ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LIST = "`python -m engine model list` and the preferences show the models."

Folder = str | os.PathLike


@dataclass(frozen=True)
class ModelInfo:
    """One model. resolution: pixels a side of its pictures (0: not known); source_file: the name of
    the file that it came from; broken: why it cannot be used, "" if it can."""

    name: str
    path: Path
    bytes: int
    resolution: int
    system: str
    licence: str
    noncommercial: bool
    source_file: str
    built_in: bool = False
    broken: str = ""

    @property
    def makes_objects(self) -> bool:
        """Whether it makes objects from pictures, rather than heads from seeds."""
        return self.system in OBJECT_SYSTEMS


def default_folder() -> Path:
    """Where the user's models are, existing or not."""
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT])
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "triplane" / "models"


def list_models(folder: Folder = "") -> list[ModelInfo]:
    """All models, the built-in one first, then by name. folder: "" for the user's. Reads only the
    files' heads; a broken file is listed with its reason."""
    models = [_built_in()]
    with suppress(OSError):
        found = sorted(_folder(folder).iterdir(), key=lambda p: p.name.casefold())
        for path in found:
            if path.suffix == SUFFIX and not path.name.startswith(".") and path.is_file():
                models.append(describe(path))
    return models


def describe(path: Folder) -> ModelInfo:
    """What a model file's head says; `broken` tells if it says nothing useful. Never raises."""
    path = Path(path)
    size, broken = 0, ""
    record: dict = {}
    try:
        size = path.stat().st_size
        record = header.read_record(header.read_header(path))
    except WeightsError as error:
        broken = error.sentence
    except OSError as error:
        broken = f"The file cannot be read: {error.strerror or error}."
    arguments, source = record.get("init_kwargs"), record.get("source")
    resolution = arguments.get("img_resolution") if isinstance(arguments, dict) else 0
    return ModelInfo(
        name=path.stem,
        path=path,
        bytes=size,
        resolution=resolution if type(resolution) is int else 0,
        system=str(record.get("system", "")),
        licence=str(record.get("licence", "")),
        noncommercial=bool(record.get("noncommercial", False)),
        source_file=str(source.get("file", "")) if isinstance(source, dict) else "",
        broken=broken,
    )


def model_path(folder: Folder = "", name: str = "") -> Path:
    """The file of a model: by name, by path, or the default one for "". Raises WeightsError."""
    name = name or default_model(folder)
    if name == BUILT_IN:
        return BUILT_IN_PATH
    if name.endswith(SUFFIX) and Path(name).is_file():
        return Path(name)
    path = _folder(folder) / f"{name}{SUFFIX}"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise WeightsError(f"There is no model named {name[:80]}.", _LIST)
    return path


def directions_beside(model: Path) -> Path:
    """Where the directions that were found for an added model's file are, or would be."""
    return model.parent / DIRECTIONS / model.name


def object_model(folder: Folder = "", name: str = "") -> ModelInfo:
    """The model for objects of that name, or path; for "" the default model if it is one, else the
    first one that can be used. Raises WeightsError where there is none, with what to do."""
    if name:
        found = describe(model_path(folder, name)) if name != BUILT_IN else _built_in()
        if not found.makes_objects and not found.broken:
            raise WeightsError(
                f"{found.name} is a model for heads, not for objects.",
                "Choose a TripoSR or OpenLRM model.",
            )
        return found
    usable = [m for m in list_models(folder) if m.makes_objects and not m.broken]
    if not usable:
        raise WeightsError(
            "No model for objects is installed.",
            "Add TripoSR or OpenLRM to the models in the preferences, or with"
            " `python -m engine model add`.",
        )
    default = default_model(folder)
    return next((m for m in usable if m.name == default), usable[0])


def check_new_name(folder: Folder, name: str) -> Path:
    """The path that a new model of this name gets. Raises ParameterError if the name cannot be a
    file's on every system, is the built-in model's, or taken."""
    _check_form(name)
    path = _folder(folder) / f"{name}{SUFFIX}"
    if name.casefold() == BUILT_IN or path.exists():
        raise ParameterError(
            f"There is a model named {name} already.", "Choose another name, or remove that one."
        )
    return path


def _check_form(name: str) -> None:
    fits = _NAME.fullmatch(name) and name[-1] not in ". " and not _RESERVED.fullmatch(name)
    if not fits:
        shown = "".join(c if c.isprintable() else "?" for c in name[:80])
        raise ParameterError(
            f"{shown or 'An empty text'} cannot be a model's name.",
            "Use up to 64 letters, digits, spaces, dots and hyphens, beginning with a letter.",
        )


def suggest_name(file: Folder, folder: Folder = "") -> str:
    """A free name for the model in this file, from the file's name."""
    base = re.sub(r"[^\w .-]+", "-", Path(file).stem).strip(" .-_")[:56].strip(" .-") or "model"
    for number in range(1, 1000):
        name = base if number == 1 else f"{base}-{number}"
        with suppress(ParameterError):
            check_new_name(folder, name)
            return name
    raise ParameterError("No free name was found for the model.", "Choose one.")


def default_model(folder: Folder = "") -> str:
    """The default model's name; the built-in one if none was chosen or it is gone."""
    try:
        name = json.loads((_folder(folder) / _SETTINGS).read_bytes())["default"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return BUILT_IN
    there = isinstance(name, str) and _NAME.fullmatch(name)
    return name if there and (_folder(folder) / f"{name}{SUFFIX}").is_file() else BUILT_IN


def set_default(folder: Folder, name: str) -> None:
    """Make a model the default. Raises WeightsError if there is none of that name, OutputError."""
    if name != BUILT_IN:
        _own(folder, name)
    place = _folder(folder)
    path = place / _SETTINGS
    temporary = place / f".{_SETTINGS}.{secrets.token_hex(4)}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"default": name}))
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise output_error(place, error) from error


def rename(folder: Folder, old: str, new: str) -> None:
    """Give a model another name; it stays the default if it was. Raises WeightsError,
    ParameterError or OutputError."""
    path = _own(folder, old)
    if path.name == f"{new}{SUFFIX}":
        return
    same = old.casefold() == new.casefold()  # on some systems the new name's file is this one
    _check_form(new)
    target = path.with_name(f"{new}{SUFFIX}")
    if not (same and target.exists() and target.samefile(path)):
        target = check_new_name(folder, new)
    was_default = default_model(folder) == old
    try:
        path.rename(target)
    except OSError as error:
        raise output_error(path.parent, error) from error
    with suppress(OSError):  # without them they are to be found again
        directions_beside(path).replace(directions_beside(target))
    if was_default:
        set_default(folder, new)


def remove(folder: Folder, name: str) -> None:
    """Delete a model's file; the built-in one becomes the default if this one was. Raises
    WeightsError or OutputError."""
    path = _own(folder, name)
    was_default = default_model(folder) == name
    try:
        path.unlink()
    except OSError as error:
        raise output_error(path.parent, error) from error
    with suppress(OSError):
        directions_beside(path).unlink(missing_ok=True)
    if was_default:
        set_default(folder, BUILT_IN)


def verify(path: Folder, check: Callable[[], None] = lambda: None) -> None:
    """Read a model file whole and compare its hash; 0.1 to 0.5 s for a published model. Raises
    WeightsError. check: called between pieces, may raise to cancel."""
    if Path(path) == BUILT_IN_PATH:  # older than the hash: its head must agree with its length
        header.read_header(path)
    else:
        header.verify(path, check)


def output_error(folder: Path, error: OSError) -> OutputError:
    """The sentence for a models folder that refuses."""
    return OutputError(
        f"The models folder {folder} cannot be changed: {error.strerror or error}.",
        "Choose another folder, or make room in it.",
    )


def _folder(folder: Folder) -> Path:
    return Path(folder) if os.fspath(folder) else default_folder()


def _own(folder: Folder, name: str) -> Path:
    """The file of one of the user's models. Raises WeightsError."""
    if name == BUILT_IN:
        raise WeightsError("The built-in model is part of Triplane and stays as it is.")
    path = _folder(folder) / f"{name}{SUFFIX}"
    if not _NAME.fullmatch(name) or not path.is_file():
        raise WeightsError(f"There is no model named {name[:80]}.", _LIST)
    return path


def _built_in() -> ModelInfo:
    try:
        size, broken = BUILT_IN_PATH.stat().st_size, ""
    except OSError:
        size, broken = 0, "The built-in model's file is missing."
    return ModelInfo(
        name=BUILT_IN,
        path=BUILT_IN_PATH,
        bytes=size,
        resolution=0,
        system="head",
        licence="GPL-3.0-or-later",
        noncommercial=False,
        source_file="",
        built_in=True,
        broken=broken,
    )
