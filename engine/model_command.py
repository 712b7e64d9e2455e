"""`python -m engine model …`: the user's models from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .checkpoints import registry
from .checkpoints.catalogue import CATALOGUE
from .checkpoints.directions import BUILT_IN_PATH, directions_path, list_directions
from .checkpoints.registry import ModelInfo
from .errors import ParameterError


def add_parser(commands: Any) -> None:
    """Add the command and what it does to the command line's."""
    text = "List, add, remove, rename, verify the models; choose the default."
    parser = commands.add_parser("model", help=text, description=text)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str, *names: tuple[str, str]) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        for argument, meaning in names:
            made.add_argument(argument, help=meaning)
        made.add_argument("--models", metavar="DIR", default="", help="folder (the user's own)")
        made.add_argument("--json", action="store_true", help="answer as a JSON object")
        return made

    action("list", "List the models.")
    text = (
        "Add a training pickle of EG3D, or a file with the weights of EG3D, TripoSR or OpenLRM. "
        "Nothing in it is executed."
    )
    add = action("add", text, ("file", "the .pkl, .pt, .pth, .ckpt or .safetensors file"))
    add.add_argument("--name", default="", help="the model's name (after the file)")
    add.add_argument(
        "--like",
        choices=registry.LIKE,
        default="",
        help="whose cameras a file without settings shares (by the pictures' size)",
    )
    add.add_argument("--metres", type=_metres, metavar="M", help="size of a field unit (guessed)")
    add.add_argument(
        "--config",
        metavar="FILE",
        default="",
        help="TripoSR's config.yaml or OpenLRM's config.json (sizes follow from the weights)",
    )
    add.add_argument("--licence", default="", help="the model's licence, a text for people")
    fetch = action("download", "Download a published model and add it.", ("name", "which"))
    fetch.add_argument(
        "--accept-licence", action="store_true", help="you have read its licence and accept it"
    )
    action("published", "List published models for objects: licences, pages.")
    action("remove", "Delete a model.", ("name", "which"))
    action("rename", "Rename a model.", ("name", "which"), ("new", "its new name"))
    action("verify", "Read a model whole and compare its hash.", ("name", "which"))
    text = (
        "List the directions along which a model's heads can be changed; find an added model's, and"
        " name them."
    )
    found = action("directions", text, ("name", "which"))
    found.add_argument(
        "--find", type=int, metavar="N", default=0, help="find N (the main components of w)"
    )
    found.add_argument(
        "--name",
        dest="renamed",
        metavar="3=smile",
        action="append",
        type=_renamed,
        default=[],
        help="name a direction by its number; may be given several times",
    )
    action("default", "Choose the model that is used when none is named.", ("name", "which"))


def run(args: argparse.Namespace, progress: Callable[[float, str], None]) -> tuple[dict, str]:
    """Do what the arguments say; (facts, the same as text). Raises TriplaneError."""
    folder, name = args.models, getattr(args, "name", "")
    if args.action == "list":
        models = registry.list_models(folder)
        default = registry.default_model(folder)
        facts = {
            "folder": str(folder or registry.default_folder()),
            "default": default,
            "models": [_facts(model) for model in models],
        }
        return facts, "".join(_line(model, model.name == default) for model in models)
    if args.action == "add":
        from .checkpoints.add import add_model

        made = add_model(
            args.file,
            name,
            folder,
            like=args.like,
            metres=args.metres,
            licence=args.licence,
            config=args.config,
            progress=progress,
        )
        return {"model": _facts(made)}, f"{made.name}: {made.path}\n"
    if args.action == "published":
        found = [vars(p) for p in CATALOGUE]
        return {"published": found}, "".join(
            f"{p.key}: {p.title}, {p.bytes / 1e6:.0f} MB, {p.licence}, {p.page}\n"
            for p in CATALOGUE
        )
    if args.action == "download":
        from .checkpoints.fetch import fetch_model

        made, sha256 = fetch_model(name, args.accept_licence, folder, progress)
        return {"model": _facts(made), "sha256": sha256}, f"{made.name}: {made.path}\n"
    if args.action == "directions":
        return _directions(args, progress)
    if args.action == "remove":
        registry.remove(folder, name)
    elif args.action == "rename":
        registry.rename(folder, name, args.new)
        name = args.new
    elif args.action == "verify":
        registry.verify(registry.model_path(folder, name))
    else:
        registry.set_default(folder, name)
    return {"name": name}, ""


def _directions(
    args: argparse.Namespace, progress: Callable[[float, str], None]
) -> tuple[dict, str]:
    """Find, name and list a model's directions."""
    path = directions_path(args.name, args.models)
    if args.find:
        from .sampling.ganspace import find_directions
        from .sampling.open import open_sampler

        progress(0.0, "loading the model")
        sampler = open_sampler(args.name, args.models)
        progress(0.3, "finding directions")
        find_directions(sampler, path, args.find)
    if args.renamed:
        from .sampling.ganspace import rename_directions

        if path == BUILT_IN_PATH:
            raise ParameterError("The built-in model's directions have their names.")
        rename_directions(path, dict(args.renamed))
    found = list_directions(args.name, args.models)
    facts = {"name": args.name, "directions": [vars(direction) for direction in found]}
    return facts, "".join(
        f"{number}: {d.name}, {d.low:g} to {d.high:g}; 1 is {d.meaning}\n"
        for number, d in enumerate(found, 1)
    )


def _renamed(text: str) -> tuple[int, str]:
    number, sign, name = text.partition("=")
    if not (sign and number.strip().isdecimal()):
        raise argparse.ArgumentTypeError("must be a number and a name, such as 3=smile")
    return int(number), name


def _metres(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 1000")
    return value


def _facts(model: ModelInfo) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(model).items()}


def _line(model: ModelInfo, default: bool) -> str:
    parts = [f"{model.bytes / 1e6:.0f} MB"]
    if model.resolution:
        parts.append(f"{model.resolution} px")
    if model.licence:
        parts.append(model.licence)
    if model.broken:
        parts.append(model.broken)
    return f"{'*' if default else ' '} {model.name}: {', '.join(parts)}\n"
