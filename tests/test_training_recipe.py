"""The recipe: what it would run, what it skips, and (slow) a run of all its steps."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytest.importorskip("numba")
pytest.importorskip("scipy")
pytest.importorskip("mcubes")

from engine.training import recipe


class Parsed(Exception):
    pass


@pytest.fixture
def only_parse(monkeypatch):
    """Scripts' main() stops once it has read its arguments."""
    read = argparse.ArgumentParser.parse_args

    def parse(self, args=None, namespace=None):
        read(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)


@pytest.mark.parametrize("go_on", [False, True])
def test_scripts_understand_every_command(tmp_path, only_parse, go_on):
    start = None
    if go_on:
        recipe.unpack(recipe.SHIPPED, start := tmp_path / "start")
    for plan in (recipe.tiny(1.0), recipe.Plan()):
        for step in recipe.steps(plan, tmp_path, 2, 0, start):
            for module, *arguments in step.commands:
                with pytest.raises(Parsed):
                    importlib.import_module(module).main(arguments)


def test_unpacking_shares_out_every_tensor(tmp_path):
    recipe.unpack(recipe.SHIPPED, tmp_path)
    parts = {p.stem: load_file(p) for p in tmp_path.glob("*.safetensors")}
    assert set(parts) == {"headspace", "perception", "appearance", "trunk"}
    trunk = parts.pop("trunk")
    assert sum(map(len, parts.values())) == len(load_file(recipe.SHIPPED))
    assert set(trunk) <= set(parts["perception"]) and len(trunk) > 20
    assert "mean" in parts["headspace"] and "generator.mean_planes" in parts["appearance"]


def test_going_on_starts_from_what_ships(tmp_path):
    recipe.unpack(recipe.SHIPPED, start := tmp_path / "start")
    made = recipe.steps(recipe.tiny(1.0), tmp_path, 1, 0, start)
    assert made[0].name != "head space"
    given = [c[c.index("--start") + 1] for s in made for c in s.commands if "--start" in c]
    assert str(start / "perception.safetensors") in given and len(given) >= 3
    assert str(start / "trunk.safetensors") in given
    fresh = recipe.steps(recipe.tiny(1.0), tmp_path, 1, 0, None)
    assert fresh[0].name == "head space"
    spaces = {c[c.index("--headspace") + 1] for s in made for c in s.commands if "--headspace" in c}
    assert spaces == {str(start / "headspace.safetensors")}


def a_step(out: Path, name: str, **more) -> recipe.Step:
    return recipe.Step(name, (("module", name),), (out / name,), **more)


def test_finished_steps_are_skipped(tmp_path, capsys):
    ran = []

    def runner(step, out):
        ran.append(step.name)
        if step.name == "c" and "stop" in flags:
            raise SystemExit("stopped")
        step.makes[0].touch()
        return {"wall_s": 1.0, "cpu_s": 2.0}

    flags = {"stop"}
    todo = [a_step(tmp_path, n) for n in "abcd"]
    with pytest.raises(SystemExit):
        recipe.follow(todo, tmp_path, runner)
    assert ran == ["a", "b", "c"]
    flags.clear(), ran.clear()
    costs = recipe.follow(todo, tmp_path, runner)
    assert ran == ["c", "d"] and costs["d"]["wall_s"] == 1.0
    ran.clear()
    recipe.follow(todo, tmp_path, runner)
    assert ran == [] and capsys.readouterr().out.count("is there") == 2 + 4
    # a file that is gone, or another command, makes that step and all after it again
    (tmp_path / "c").unlink()
    recipe.follow(todo, tmp_path, runner)
    assert ran == ["c", "d"]
    ran.clear()
    todo[1] = recipe.Step("b", (("module", "b", "--more"),), (tmp_path / "b",))
    recipe.follow(todo, tmp_path, runner)
    assert ran == ["b", "c", "d"]


