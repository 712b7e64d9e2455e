"""The models folder: names, the default, and what the command line and the job make of it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import checkpoint_files as files
import numpy as np
import pytest

from engine import __main__ as cli
from engine import jobs, model_command
from engine.checkpoints import registry
from engine.checkpoints.model_file import read_model, write_model
from engine.errors import Cancelled, OutputError, ParameterError, WeightsError
from engine.jobs.base import Context


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder with two small model files, b the default, and things that are no models."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a", "b"):
        write_model(folder / f"{name}.safetensors", files.record(), {"x": np.ones((2, 3))})
    (folder / "notes.txt").write_text("no model")
    (folder / ".a.safetensors.1234").write_text("left by a crash")
    (folder / "broken.safetensors").write_bytes(b"not much")
    registry.set_default(folder, "b")
    return folder


def names(folder: Path) -> list[str]:
    return [m.name for m in registry.list_models(folder)]


def test_listing(models, tmp_path):
    found = {m.name: m for m in registry.list_models(models)}
    assert list(found) == ["built-in", "a", "b", "broken"]
    built_in, a = found["built-in"], found["a"]
    assert built_in.built_in and not built_in.broken and built_in.bytes > 1 << 20
    assert (a.resolution, a.system, a.broken, a.built_in) == (128, "eg3d", "", False)
    assert a.bytes == a.path.stat().st_size
    assert "damaged" in found["broken"].broken
    assert names(tmp_path / "none") == ["built-in"]
    assert registry.default_model(tmp_path / "none") == "built-in"


def test_the_default(models):
    assert registry.default_model(models) == "b"
    assert registry.model_path(models) == models / "b.safetensors"
    registry.rename(models, "b", "c")
    assert registry.default_model(models) == "c"
    registry.remove(models, "a")
    assert registry.default_model(models) == "c"
    registry.remove(models, "c")
    assert registry.default_model(models) == "built-in" and "c" not in names(models)
    registry.set_default(models, "built-in")
    with pytest.raises(WeightsError, match="no model named c"):
        registry.set_default(models, "c")
    for nonsense in ("", "{}", "[1]", '{"default": 3}', '{"default": "../x"}', "[" * 9999):
        (models / "models.json").write_text(nonsense)
        assert registry.default_model(models) == "built-in"


def test_paths(models):
    path = models / "a.safetensors"
    assert registry.model_path(models, "a") == path == registry.model_path("", str(path))
    assert registry.model_path(models, "built-in").is_file()
    for wrong in ("z", "../models/a", "a.safetensors", "/etc/passwd", "", "x" * 300):
        with pytest.raises((WeightsError, ParameterError)):
            registry.model_path(models / "none" if not wrong else models, wrong or "none")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "a:b", "a\n", "con", "NUL.x", "a.", "a ", "x" * 65,
     "built-in", "Built-In", " a", "-a", "a\0"],
)  # fmt: skip
def test_names_that_no_model_gets(models, name):
    with pytest.raises(ParameterError):
        registry.rename(models, "a", name)
    assert names(models) == ["built-in", "a", "b", "broken"]


def test_renaming(models):
    before = "a"
    for name in ("Ärztin 2", "a.b-c_d", "x" * 64, "A"):
        registry.rename(models, before, name)
        assert name in names(models) and before not in names(models)
        before = name
    with pytest.raises(ParameterError, match="named b already"):
        registry.rename(models, "A", "b")
    with pytest.raises(WeightsError, match="built-in"):
        registry.rename(models, "built-in", "c")
    with pytest.raises(WeightsError, match="built-in"):
        registry.remove(models, "built-in")
    registry.rename(models, "b", "b")


def test_suggested_names(models):
    suggest = registry.suggest_name
    assert suggest("/x/ffhq512-128.pkl", models) == "ffhq512-128"
    assert suggest("a.pkl", models) == "a-2"
    assert suggest("…(1)*?.pkl", models) == "1"
    assert suggest("???.pkl", models) == "model"
    assert suggest("built-in.pt", models) == "built-in-2"
    assert suggest("x" * 300, models) == "x" * 56
    assert suggest("con.pkl", models) == "con-2"


def test_verifying(models):
    path = models / "a.safetensors"
    registry.verify(path)
    registry.verify(registry.model_path(models, "built-in"))
    record, tensors = read_model(path)
    assert record == files.record() and (tensors["x"] == 1).all()
    good = path.read_bytes()
    for at in (12, len(good) // 2, len(good) - 1):
        data = bytearray(good)
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(WeightsError):
            registry.verify(path)
    path.write_bytes(good)

    def stop():
        raise Cancelled()

    with pytest.raises(Cancelled):
        registry.verify(path, stop)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be changed"):
        write_model(tmp_path / "file" / "a.safetensors", {}, {})
    with pytest.raises(OutputError, match="cannot be changed"):
        registry.set_default(tmp_path / "file", "built-in")


def test_a_full_disk(models, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(p.name for p in models.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_model(models / "new.safetensors", {}, {"x": np.ones(3)})
    assert sorted(p.name for p in models.iterdir()) == before


def test_where_models_are(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPLANE_MODELS", str(tmp_path))
    assert registry.default_folder() == tmp_path
    monkeypatch.delenv("TRIPLANE_MODELS")
    assert registry.default_folder().parts[-2:] == ("triplane", "models")
    assert registry.default_folder().is_absolute()


def test_listing_loads_no_torch(root, models):
    code = (
        "import sys; from engine.checkpoints import registry; registry.list_models(sys.argv[1]); "
        "registry.verify(registry.model_path(sys.argv[1], 'a')); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(models)], cwd=root).returncode == 0


@pytest.fixture
def command(root, tmp_path):
    """Runs `python -m engine model …` with a models folder of its own."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "engine", "model", *map(str, arguments)],
            cwd=root,
            env=os.environ | {"TRIPLANE_MODELS": str(tmp_path / "own")},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_adding_on_the_command_line(command, tmp_path):
    source = tmp_path / "cars.pkl"
    source.write_bytes(files.training_pickle(files.weights()))
    done = command("add", source, "--metres", "4.5", "--licence", "CC BY-NC 4.0", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)["model"]
    assert made["name"] == "cars" and made["noncommercial"] and Path(made["path"]).is_file()
    assert "writing the model" in done.stderr
    listed = command("list").stdout.splitlines()
    assert listed[0].startswith("* built-in: ")
    assert listed[1].startswith("  cars: ") and listed[1].endswith("128 px, CC BY-NC 4.0")


