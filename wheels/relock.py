"""Write requirements/*.txt and wheels/lock.toml anew from requirements/*.in.

    python wheels/relock.py          (or: make relock)

The .in files name what we use, with exact versions; this adds what those packages need, for Python
3.11, and the SHA-256 of every wheel on every platform that we build for. Nothing is downloaded
but metadata: pip's dry run reports the names and the hashes. The package index is whatever pip is
set up to use; no host's name is kept. Run it on Linux where pip also sees PyTorch's CPU build.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
LOCK = ROOT / "wheels" / "lock.toml"
PYTHON = "3.11"

# Tags in the order of preference: the oldest system first, so that a wheel runs on most machines.
PLATFORMS: dict[str, tuple[str, ...]] = {
    "linux-x64": (
        "manylinux2014_x86_64",
        "manylinux_2_17_x86_64",
        "manylinux_2_24_x86_64",
        "manylinux_2_27_x86_64",
        "manylinux_2_28_x86_64",
    ),
    "windows-x64": ("win_amd64",),
    "macos-arm64": (
        "macosx_11_0_arm64",
        "macosx_12_0_arm64",
        "macosx_13_0_arm64",
        "macosx_14_0_arm64",
    ),
}
GROUPS = ("engine", "bpy", "dev")

# Named by engine.in or needed by it, yet not shipped in the extension, and why.
NOT_BUNDLED = {
    "numpy": "Blender brings its own; a second copy would be loaded into Blender itself",
    "setuptools": "torch imports it only to compile extensions, which we never do",
}
# On Linux plain 'torch' carries CUDA (and 3 GB with it); this is the build that we ship.
CPU_BUILDS = {"linux-x64": {"torch": "+cpu"}}

# Read by a person from the packages' own metadata; all may be shipped inside a GPL-3 work.
LICENCES = {
    "fast-simplification": "MIT",
    "filelock": "MIT",
    "fsspec": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "markupsafe": "BSD-3-Clause",
    "mpmath": "BSD-3-Clause",
    "networkx": "BSD-3-Clause",
    "openexr": "BSD-3-Clause",
    "pillow": "MIT-CMU",
    "pymcubes": "BSD-3-Clause",
    "safetensors": "Apache-2.0",
    "scipy": "BSD-3-Clause",
    "sympy": "BSD-3-Clause",
    "torch": "BSD-3-Clause AND Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND MIT AND BSL-1.0",
    "typing-extensions": "PSF-2.0",
}


@dataclass(frozen=True)
class Wheel:
    """One file of the index: canonical package name, version, file name, hex SHA-256."""

    name: str
    version: str
    file: str
    sha256: str


def canonical(name: str) -> str:
    """A package's name as the index compares it: lower case, runs of -_. as one hyphen."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(
    requirements: list[str], platform: str, *, dependencies: bool, default_index_only: bool = False
) -> dict[str, Wheel]:
    """What pip would install for `requirements` on `platform`, by canonical name.

    default_index_only: ignore pip's configured extra sources of wheels, to see the build that a
    machine without them gets. Raises SystemExit with pip's own words when something is missing.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", PYTHON]
    for tag in PLATFORMS[platform]:
        command += ["--platform", tag]
    if not dependencies:
        command.append("--no-deps")
    environment = dict(os.environ)
    if default_index_only:
        environment.pop("PIP_FIND_LINKS", None)
        environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command += ["--report", str(report), "--target", str(Path(folder) / "target")]
        done = subprocess.run(
            command + requirements, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"pip cannot resolve for {platform}:\n{done.stderr[-2000:]}")
        installs = json.loads(report.read_text())["install"]
    return {wheel.name: wheel for wheel in map(_wheel, installs)}


def _wheel(item: dict) -> Wheel:
    data = item["metadata"]
    name = canonical(data["name"])
    file = item["download_info"]["url"].rsplit("/", 1)[1].replace("%2B", "+")
    sha256 = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return Wheel(name, data["version"], file, sha256)


def read_in(group: str) -> list[str]:
    """The requirements of one .in file, comments stripped."""
    lines = (REQUIREMENTS / f"{group}.in").read_text().splitlines()
    return [text for line in lines if (text := line.partition("#")[0].strip())]


def lock_groups() -> dict[str, dict[str, str]]:
    """{group: {name: version}} with what each group needs; a package stands in the first only."""
    named: list[str] = []
    seen: dict[str, str] = {}
    groups = {}
    for group in GROUPS:
        named += read_in(group)
        resolved = resolve(named, "linux-x64", dependencies=True)
        versions = {name: wheel.version.partition("+")[0] for name, wheel in resolved.items()}
        for name, version in seen.items():
            if versions[name] != version:
                raise SystemExit(
                    f"{name}: {group}.in needs {versions[name]}, an earlier group {version}; "
                    "pin it in the .in file."
                )
        groups[group] = {n: v for n, v in sorted(versions.items()) if n not in seen}
        seen = versions
    return groups


def write_requirements(groups: dict[str, dict[str, str]]) -> dict[str, dict[str, Wheel]]:
    """Write requirements/<group>.txt; returns the wheels as {platform: {name: Wheel}}."""
    pins = {name: version for group in groups.values() for name, version in group.items()}
    wheels, hashes = {}, {name: set() for name in pins}
    for platform in PLATFORMS:
        builds = CPU_BUILDS.get(platform, {})
        exact = [f"{name}=={version}{builds.get(name, '')}" for name, version in pins.items()]
        wheels[platform] = resolve(exact, platform, dependencies=False)
        plain = [f"{name}==={pins[name]}" for name in builds]
        found = list(wheels[platform].values())
        if plain:
            default = resolve(plain, platform, dependencies=False, default_index_only=True)
            found += default.values()
        for wheel in found:
            hashes[wheel.name].add(wheel.sha256)
    for group, versions in groups.items():
        before = GROUPS[: GROUPS.index(group)]
        lines = [
            f"# Written by wheels/relock.py from {group}.in. Do not edit.",
            f"# Every package of this group, for {', '.join(PLATFORMS)}; Python {PYTHON}.",
        ]
        if before:
            lines.append(f"# Goes with {' and '.join(f'{b}.txt' for b in before)}.")
        for name, version in versions.items():
            lines.append(f"{name}=={version} \\")
            lines += [f"    --hash=sha256:{h} \\" for h in sorted(hashes[name])]
            lines[-1] = lines[-1].removesuffix(" \\")
        (REQUIREMENTS / f"{group}.txt").write_text("\n".join(lines) + "\n")
    return wheels


def write_lock(engine: dict[str, str], wheels: dict[str, dict[str, Wheel]]) -> None:
    """Write wheels/lock.toml: the wheels that the extension's zip carries."""
    out = [
        "# Written by wheels/relock.py. Do not edit.",
        "# The wheels of the extension's zip; wheels/build.py takes no file that is not named.",
        "# Not shipped:",
        *(f"#   {name}: {why}" for name, why in NOT_BUNDLED.items()),
        "",
        f'python = "{PYTHON}"',
    ]
    for platform, tags in PLATFORMS.items():
        out += ["", f"[platforms.{platform}]", f"pip_tags = {json.dumps(tags)}"]
    for name in engine:
        if name in NOT_BUNDLED:
            continue
        if name not in LICENCES:
            raise SystemExit(f"Read {name}'s licence and add it to LICENCES before shipping it.")
        out += ["", "[[package]]", f'name = "{name}"', f'licence = "{LICENCES[name]}"']
        for platform in PLATFORMS:
            wheel = wheels[platform][name]
            tags = wheel.file.removesuffix(".whl").rsplit("-", 3)[1:]
            out += [
                f"[package.wheels.{platform}]",
                f'version = "{wheel.version}"',
                f'file = "{wheel.file}"',
                f'sha256 = "{wheel.sha256}"',
                f'tags = "{"-".join(tags)}"',
            ]
    LOCK.write_text("\n".join(out) + "\n")


def main() -> None:
    groups = lock_groups()
    wheels = write_requirements(groups)
    write_lock(groups["engine"], wheels)
    for group, versions in groups.items():
        print(f"{group}: {len(versions)} packages")


if __name__ == "__main__":
    main()
