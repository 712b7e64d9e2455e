"""Install a built zip through Blender's own installer in a fresh profile, and start its engine.

    python wheels/check_install.py dist/triplane-0.1.0-linux-x64.zip
    python wheels/check_install.py dist/triplane-0.1.0-linux-x64-slim.zip --engine .venv/bin/python
    python wheels/check_install.py ZIP --photo examples/astronaut.png --preset fast

Runs in the Blender (`bpy`) of the Python that runs it: use one that has nothing but bpy to see that
a full package needs nothing else. Prints sizes and times as JSON; the exit status is 0 when the
engine answered. The profile is a temporary folder; your own Blender is not touched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

MODULE = "bl_ext.user_default.triplane"


def folder_size(path: Path) -> int:
    """Bytes of all files below a folder; 0 if it does not exist."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.exists() else 0


def check(archive: Path, engine: str, photo: str, preset: str, profile: Path) -> dict:
    """Install, start the engine, optionally reconstruct, uninstall; returns the facts.

    engine: path of the engine's Python, '' for Blender's own with the package's wheels.
    Raises RuntimeError with Blender's or the extension's sentence where a step fails.
    """
    os.environ["BLENDER_USER_RESOURCES"] = str(profile)  # before bpy reads it
    import bpy

    facts: dict = {"blender": bpy.app.version_string, "zip_bytes": archive.stat().st_size}
    start = time.perf_counter()
    bpy.ops.extensions.package_install_files(
        filepath=str(archive), repo="user_default", enable_on_install=True
    )
    facts["install_seconds"] = round(time.perf_counter() - start, 2)
    if MODULE not in bpy.context.preferences.addons:
        raise RuntimeError(f"Blender did not install {archive.name}; its words are above.")
    extensions = Path(bpy.utils.user_resource("EXTENSIONS"))
    facts["extension_bytes"] = folder_size(extensions / "user_default" / "triplane")
    facts["wheels_bytes"] = folder_size(extensions / ".local")
    facts["torch_loaded_by_blender"] = "torch" in sys.modules

    preferences = bpy.context.preferences.addons[MODULE].preferences
    if engine:
        preferences.python = str(Path(engine).absolute())  # not resolved: a venv's is a link
    start = time.perf_counter()
    bpy.ops.triplane.check_engine()
    facts["engine_first_answer_seconds"] = round(time.perf_counter() - start, 2)
    facts["engine"] = sys.modules[f"{MODULE}.operators.session"].engine_facts
    if photo:
        start = time.perf_counter()
        bpy.ops.triplane.reconstruct_head(filepath=str(Path(photo).absolute()), preset=preset)
        facts["reconstruct_seconds"] = round(time.perf_counter() - start, 2)
        facts["objects"] = sorted(f"{o.type} {o.name}" for o in bpy.data.objects)

    start = time.perf_counter()
    bpy.ops.extensions.package_uninstall(repo_index=_repository(bpy), pkg_id="triplane")
    facts["uninstall_seconds"] = round(time.perf_counter() - start, 2)
    facts["left_after_uninstall"] = sorted(
        p.name for p in (extensions / "user_default").iterdir() if not p.name.startswith(".")
    )
    facts["torch_loaded_by_blender"] |= "torch" in sys.modules
    return facts


def _repository(bpy) -> int:
    repositories = bpy.context.preferences.extensions.repos
    return next(i for i, repo in enumerate(repositories) if repo.module == "user_default")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zip", type=Path)
    parser.add_argument("--engine", default="", help="the engine's Python, for a slim package")
    parser.add_argument("--photo", default="", help="also make a head of this photo")
    parser.add_argument("--preset", default="fast")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="triplane-profile-") as profile:
        try:
            facts = check(
                options.zip.absolute(),
                options.engine,
                options.photo,
                options.preset,
                Path(profile),
            )
        except RuntimeError as error:
            print(f"wheels/check_install.py: {error}", file=sys.stderr)
            return 1
    print(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