def test_the_other_commands(models):
    def run(*arguments):
        args = cli._parser().parse_args(["model", *arguments, "--models", str(models)])
        return model_command.run(args, lambda fraction, step: None)

    run("rename", "a", "my cars")
    run("default", "my cars")
    run("verify", "my cars")
    facts, text = run("list")
    assert facts["default"] == "my cars" and len(facts["models"]) == 4
    assert "* my cars: " in text and "  built-in: " in text and "damaged" in text
    run("remove", "my cars")
    assert run("list")[0]["default"] == "built-in"
    for wrong in ("remove", "verify", "default"):
        with pytest.raises(WeightsError, match="no model named"):
            run(wrong, "my cars")


def test_failures_on_the_command_line(command, tmp_path):
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(b"\x80\x04cos\nsystem\nX\x0e\0\0\0touch EXECUTED\x85R.")
    done = command("add", evil)
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert "os.system" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "own").exists()
    answer = json.loads(command("add", evil, "--json").stdout)
    assert (answer["ok"], answer["kind"]) == (False, "weights")
    assert command("add", evil, "--name", "a/b").returncode == 2
    for wrong in (["add"], ["add", "x", "--metres", "nan"], [], ["add", "x", "--like", "dogs"]):
        with pytest.raises(SystemExit) as caught:
            cli._parser().parse_args(["model", *wrong])
        assert caught.value.code == 2


def test_the_job(tmp_path):
    source = tmp_path / "cars.pkl"
    source.write_bytes(files.training_pickle(files.weights()))
    job = jobs.load("import_model")
    given = {"file": str(source), "models": str(tmp_path / "models")}
    steps = []
    context = Context(lambda f, step, left: steps.append(step))
    result = job.run(job.checked(given), context)
    assert result.meta["name"] == "cars" and result.meta["resolution"] == 128
    assert "checking the model" in steps and Path(result.meta["path"]).is_file()
    with pytest.raises(Cancelled):
        job.run(job.checked(given), Context(is_cancelled=lambda: True))
    assert len(list((tmp_path / "models").iterdir())) == 1
    commands = cli._parser()._subparsers._group_actions[0].choices
    assert "model" in commands and "import_model" not in commands