def test_made_again_means_made_anew(tmp_path):
    half, old = tmp_path / "half", tmp_path / "old.safetensors"
    half.mkdir()
    old.touch()
    step = a_step(tmp_path, "a", clears=(half, old))

    def runner(step, out):
        step.makes[0].touch()
        return {"wall_s": 0.0, "cpu_s": 0.0}

    recipe.follow([step], tmp_path, runner)
    assert half.exists() and old.exists()  # what an interrupted run left is kept the first time
    (tmp_path / "a").unlink()
    recipe.follow([step], tmp_path, runner)
    assert not half.exists() and not old.exists()


def test_a_step_must_make_its_files(tmp_path):
    with pytest.raises(SystemExit, match="did not make"):
        recipe.follow([a_step(tmp_path, "a")], tmp_path, lambda s, o: {"wall_s": 0.0, "cpu_s": 0.0})
    assert not (tmp_path / "steps.json").exists()


def test_commands_run_as_processes(tmp_path):
    (tmp_path / "source").write_text("x")
    good = recipe.Step(
        "good",
        (("json.tool", "--help"), ("calendar", "2026", "1")),
        (),
        copies=((tmp_path / "source", tmp_path / "to" / "place"),),
    )
    cost = recipe.run(good, tmp_path)
    assert cost["wall_s"] > 0 and cost["cpu_s"] > 0
    assert "January" in (tmp_path / "logs" / "calendar.txt").read_text()
    assert (tmp_path / "to" / "place").read_text() == "x"
    with pytest.raises(SystemExit, match="bad failed"):
        recipe.run(recipe.Step("bad", (("json.tool", "--nothing"),), ()), tmp_path)


@pytest.mark.parametrize("bad", [["--minutes", "0"], ["--minutes", "-3"], ["--seed", "x"]])
def test_bad_arguments_are_refused(tmp_path, bad):
    with pytest.raises(SystemExit):
        recipe.main(["--tiny", "--out", str(tmp_path), *bad])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("LONG_TESTS"), reason="takes minutes: set LONG_TESTS=1")
def test_all_steps_run(tmp_path, heads_pack, monkeypatch):
    """From a handful of heads to a weights file that loads and figures: nobody looks at it."""
    micro = recipe.Plan(**(vars(recipe.tiny(0.6)) | {
        "space_heads": 90, "heads": 10, "sittings": 6, "prior_heads": 80, "faces": 2,
        "face_seeds": 30, "evaluated": 1, "pixels": 48,
    }))  # fmt: skip
    monkeypatch.setattr(recipe, "tiny", lambda minutes: micro)
    recipe.main(["--tiny", "--out", str(tmp_path)])
    from engine.checkpoints.default import load_default

    model = load_default(tmp_path / "head.safetensors")
    assert len(model.space.mean) > 1000
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert "encoder" in figures["held_out"]
    assert (tmp_path / "sheets" / "truncation.png").exists()


def test_a_prior_of_few_heads():
    """The tiny run has fewer heads than the prior has components, and classes of a few."""
    import numpy as np

    from engine.checkpoints.default import load_default
    from engine.training import build_prior

    model, rng = load_default(), np.random.default_rng(0)
    n, ws = 40, (model.generator.num_ws, model.config["head"]["w_dim"])
    data = {
        "identity": rng.normal(size=(n, len(model.space.identity))),
        "expression": rng.normal(size=(n, len(model.space.expression))),
        "ws": rng.normal(size=(n, *ws)),
        "style": np.arange(n) % 4,
        "male": np.arange(n) % 8 < 3,
        "seed": np.arange(n),
    }
    tensors, notes = build_prior.fit(data, model, [f"style{k}" for k in range(21)])
    assert tensors["basis"].shape[1] == data["male"].sum() < build_prior.COMPONENTS
    assert tensors["class_share"].sum() == pytest.approx(1.0)
    assert all(0.99 < e <= 1 for e in notes["explained"][1:])  # the men's is complete
