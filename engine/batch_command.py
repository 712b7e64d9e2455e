"""`python -m engine batch MANIFEST`: a list of jobs from the command line."""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import batch
from .client import EngineClient, EngineSettings
from .jobs.base import Result

MOST_WORKERS = 64


def add_parser(commands: Any, devices: tuple[str, ...], precisions: tuple[str, ...]) -> None:
    """Add the command to the command line's."""
    text = "Run the jobs of a list; what is done already is skipped, what fails is listed."
    about = f"{text} {' '.join(batch.__doc__.split())}"
    parser = commands.add_parser("batch", help=text, description=about)
    parser.add_argument("manifest", type=Path, help="the list: JSON lines, or a .csv")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="jobs at a time (default: 1)"
    )
    parser.add_argument(
        "--lines", metavar="LINES", default="", help="only these lines, such as 1-20,30"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        default="",
        help="run them on a Ray cluster (auto: the one that runs here; local: start one), which"
        " sees all files at the same paths; needs the package ray",
    )
    parser.add_argument("--device", choices=devices, default="auto", help="(default: auto)")
    parser.add_argument("--precision", choices=precisions, default="auto", help="(default: auto)")
    parser.add_argument("--json", action="store_true", help="answer as a JSON object")


def run(args: argparse.Namespace, say: Callable[[str], None]) -> tuple[dict, str]:
    """Do it; (facts, the same as text). `say` gets a line for every job that ends. Each worker is a
    process of its own, so that a job that takes its process down fails alone."""
    manifest = args.manifest.resolve()
    if manifest.is_file():
        os.chdir(manifest.parent)
    items = batch.read_manifest(manifest)
    items = batch.only_lines(items, args.lines) if args.lines else items
    journal = batch.Journal(batch.journal_path(manifest, args.lines))
    outcomes: list[batch.Outcome] = []

    def ended(outcome: batch.Outcome) -> None:
        outcomes.append(outcome)
        say(f"{len(outcomes)} of {len(items)}: {_line(outcome)}")

    with contextlib.ExitStack() as stack:
        if args.ray:
            from .batch_ray import runners

            ready = runners(args.ray, args.device, args.precision)
        else:
            workers = max(1, min(args.workers, MOST_WORKERS, len(items)))
            ready = [stack.enter_context(_worker(args, manifest, n)) for n in range(workers)]
        batch.run(items, journal, ready, ended)
    failed = [o for o in outcomes if not o.ok]
    if not failed:  # nobody will ask why
        for log in manifest.parent.glob(f"{glob.escape(manifest.name)}.[0-9]*.log"):
            log.unlink(missing_ok=True)
    facts = {
        "done": sum(o.ok and not o.skipped for o in outcomes),
        "skipped": sum(o.skipped for o in outcomes),
        "failed": [
            {"line": o.item.line, "job": o.item.job, "out": o.item.out, "reason": o.reason}
            for o in failed
        ],
    }
    text = f"done: {facts['done']}\nthere already: {facts['skipped']}\nfailed: {len(failed)}\n"
    text += "".join(f"  line {o.item.line}: {o.reason}\n" for o in failed)
    return facts, text


@contextlib.contextmanager
def _worker(args: argparse.Namespace, manifest: Path, number: int) -> Iterator[batch.Runner]:
    """A runner with a process of its own."""
    root = str(Path(__file__).resolve().parent.parent)
    log = f"{manifest}.{number + 1}.log"
    client = EngineClient(EngineSettings(sys.executable, root, log))

    def perform(job: str, params: dict[str, Any], out: Path) -> list[str]:
        answer = client.run_blocking(job, params, device=args.device, precision=args.precision)
        return batch.write_result(Result(answer["meta"], answer["arrays"]), out)

    try:
        yield perform
    finally:
        client.close()


def _line(outcome: batch.Outcome) -> str:
    item = outcome.item
    what = f"line {item.line}: {item.job} into {item.out}" if item.job else f"line {item.line}"
    if outcome.skipped:
        return f"{what} is there already"
    if not outcome.ok:
        return f"{what} failed. {outcome.reason}"
    return f"{what} took {outcome.seconds:.0f} s"
