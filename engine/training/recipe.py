"""The whole recipe of the head model in one command, from nothing to figures:

    python -m engine.training.recipe --tiny --out DIR              # minutes, to see that all works
    python -m engine.training.recipe --out DIR --minutes 240       # the real one
    python -m engine.training.recipe --out DIR --minutes 60 --continue   # goes on from what ships

Steps: head space, heads, canonical positions, perception and appearance (side by side), the
perception's calibration, a first weights file, studio sittings, the adversarial stage, the weights
file, the perception's second trunk with pictures of its own, the small LRM of the preset instant,
the prior, figures, a sheet. --minutes is shared among the five trainings; the other steps take what
they take. Each step runs the script that docs/training.md names, as a process of its own, and
prints what it cost; its output is in OUT/logs. A run that was stopped goes on where it was:
`steps.json` knows what is done, and the scripts themselves keep what they have. The result is
OUT/head.safetensors, OUT/numbers.safetensors, OUT/instant/instant.safetensors,
OUT/prior.safetensors and OUT/metrics.json; nothing that ships is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.checkpoints.default import NUMBERS
from engine.checkpoints.default import PATH as SHIPPED
from engine.training.heads.dataset import HELD_OUT, SHARD

# Of the minutes:
SHARES = {"perception": 0.22, "appearance": 0.26, "gan": 0.32, "numbers": 0.1, "instant": 0.1}
TRUNK = "trunk.safetensors"
PORTRAITS = 800_000  # first seed of the heads that the second trunk learns from


@dataclass(frozen=True)
class Plan:
    """How much of everything. minutes: of each training; the others count heads or steps.

    space_heads: that the head space is made from; held_out: heads for the trainings' reports;
    calibrated, lifted: pictures; portraits: heads of the second trunk, of whose shards one in
    kept_portraits is kept back; sittings: studio seeds; faces, face_seeds: in the prior's book,
    and that they are chosen from; compared: held-out heads the prior is compared with; evaluated,
    variants, samples: of `evaluate`; sheets, pixels: of `sheets`.
    """

    space_heads: int = 2000
    heads: int = 1800
    held_out: int = 100
    calibrated: int = 4000
    sittings: int = 1500
    lifted: int = 2000
    portraits: int = 8000
    kept_portraits: int = 10
    minutes: dict[str, float] = field(
        default_factory=lambda: {k: 240 * v for k, v in SHARES.items()}
    )
    gan: tuple[str, ...] = ()
    prior_heads: int = 900
    faces: int = 60
    face_seeds: int = 1800
    compared: int = 64
    evaluated: int = 64
    variants: tuple[str, ...] = ("encoder", "fast", "w+", "pivotal", "balanced")
    samples: int = 256
    sheets: tuple[str, ...] = ("samples", "truncation", "interpolation", "circle")
    pixels: int = 176


def tiny(minutes: float) -> Plan:
    """A plan that shows that everything works, and makes a poor model. minutes: of training."""
    return Plan(
        space_heads=160,
        heads=48,
        held_out=0,
        calibrated=240,
        sittings=16,
        lifted=12,
        portraits=60,
        kept_portraits=2,
        minutes={k: minutes * v for k, v in SHARES.items()},
        gan=("--wild", "2", "--sittings", "1", "--views", "1"),
        prior_heads=40,
        faces=6,
        face_seeds=60,
        compared=0,
        evaluated=2,
        variants=("encoder",),
        samples=0,
        sheets=("truncation",),
        pixels=96,
    )


@dataclass(frozen=True)
class Step:
    """Commands (a module and its arguments each) that run side by side, and the files they make.
    copies: (from, to) files that are put in place first, where they are missing. clears: folders
    of half-made things and files of before, removed when the step is made a second time."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    makes: tuple[Path, ...]
    threads: int = 1
    copies: tuple[tuple[Path, Path], ...] = ()
    clears: tuple[Path, ...] = ()


