"""The builder of the zip, on a small extension and small wheels: no network."""

from __future__ import annotations

import hashlib
import tomllib
import zipfile
from pathlib import Path

import pytest

from wheels import build as builder

MANIFEST = """\
schema_version = "1.0.0"
id = "triplane"
version = "0.3.1"
platforms = [
  "linux-x64",
  "windows-x64",
]
license = ["SPDX:GPL-3.0-or-later"]

[permissions]
files = "Read a photo"
"""
WHEEL = "stone-1.0-py3-none-any.whl"


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """A folder laid out as the repository, with files that must and must not be packed."""
    root = tmp_path / "repository"
    files = {
        "blender_manifest.toml": MANIFEST,
        "__init__.py": "",
        "LICENSE": "GPL",
        "README.md": "Triplane",
        "operators/build/mesh.py": "x = 1\n",
        "operators/build/__pycache__/mesh.cpython-311.pyc": "junk",
        "engine/worker.py": "",
        "engine/training/loop.py": "",
        "engine/weights/head.safetensors": "weights",
        "panels/.hidden": "",
        "tests/test_x.py": "",
        "build/old.zip": "",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    sha256 = hashlib.sha256(b"a wheel").hexdigest()
    path = tmp_path / "lock.toml"
    path.write_text(
        f"""python = "3.11"
[platforms.linux-x64]
pip_tags = ["manylinux_2_28_x86_64"]
[[package]]
name = "stone"
licence = "MIT"
[package.wheels.linux-x64]
version = "1.0"
file = "{WHEEL}"
sha256 = "{sha256}"
tags = "py3-none-any"
"""
    )
    return path


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch):
    """Stands for the download: writes `content`; counts its calls."""

    class FakePip:
        content = b"a wheel"
        calls = 0

        def __call__(self, wheels, python, tags, folder):
            FakePip.calls += 1
            assert (python, tags) == ("3.11", ["manylinux_2_28_x86_64"])
            for wheel in wheels:
                (folder / wheel.file).write_bytes(self.content)

    FakePip.calls = 0
    fake = FakePip()
    monkeypatch.setattr(builder, "pip_download", fake)
    return fake


def build(extension: Path, lock: Path, torch: str = "cpu", out: str = "dist") -> Path:
    folder = extension.parent
    return builder.build(
        "linux-x64",
        torch,
        folder / out,
        root=extension,
        lock=lock,
        cache=folder / "cache",
    )


def test_zip_holds_the_extension_and_its_wheels(extension, lock, fake_pip):
    path = build(extension, lock)
    assert path.name == "triplane-0.3.1-linux-x64.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {
            "blender_manifest.toml",
            "__init__.py",
            "LICENSE",
            "README.md",
            "operators/build/mesh.py",
            "engine/worker.py",
            "engine/weights/head.safetensors",
            f"wheels/{WHEEL}",
        }
        manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
    assert manifest["wheels"] == [f"./wheels/{WHEEL}"]
    assert manifest["platforms"] == ["linux-x64"]
    assert manifest["blender_version_max"] == "5.1.0", "later ones have another Python"
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"]
    assert manifest["permissions"] == {"files": "Read a photo"}


def test_slim_zip_has_no_wheels_and_says_so_in_its_name(extension, lock, fake_pip):
    path = build(extension, lock, torch="none")
    assert path.name == "triplane-0.3.1-linux-x64-slim.zip"
    with zipfile.ZipFile(path) as archive:
        assert not [n for n in archive.namelist() if n.startswith("wheels/")]
        manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
    assert "wheels" not in manifest and "blender_version_max" not in manifest
    assert fake_pip.calls == 0


def test_same_sources_give_the_same_bytes(extension, lock, fake_pip):
    first = build(extension, lock, out="first").read_bytes()
    (extension / "__init__.py").touch()
    assert build(extension, lock, out="second").read_bytes() == first
    assert fake_pip.calls == 1, "the second build uses the wheel that is already there"


def test_wheel_of_another_content_is_refused(extension, lock, fake_pip):
    fake_pip.content = b"another wheel"
    with pytest.raises(builder.BuildError, match=r"stone-1\.0.*is not the file of the lock"):
        build(extension, lock)
    assert not (extension.parent / "dist").exists()
    fake_pip.content = b"a wheel"
    assert build(extension, lock).exists(), "the refused file must not be used again"


def test_wheel_changed_in_the_cache_is_refused(extension, lock, fake_pip):
    build(extension, lock)
    (extension.parent / "cache" / "linux-x64" / WHEEL).write_bytes(b"changed")
    with pytest.raises(builder.BuildError, match="not the file of the lock"):
        build(extension, lock)


def test_failed_write_leaves_no_zip(extension, lock, fake_pip, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(builder, "_add", full)
    with pytest.raises(OSError, match="No space left"):
        build(extension, lock)
    assert list((extension.parent / "dist").iterdir()) == []


def test_manifest_that_names_wheels_is_refused():
    with pytest.raises(builder.BuildError, match="the builder writes them"):
        builder.manifest_text('wheels = ["./wheels/x.whl"]\n' + MANIFEST, "linux-x64", [])


def test_manifest_must_list_the_platform():
    with pytest.raises(builder.BuildError, match="does not list macos-arm64"):
        builder.manifest_text(MANIFEST, "macos-arm64", [])


def test_stray_file_is_refused(extension, lock, fake_pip):
    (extension / "engine" / "notes.docx").write_text("")
    with pytest.raises(builder.BuildError, match=r"engine/notes\.docx is of no kind"):
        build(extension, lock)


def test_unknown_platform_is_named(lock):
    with pytest.raises(builder.BuildError, match="no platform named amiga; .* has linux-x64"):
        builder.read_lock(lock, "amiga")


def test_command_line_says_what_is_wrong_in_one_line(capsys):
    assert builder.main(["--platform", "amiga", "--torch", "none"]) == 1
    error = capsys.readouterr().err
    assert "There is no platform named amiga" in error
    assert "Traceback" not in error


def test_real_sources_make_a_slim_zip(tmp_path, root):
    path = builder.build("linux-x64", "none", tmp_path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert "engine/worker.py" in names and "panels/__init__.py" in names
    assert not [n for n in names if "training" in n or "__pycache__" in n or n.startswith("tests")]
    assert any(n.startswith("engine/weights/") and n.endswith(".safetensors") for n in names)
