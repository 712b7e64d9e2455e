"""Build the extension's installable zip: dist/triplane-<version>-<platform>[-slim].zip.

    python wheels/build.py --platform linux-x64 --torch cpu     with the engine's wheels inside
    python wheels/build.py --platform linux-x64 --torch none    slim: the engine runs in the Python
                                                                that the preferences name

Wheels are downloaded by name through pip into build/wheels and used only when their SHA-256 is the
one in wheels/lock.toml. The same sources and lock give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "wheels" / "lock.toml"
CACHE = ROOT / "build" / "wheels"
MANIFEST = "blender_manifest.toml"

# What the extension is made of. The training code and the package tools stay at home.
FILES = ("__init__.py", "api.py", "LICENSE", "README.md", "CHANGELOG.md")
FOLDERS = ("operators", "panels", "engine")
LEFT_OUT = ("engine/training",)
KINDS = {".py", ".toml", ".json", ".md", ".txt", ".safetensors", ".png", ".svg", ".glsl"}
SKIPPED_FOLDERS = {"__pycache__"}

# The first Blender whose Python (3.13) is not the wheels'. By their tags alone Blender would notice
# only after it has installed 900 MB; by this it refuses at once.
BLENDER_TOO_NEW = "5.1.0"

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold


class BuildError(Exception):
    """The zip cannot be built; the message is a sentence for the person at the terminal."""


@dataclass(frozen=True)
class LockedWheel:
    """A wheel of the lock file: package name, exact version, file name, hex SHA-256."""

    name: str
    version: str
    file: str
    sha256: str


def read_lock(path: Path, platform: str) -> tuple[str, list[str], list[LockedWheel]]:
    """The lock's Python version, pip's tags for `platform`, and its wheels.

    Raises BuildError for a platform that the lock does not hold.
    """
    lock = tomllib.loads(path.read_text())
    if platform not in lock["platforms"]:
        known = ", ".join(lock["platforms"])
        raise BuildError(f"There is no platform named {platform}; the lock file has {known}.")
    wheels = []
    for package in lock["package"]:
        entry = package["wheels"][platform]
        wheels.append(
            LockedWheel(package["name"], entry["version"], entry["file"], entry["sha256"])
        )
    return lock["python"], lock["platforms"][platform]["pip_tags"], wheels


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pip_download(wheels: list[LockedWheel], python: str, tags: list[str], folder: Path) -> None:
    """Let pip fetch `wheels` by name and version into `folder`; BuildError with pip's words."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--no-deps", "--python-version", python]
    command += ["--dest", str(folder)]
    for tag in tags:
        command += ["--platform", tag]
    # With the hashes in hand pip picks the very files of the lock where the index has several.
    lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(lines)
        requirements.flush()
        command += ["--requirement", requirements.name]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    if done.returncode:
        names = ", ".join(f"{w.name} {w.version}" for w in wheels)
        hint = ""
        if any("+cpu" in w.version for w in wheels):
            hint = (
                " PyTorch's CPU build for Linux is not on every package index: point pip at a place"
                " that has it, with PIP_FIND_LINKS=folder or PIP_EXTRA_INDEX_URL."
            )
        last = "\n".join(done.stderr.strip().splitlines()[-6:])
        raise BuildError(f"pip could not download {names}.{hint}\npip said:\n{last}")


