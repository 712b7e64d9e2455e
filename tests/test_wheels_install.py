"""The built zip in Blender: its own installer, a fresh profile, and the engine's first answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wheels import build as builder


@pytest.fixture(scope="module")
def slim(tmp_path_factory) -> Path:
    return builder.build("linux-x64", "none", tmp_path_factory.mktemp("dist"))


def check_install(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    """wheels/check_install.py in a Blender of its own."""
    script = root / "wheels" / "check_install.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_manifest_satisfies_blenders_strictest_check(slim, blender_installer):
    manifest = blender_installer.pkg_manifest_from_archive_and_validate(str(slim), strict=True)
    assert not isinstance(manifest, str), manifest
    assert (manifest.id, manifest.platforms) == ("triplane", ["linux-x64"])


@pytest.mark.slow
def test_slim_zip_installs_answers_and_leaves(slim, root):
    done = check_install(root, str(slim), "--engine", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert facts["engine"].startswith("Python 3.11") and "PyTorch 2.13.0" in facts["engine"]
    assert facts["torch_loaded_by_blender"] is False
    assert facts["wheels_bytes"] == 0
    assert facts["left_after_uninstall"] == []


@pytest.mark.slow
def test_slim_zip_says_when_its_python_has_no_engine(slim, root, tmp_path):
    """A Python without torch, as Blender's own is: the artist's sentence, no traceback."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    done = check_install(root, str(slim), "--engine", str(bare / "bin" / "python"))
    assert done.returncode == 1
    assert "preferences" in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_zip_that_is_no_extension_is_told(root, tmp_path):
    path = tmp_path / "triplane.zip"
    path.write_bytes(b"not a zip")
    done = check_install(root, str(path))
    assert done.returncode == 1
    assert "wheels/check_install.py:" in done.stderr
