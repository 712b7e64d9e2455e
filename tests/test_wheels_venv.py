"""Setting up .venv: the sentences for a machine where it cannot work."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess

import pytest


@pytest.fixture(scope="module")
def make_venv(root):
    path = root / "requirements" / "make_venv.py"
    spec = importlib.util.spec_from_file_location("make_venv", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_python_311_will_do(make_venv):
    assert make_venv.python_problem((3, 11), "python3") == ""
    for version in ((3, 9), (3, 12)):
        sentence = make_venv.python_problem(version, "/usr/bin/python3")
        assert f"{version[0]}.{version[1]}" in sentence and "Python 3.11" in sentence


def test_loader_errors_name_debian_packages(make_venv):
    error = "ImportError: libXi.so.6: cannot open shared object file: No such file or directory"
    assert {"libxi6", "libxkbcommon0", "libgl1", "libsm6"} <= set(make_venv.missing_packages(error))
    assert make_venv.missing_packages("ImportError: numpy is broken") == []


def test_blender_that_does_not_start_makes_a_sentence(make_venv, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: libXi.so.6: cannot open' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit, match="apt-get install .*libxi6"):
        make_venv.check_blender(python)


def test_pin_of_torch_is_read_from_the_lock(make_venv, root):
    lock = (root / "requirements" / "engine.txt").read_text()
    assert make_venv.pinned("torch", lock).startswith("torch==")
    with pytest.raises(SystemExit, match="not in the lock"):
        make_venv.pinned("tensorflow", lock)


def test_make_without_python_says_what_to_install(root, tmp_path):
    """The Makefile in an empty folder: no .venv, and a PYTHON that does not exist."""
    shutil.copy(root / "Makefile", tmp_path)
    shutil.copytree(root / "requirements", tmp_path / "requirements")
    done = subprocess.run(
        ["make", "lint", "PYTHON=no-such-python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Triplane needs Python 3.11" in done.stdout + done.stderr
    assert not (tmp_path / ".venv").exists()