def fetch_wheels(
    wheels: list[LockedWheel], python: str, tags: list[str], cache: Path
) -> list[Path]:
    """The wheels' files in `cache`, downloaded where missing, each checked against its hash.

    Raises BuildError for a file whose content is not the lock's; that file is left for a look,
    under a name that is never used.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [wheel for wheel in wheels if not (cache / wheel.file).exists()]
    if missing:
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            pip_download(missing, python, tags, Path(folder))
            for path in sorted(Path(folder).iterdir()):
                os.replace(path, cache / path.name)
    for wheel in wheels:
        path = cache / wheel.file
        if not path.exists():
            raise BuildError(f"pip brought another file than {wheel.file} for {wheel.name}.")
        found = sha256_of(path)
        if found != wheel.sha256:
            os.replace(path, path.with_suffix(".refused"))
            raise BuildError(
                f"{wheel.file} is not the file of the lock: its SHA-256 is {found}, expected "
                f"{wheel.sha256}. It was not used; delete build/wheels and try again, and if it "
                "happens again, do not trust where it came from."
            )
    return [cache / wheel.file for wheel in wheels]


def source_files(root: Path) -> list[str]:
    """The extension's own files, as sorted paths relative to `root` with forward slashes.

    Raises BuildError for a file of a kind that does not belong in an extension.
    """
    found = [name for name in FILES if (root / name).is_file()]
    for required in ("__init__.py", "LICENSE", "README.md"):
        if required not in found:
            raise BuildError(f"{required} is missing.")
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_dir() or SKIPPED_FOLDERS & set(path.parts):
                continue
            if any(name.startswith(left + "/") for left in LEFT_OUT) or path.name.startswith("."):
                continue
            if path.suffix not in KINDS:
                raise BuildError(f"{name} is of no kind that belongs in the extension.")
            found.append(name)
    return sorted(found)


def manifest_text(source: str, platform: str, wheel_files: list[str]) -> str:
    """The manifest for one platform: its `platforms` narrowed to that one, `wheels` added, and with
    them the Blender that they no longer fit.

    source: the repository's blender_manifest.toml, which lists every platform and no wheels.
    Raises BuildError when it does not, or when the result is not what was meant.
    """
    data = tomllib.loads(source)
    if "wheels" in data:
        raise BuildError(f"{MANIFEST} must not have 'wheels': the builder writes them.")
    if platform not in data.get("platforms", ()):
        raise BuildError(f"{MANIFEST} does not list {platform} under 'platforms'.")
    lines = [f'platforms = ["{platform}"]']
    meant = {**data, "platforms": [platform]}
    if wheel_files:
        lines += [f'blender_version_max = "{BLENDER_TOO_NEW}"']
        lines += ["wheels = [", *(f'  "./wheels/{file}",' for file in sorted(wheel_files)), "]"]
        meant["blender_version_max"] = BLENDER_TOO_NEW
        meant["wheels"] = [f"./wheels/{file}" for file in sorted(wheel_files)]
    added = "\n".join(lines) + "\n"
    text = re.sub(r"(?ms)^platforms\s*=\s*\[.*?\]\n", lambda _: added, source, count=1)
    if tomllib.loads(text) != meant:
        raise BuildError(f"The builder could not write 'platforms' and 'wheels' into {MANIFEST}.")
    return text


def write_zip(path: Path, root: Path, names: list[str], manifest: str, wheels: list[Path]) -> None:
    """Write the zip whole or not at all, with fixed dates, modes and order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            _add(archive, MANIFEST, manifest.encode(), zipfile.ZIP_DEFLATED)
            for name in names:
                stored = name.endswith((".safetensors", ".png"))
                kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                _add(archive, name, (root / name).read_bytes(), kind)
            for wheel in sorted(wheels, key=lambda w: w.name):
                _add(archive, f"wheels/{wheel.name}", wheel.read_bytes(), zipfile.ZIP_STORED)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, compression: int) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = compression
    info.create_system = 3  # Unix, so that the mode below is read everywhere alike
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, compresslevel=9)


def build(
    platform: str,
    torch: str,
    out: Path,
    *,
    root: Path = ROOT,
    lock: Path = LOCK,
    cache: Path = CACHE,
) -> Path:
    """Build the zip for `platform` and return its path.

    torch: 'cpu' for all the engine's wheels, 'none' for no wheels at all. Raises BuildError.
    """
    python, tags, wheels = read_lock(lock, platform)
    files = fetch_wheels(wheels, python, tags, cache / platform) if torch == "cpu" else []
    source = root / MANIFEST
    if not source.is_file():
        raise BuildError(f"{MANIFEST} is missing.")
    text = source.read_text()
    manifest = manifest_text(text, platform, [f.name for f in files])
    slim = "" if files else "-slim"
    path = out / f"triplane-{tomllib.loads(text)['version']}-{platform}{slim}.zip"
    write_zip(path, root, source_files(root), manifest, files)
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default="linux-x64")
    parser.add_argument("--torch", choices=("cpu", "none"), default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    try:
        path = build(options.platform, options.torch, options.out)
    except (BuildError, OSError) as error:
        print(f"wheels/build.py: {error}", file=sys.stderr)
        return 1
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB  sha256 {sha256_of(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