def steps(plan: Plan, out: Path, workers: int, seed: int, start: Path | None) -> list[Step]:
    """All steps. start: folder of unpacked weights to go on from (see `unpack`), or None."""
    here = "engine.training."
    heads, sittings, lifted = out / "heads", out / "sittings", out / "lifted"
    space = (start or out) / "headspace.safetensors"
    mean = space.with_suffix(".mean.npy")
    trained = {n: out / n / f"{n}.safetensors" for n in SHARES}
    calibrated = out / "perception" / "calibrated.safetensors"
    base, head = out / "base.safetensors", out / "head.safetensors"
    numbers, portraits = head.with_name(NUMBERS), out / "portraits"
    prior, figures = out / "prior.safetensors", out / "metrics.json"
    common = ("--workers", str(workers))
    data = ("--heads", str(heads), "--headspace", str(space))
    mean_heads = ("--mean-heads", str(plan.space_heads))

    def training(name: str, *more: str, go_on: Path | None = None) -> tuple[str, ...]:
        if go_on:
            more += ("--start", str(go_on))
        return (f"{here}train_{name}", *data, "--out", str(out / name), "--minutes",
                f"{plan.minutes[name]:g}", "--seed", str(seed), *more)  # fmt: skip

    def pack(appearance: Path, to: Path) -> tuple[str, ...]:
        return (f"{here}pack_weights", "--headspace", str(space), "--perception",
                str(calibrated), "--appearance", str(appearance),
                "--out", str(to))  # fmt: skip

    # few heads are one shard, which one process makes: two shards then
    cuts = [0, plan.heads // 2, plan.heads] if plan.heads <= SHARD else [0, plan.heads]
    spans = list(zip(cuts, cuts[1:], strict=False))
    if plan.held_out:
        spans.append((HELD_OUT, HELD_OUT + plan.held_out))
    shards = tuple(heads / f"heads_{a:08d}.npz" for a, _ in spans)
    first = () if start else (Step(
        "head space",
        ((f"{here}build_headspace", "--out", str(space), "--heads", str(plan.space_heads)),),
        (space,),
    ),)  # fmt: skip
    trunk = ("--start", str(start / TRUNK)) if start and (start / TRUNK).exists() else ()
    networks = ["perception", "appearance"]
    learned = trained["appearance"]
    if start and _has_mapping(start / "appearance.safetensors"):
        # the supervised stage knows nothing of what the adversarial one has added
        networks, learned = ["perception"], start / "appearance.safetensors"
    gan = training("gan", "--studio", str(sittings), *plan.gan, go_on=learned)
    return [
        *first,
        Step("heads", tuple(
            (f"{here}heads.dataset", "--out", str(heads), "--seeds", str(a), str(b),
             "--material", "2", *common) for a, b in spans
        ), shards),
        Step("canonical positions", ((f"{here}prepare", *data, *mean_heads, *common),),
             (*(f.with_name(f.name.replace("heads_", "prep_")) for f in shards), mean)),
        Step(
            " and ".join(networks),
            tuple(training(n, go_on=start and start / f"{n}.safetensors") for n in networks),
            tuple(trained[n] for n in networks),
        ),
        Step("calibration", ((f"{here}calibrate", *data, "--weights", str(trained["perception"]),
                              "--out", str(calibrated), "--count", str(plan.calibrated)),),
             (calibrated,)),
        Step("first weights", (pack(learned, base),), (base,)),
        Step("sittings", ((f"{here}studio", "--out", str(sittings), "--seeds", "0",
                           str(plan.sittings), *mean_heads, "--weights", str(base), *common),),
             (sittings / "studio_00000000.npz",), copies=((mean, sittings / "mean.npy"),)),
        Step("adversarial stage", (gan,), (trained["gan"],), threads=workers),
        Step("weights", (pack(trained["gan"], head),), (head,), clears=(numbers,)),
        Step("portraits", ((f"{here}numbers_data", "--out", str(portraits), "--seeds",
                            str(PORTRAITS), str(PORTRAITS + plan.portraits), "--weights",
                            str(head), *common),),
             (portraits / f"numbers_{PORTRAITS:08d}.npz",),
             copies=((mean, portraits / "mean.npy"),), clears=(portraits, numbers)),
        Step("second trunk", ((f"{here}train_numbers", "--data", str(portraits), "--out",
                               str(out / "numbers"), "--to", str(numbers), "--minutes",
                               f"{plan.minutes['numbers']:g}", "--kept",
                               str(plan.kept_portraits), "--weights", str(head), "--seed",
                               str(seed), *trunk),), (numbers,), clears=(numbers,)),
        Step("lifted pictures", ((f"{here}lrm_data", "--heads", str(heads), "--out", str(lifted),
                                  "--pictures", str(plan.lifted), "--held-out",
                                  str(min(plan.held_out, 50)), "--weights", str(head),
                                  "--seed", str(seed)),),
             (lifted / f"lift_{seed:03d}000000.npz",), clears=(lifted,)),
        Step("instant", ((f"{here}train_lrm", "--data", str(lifted), "--out",
                          str(out / "instant"), "--minutes", f"{plan.minutes['instant']:g}",
                          "--seed", str(seed)),), (trained["instant"],)),
        Step("prior", ((f"{here}build_prior", "--work", str(out / "prior"), "--out", str(prior),
                        "--heads", str(plan.prior_heads), "--faces", str(plan.faces),
                        "--face-seeds", str(plan.face_seeds), "--held-out", str(plan.compared),
                        "--weights", str(head), *mean_heads, *common),), (prior,),
             clears=(out / "prior",)),
        Step("figures", ((f"{here}evaluate", "--count", str(plan.evaluated), "--variants",
                          *plan.variants, "--samples", str(plan.samples), "--weights", str(head),
                          "--work", str(out / "evaluate"), "--out", str(figures), *common),),
             (figures,), copies=((mean, out / "evaluate" / "mean.npy"),)),
        Step("sheet", ((f"{here}sheets", "--out", str(out / "sheets"), "--weights", str(head),
                        "--prior", str(prior), "--size", str(plan.pixels), "--only",
                        *plan.sheets),), tuple(out / "sheets" / f"{s}.png" for s in plan.sheets)),
    ]  # fmt: skip


def _has_mapping(path: Path) -> bool:
    with safe_open(str(path), "pt") as file:
        return any(name.startswith("mapping.") for name in file.keys())


def unpack(weights: Path, folder: Path) -> None:
    """The parts of a packed weights file as the training scripts want them: headspace, perception
    and appearance (generator, encoder, mapping) .safetensors in a folder; and the second trunk, if
    there is one beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = load_file(weights)
    groups: dict[str, dict] = {"headspace": {}, "perception": {}, "appearance": {}}
    if (numbers := weights.with_name(NUMBERS)).exists():
        both = load_file(numbers)
        groups["trunk"] = {
            k.removeprefix("trunk."): v for k, v in both.items() if k.startswith("trunk.")
        }
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix == "space":
            groups["headspace"][rest] = tensor
        elif prefix == "perception":
            groups["perception"][rest] = tensor
        else:
            groups["appearance"][name] = tensor
    for name, part in groups.items():
        temporary = folder / f".{name}.tmp"
        save_file(part, temporary)
        temporary.replace(folder / f"{name}.safetensors")


def run(step: Step, out: Path) -> dict[str, float]:
    """Runs a step's commands side by side; returns wall and processor seconds. Raises SystemExit
    with the end of the log of a command that failed."""
    for source, target in step.copies:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(step.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    logs = out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    begin, before = time.monotonic(), _children()
    running: list[tuple[subprocess.Popen, Path]] = []
    try:
        for command in step.commands:
            log = logs / f"{command[0].rsplit('.', 1)[-1]}.txt"
            with open(log, "ab") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", *command],
                    stdout=file,
                    stderr=file,
                    env=environment,
                    start_new_session=True,  # so that its own workers can be ended with it
                )
            running.append((process, log))
        codes = [(process.wait(), log) for process, log in running]
    except BaseException:
        for process, _ in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        raise
    for code, log in codes:
        if code:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{step.name} failed ({log}):\n{end}")
    return {"wall_s": time.monotonic() - begin, "cpu_s": _children() - before}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def follow(todo: list[Step], out: Path, runner=run) -> dict[str, dict]:
    """Runs what is not done yet and prints what each step cost; returns the costs by name. A step
    is done if `steps.json` holds it with the same commands and its files are there."""
    out.mkdir(parents=True, exist_ok=True)
    record = out / "steps.json"
    done = json.loads(record.read_text()) if record.exists() else {}
    again = False
    for step in todo:
        known = done.get(step.name, {})
        commands = [list(c) for c in step.commands]
        # what stands on something new is made anew
        if not again and known.get("commands") == commands and all(f.exists() for f in step.makes):
            print(f"{step.name}: is there", flush=True)
            continue
        again = True
        if known:
            for old in step.clears:
                old.unlink() if old.is_file() else shutil.rmtree(old, ignore_errors=True)
        cost = runner(step, out)
        missing = [str(f) for f in step.makes if not f.exists()]
        if missing:
            raise SystemExit(f"{step.name} did not make {', '.join(missing)}")
        done[step.name] = {"commands": commands} | {k: round(v, 1) for k, v in cost.items()}
        temporary = record.with_suffix(".tmp")
        temporary.write_text(json.dumps(done, indent=1) + "\n")
        temporary.replace(record)
        print(
            f"{step.name}: {cost['wall_s']:.0f} s, {cost['cpu_s']:.0f} s of processor", flush=True
        )
    return done


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="a few heads, a few minutes")
    parser.add_argument("--minutes", type=float, help="of training in all (240; tiny: 4)")
    parser.add_argument("--continue", dest="go_on", action="store_true",
                        help="from the weights that ship")  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="processes, or cores")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.minutes is not None and args.minutes <= 0:
        parser.error("--minutes must be more than 0")
    if args.tiny:
        plan = tiny(args.minutes or 4)
    else:
        minutes = args.minutes or 240
        plan = Plan(minutes={k: minutes * v for k, v in SHARES.items()})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # as Ctrl-C: ends its processes
    start = None
    if args.go_on:
        start = args.out / "start"
        if not (start / "appearance.safetensors").exists():
            unpack(SHIPPED, start)
        # the shipped head space stands on the mean of as many heads as the full recipe's
        plan = Plan(**(vars(plan) | {"space_heads": Plan().space_heads}))
    costs = follow(steps(plan, args.out, args.workers, args.seed, start), args.out)
    total = sum(c["wall_s"] for c in costs.values())
    print(f"{args.out / 'head.safetensors'}: {total / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
