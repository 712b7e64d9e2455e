"""Set up .venv from the lock files; `make` runs it when a lock file has changed.

    python3.11 requirements/make_venv.py .venv

Standard library only. Every package is installed at its exact version and checked against the
hashes in requirements/*.txt. The one open question is which build of torch the machine's package
index offers: the CPU build needs nothing more, the CUDA build of the same version names its own
pinned libraries, which the last step adds.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GROUPS = ("engine", "bpy", "dev")
STAMP = ".locked"

WRONG_PYTHON = """\
Triplane's .venv needs Python 3.11, for Blender 4.5 as a module is built for no other; {found} is
Python {version}.
Install Python 3.11 and run make again, or name it: make PYTHON=path/to/python3.11"""
NO_VENV = """\
{found} cannot make virtual environments. On Debian and Ubuntu: apt-get install python3.11-venv"""
# Blender's own libraries come with it; these are the ones that it takes from the system, as Debian
# names their packages.
APT_PACKAGES = {
    "libX11.so": "libx11-6",
    "libXext.so": "libxext6",
    "libXrender.so": "libxrender1",
    "libXfixes.so": "libxfixes3",
    "libXi.so": "libxi6",
    "libxkbcommon.so": "libxkbcommon0",
    "libSM.so": "libsm6",
    "libICE.so": "libice6",
    "libGL.so": "libgl1",
    "libEGL.so": "libegl1",
}
NO_BLENDER = """\
Blender as a module does not start on this machine: {error}
It needs libraries of the system that are missing here. On Debian and Ubuntu:
    apt-get install {packages}
Then run make again. (Without Blender: .venv/bin/python -m engine reconstruct PHOTO --out DIR)"""


def python_problem(version: tuple[int, int], found: str) -> str:
    """The sentence for a Python that will not do, or an empty string."""
    if version == (3, 11):
        return ""
    return WRONG_PYTHON.format(found=found, version=".".join(map(str, version)))


def missing_packages(error: str) -> list[str]:
    """Debian packages for the loader's message (`libXi.so.6: cannot open shared object file`).

    The loader names the first missing library only, and one missing usually means most of them, so
    all are named; [] when the message is about something else.
    """
    if any(library in error for library in APT_PACKAGES):
        return sorted(set(APT_PACKAGES.values()))
    return []


def pinned(package: str, lock: str) -> str:
    """The line `package==version` of a lock file's text."""
    for line in lock.splitlines():
        if line.startswith(f"{package}=="):
            return line.removesuffix(" \\")
    raise SystemExit(f"{package} is not in the lock file")


def run(*command: str | Path) -> None:
    """Run a command whose output the user sees; stop with its status if it fails."""
    done = subprocess.run([str(c) for c in command], check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(done.returncode)


def check_blender(python: Path) -> None:
    """Import bpy once in the new environment; SystemExit with what to install if it cannot."""
    done = subprocess.run(
        [str(python), "-c", "import bpy; print('Blender', bpy.app.version_string)"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode == 0:
        print(done.stdout.strip())
        return
    error = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    packages = missing_packages(error) or sorted(set(APT_PACKAGES.values()))
    raise SystemExit(NO_BLENDER.format(error=error, packages=" ".join(packages)))


def main(folder: Path) -> None:
    """Make or update the environment in `folder`; the stamp is written when all went well."""
    if problem := python_problem(sys.version_info[:2], sys.executable):
        raise SystemExit(problem)
    if importlib.util.find_spec("ensurepip") is None:
        raise SystemExit(NO_VENV.format(found=sys.executable))
    (folder / STAMP).unlink(missing_ok=True)
    print(f"Setting up {folder} (once; a few minutes and 2 GB)", flush=True)
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "-qq")
    locks = [option for group in GROUPS for option in ("-r", HERE / f"{group}.txt")]
    run(*pip, "--require-hashes", "--no-deps", "--only-binary=:all:", *locks)
    run(*pip, pinned("torch", (HERE / "engine.txt").read_text()))
    check_blender(python)
    stamp = folder / STAMP
    temporary = stamp.with_suffix(".new")
    temporary.write_text("".join((HERE / f"{group}.txt").read_text() for group in GROUPS))
    os.replace(temporary, stamp)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
