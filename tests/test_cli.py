"""The engine's command line: options from the jobs' definitions, answers, and exit codes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys

import pytest

from engine import __main__ as cli
from engine import jobs
from engine.errors import OutputError
from engine.jobs.base import Job, Param, Result

# Runs the command line with one job of our own, and outputs that are a text file.
TOY = """
import os, sys, time, types
from engine import jobs
from engine.errors import NoFaceError
from engine.jobs.base import Job, Param, Result

PARAMS = (
    Param("photo", str, "", "path of the photo"),
    Param("preset", str, "balanced", "how long to work", choices=("fast", "balanced")),
    Param("points", float, [], "five points", "pixels", size=4),
    Param("texture_size", int, 2048, "side of the texture", "pixels", 256, 8192),
    Param("closed", bool, True, "close the neck, 100 % of it"),
)

def run(params, context):
    print("noise")
    os.write(1, b"more noise")
    context.progress(0.0, "looking")
    if params["photo"] == "nobody.png":
        raise NoFaceError("No face was found.", "Place the points.")
    if params["photo"] == "bug.png":
        raise ZeroDivisionError("a bug")
    if params["photo"] == "long.png":
        while True:
            context.progress(0.5, "working")
            time.sleep(0.01)
    return Result({"params": params, "device": context.device}, {})

def write_outputs(result, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "facts.txt").write_text("facts")
    return {"facts": folder / "facts.txt"}

toy = Job("toy", "Play.", PARAMS, run)
real = jobs.load
jobs.names = lambda: ("toy", "selftest")
jobs.load = lambda name: toy if name == "toy" else real(name)
outputs = sys.modules["engine.jobs.outputs"] = types.ModuleType("outputs")
outputs.write_outputs = write_outputs
from engine.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def toy(root, tmp_path):
    """Runs the toy's command line: arguments -> the finished process."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", TOY, *map(str, arguments)],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=20,
        )

    return run


def test_a_job_answers_with_its_files(toy, tmp_path):
    done = toy("toy", "a.png", "--out", tmp_path / "out dir")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"facts: {tmp_path / 'out dir' / 'facts.txt'}\n"
    assert (tmp_path / "out dir" / "facts.txt").read_text() == "facts"
    assert "looking" in done.stderr and "noise" in done.stderr


def test_an_answer_into_a_file(root, tmp_path):
    """Standard output is a file, standard error a pipe: a `> answer.json` in a script."""
    with open(tmp_path / "answer.json", "wb") as answer:
        done = subprocess.run(
            [sys.executable, "-c", TOY, "toy", "a.png", "--json", "--out", tmp_path / "out"],
            cwd=root,
            stdout=answer,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "answer.json").read_text())["ok"]


def test_options_follow_the_definitions(toy, tmp_path):
    options = "--preset fast --points 1 -2 3.5 4 --texture-size 512 --no-closed --device cpu"
    done = toy("toy", "ä b.png", *options.split(), "--json", "--out", tmp_path)
    answer = json.loads(done.stdout)
    assert answer["ok"] and answer["outputs"] == {"facts": str(tmp_path / "facts.txt")}
    assert set(answer["timings"]) == {"looking", "writing the results"}
    assert answer["meta"]["device"] == "cpu"
    assert answer["meta"]["params"] == {
        "photo": "ä b.png",
        "preset": "fast",
        "points": [1, -2, 3.5, 4],
        "texture_size": 512,
        "closed": False,
    }


def test_help_tells_units_bounds_and_defaults(toy):
    text = " ".join(toy("toy", "--help").stdout.split())
    assert "side of the texture (pixels; 256 to 8192; default: 2048)" in text
    assert "100 % of it" in text and "--no-closed" in text
    assert "{fast,balanced}" in text


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing",),
        ("toy", "--out", "x"),
        ("toy", "a.png"),
        ("toy", "a.png", "--out", "x", "--preset", "slow"),
        ("toy", "a.png", "--out", "x", "--points", "1", "2"),
        ("toy", "a.png", "--out", "x", "--texture-size", "12"),
        ("toy", "a.png", "--out", "x", "--texture-size", "big"),
        ("toy", "a.png", "--out", "x", "--device", "abacus"),
    ],
)
def test_wrong_usage(toy, tmp_path, monkeypatch, arguments):
    done = toy(*(tmp_path / "x" if a == "x" else a for a in arguments))
    assert done.returncode == 2
    assert done.stderr and done.stdout == "" and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_one_sentence(toy, tmp_path):
    done = toy("toy", "nobody.png", "--out", tmp_path / "out")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == "No face was found. Place the points."
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_failure_as_json(toy, tmp_path):
    done = toy("toy", "nobody.png", "--out", tmp_path / "out", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["kind"]) == (False, "no-face")
    assert (answer["sentence"], answer["remedy"]) == ("No face was found.", "Place the points.")


def test_a_bug_shows_its_traceback(toy, tmp_path):
    done = toy("toy", "bug.png", "--out", tmp_path / "out")
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c(root, tmp_path):
    out = tmp_path / "out"
    # A shell's background jobs ignore Ctrl-C and hand that down; a terminal's do not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", TOY, "toy", "long.png", "--out", str(out)],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    while "working" not in (line := process.stderr.readline()):
        assert line, "it ended before it was stopped"
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=5)
    assert process.returncode == 130 and "Traceback" not in text
    assert not out.exists()


def test_folders_that_cannot_be_written(tmp_path):
    cli._check_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "file"
    file.write_text("")
    for wrong in (file, file / "below"):
        with pytest.raises(OutputError, match="not a folder"):
            cli._check_folder(wrong)
    with pytest.raises(OutputError, match="Cannot write"):
        cli._check_folder(read_only_folder())


def read_only_folder():
    """A folder in which nobody, root included, can make a file."""
    from pathlib import Path

    folder = Path("/proc/self")
    if not folder.is_dir():
        pytest.skip("no folder that is read-only for everybody")
    return folder


def test_jobs_are_listed(root):
    run = [sys.executable, "-m", "engine", "jobs"]
    text = subprocess.run(run, cwd=root, capture_output=True, text=True).stdout
    listed = json.loads(subprocess.run([*run, "--json"], cwd=root, capture_output=True).stdout)
    assert [j["name"] for j in listed["jobs"]] == list(jobs.names())
    for job in listed["jobs"]:
        assert f"{job['name']}: {job['help']}" in text
        for param in job["params"]:
            assert f"  {param['name']}: {param['help']}" in text


@pytest.mark.slow  # imports torch
def test_selftest(root):
    pytest.importorskip("torch")
    run = [sys.executable, "-m", "engine", "selftest", "--json"]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["ok"] and facts["torch"] and "cpu" in facts["devices"]


def test_every_job_makes_a_parser():
    """Any definition the catalogue may come to hold becomes options that parse."""
    params = (
        Param("field", str, "", "path"),
        Param("camera", str, "{}", "camera", choices=()),
        Param("faces", int, 5, "number", minimum=1),
        Param("angle", float, 0.5, "angle", "degrees", maximum=90.0),
        Param("box", float, (), "box", size=2),
    )
    job = Job("x", "help", params, lambda params, context: Result({}))
    commands = argparse.ArgumentParser().add_subparsers()
    cli._add_job(commands, job)
    args = commands.choices["x"].parse_args(["f", "--faces", "7", "--out", "o"])
    assert (args.field, args.faces) == ("f", 7)
    assert not hasattr(args, "angle") and not hasattr(args, "box")
    assert cli._help(params[2], False) == "number (at least 1; default: 5)"
    assert cli._help(params[3], False) == "angle (degrees; at most 90.0; default: 0.5)"
