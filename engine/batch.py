"""Many jobs from one list. What is done is not done again; what fails is listed and skipped.

The list (manifest) is a file of JSON lines, {"job": "reconstruct", "out": "heads/ann", "params":
{"photo": "ann.jpg"}}, or a .csv with the columns job, out and one a parameter (empty: its default;
several numbers: with blanks). Paths are relative to the manifest's folder. Beside it grows
`<manifest>.done.jsonl`, with a line for every job that has ended. A line counts as done if the same
job with the same parameters, input files and folder ended well and its files are still there.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import __version__, jobs
from .errors import ParameterError, TriplaneError
from .failures import describe
from .jobs.base import Param, Result

# Runs one job to its end and writes its files: job, params, folder -> the files' paths.
Runner = Callable[[str, dict[str, Any], Path], list[str]]
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Item:
    """A line of the manifest: its number, the job, its checked parameters, the folder of results;
    or, in `problem`, what is wrong with it."""

    line: int
    job: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    out: str = ""
    problem: str = ""

    def key(self) -> str:
        """What tells this work from any other; an input file that is changed makes it another."""
        stamps = {}
        for name, value in self.params.items():
            with contextlib.suppress(OSError, ValueError):  # most texts are no files
                if isinstance(value, str) and value and os.path.isfile(value):
                    facts = os.stat(value)
                    stamps[name] = [facts.st_size, facts.st_mtime_ns]
        facts = [__version__, self.job, self.params, self.out, stamps]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """How an item ended: ok, with its files; or the reason why not."""

    item: Item
    ok: bool
    seconds: float = 0.0
    files: tuple[str, ...] = ()
    reason: str = ""
    skipped: bool = False


class Journal:
    """The file of what has ended, a line each, written as it happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short by a power cut
                facts = json.loads(line)
                if facts["ok"]:
                    self._done[facts["key"]] = list(facts["files"])
        self._ends_in_a_line = not text or text.endswith("\n")

    def has(self, item: Item) -> bool:
        """Whether the item ended well before and its files are there."""
        files = self._done.get(item.key())
        return files is not None and all(os.path.exists(file) for file in files)

    def record(self, outcome: Outcome) -> None:
        """Put an end on record, on disk when this returns. Raises OSError."""
        item = outcome.item
        facts = {
            "key": item.key() if not item.problem else "",
            "line": item.line,
            "job": item.job,
            "out": item.out,
            "ok": outcome.ok,
            "seconds": round(outcome.seconds, 2),
            "files": list(outcome.files),
            "reason": outcome.reason,
        }
        with self._lock, open(self.path, "a", encoding="utf-8") as handle:
            handle.write(("" if self._ends_in_a_line else "\n") + json.dumps(facts) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
            self._ends_in_a_line = True


def journal_path(manifest: Path, lines: str = "") -> Path:
    """Of the journal of a manifest, or of some of its lines: machines of a farm that work on
    different lines must not write into one file."""
    part = re.sub(r"[^\d,-]", "", lines)
    return manifest.with_name(f"{manifest.name}{'.' if part else ''}{part}.done.jsonl")


def only_lines(items: list[Item], lines: str) -> list[Item]:
    """The items on these lines, such as "3", "1-20" or "1-20,30". Raises ParameterError."""
    wanted: set[int] = set()
    for part in lines.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9}))?\s*", part)
        if match is None:
            raise ParameterError(f"{part[:40]} is no line or range of lines, such as 1-20.")
        first, last = int(match[1]), int(match[2] or match[1])
        wanted |= {item.line for item in items if first <= item.line <= last}
    return [item for item in items if item.line in wanted]


def read_manifest(path: Path) -> list[Item]:
    """The manifest's items, good ones and others. Raises ParameterError if it cannot be read."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ParameterError(f"The manifest {path.name} cannot be read: {reason}.") from error
    rows = _csv_rows(text) if path.suffix.lower() == ".csv" else _json_rows(text)
    items, folders = [], set()
    for number, row in rows:
        try:
            item = _item(number, row)
            place = os.path.abspath(item.out)
            if place in folders:
                raise ParameterError(f"The folder {item.out} is that of an earlier line.")
            folders.add(place)
        except TriplaneError as error:
            item = Item(number, problem=f"{error.sentence} {error.remedy}".strip())
        items.append(item)
    return items


def _json_rows(text: str) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError:
                yield number, None


def _csv_rows(text: str) -> Iterable[tuple[int, Any]]:
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        given = {k: v for k, v in row.items() if k not in ("job", "out") and v}
        texts = {"job": row.get("job") or "", "out": row.get("out") or ""}
        yield reader.line_num, texts | {"params": given, "texts": True}


def _item(number: int, row: Any) -> Item:
    if not isinstance(row, dict) or not isinstance(row.get("params", {}), dict):
        raise ParameterError("The line is no JSON object with job, out and params.")
    for name in ("job", "out"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise ParameterError(f"The line has no {name}.")
    job, given = jobs.load(row["job"]), dict(row.get("params", {}))
    if row.get("texts"):
        known = {param.name: param for param in job.params}
        given = {k: _value(known[k], v) if k in known else v for k, v in given.items()}
    if job.folder:
        given[job.folder] = row["out"]
    return Item(number, job.name, job.checked(given), row["out"])


def _value(param: Param, text: str) -> Any:
    """A cell of a table as the parameter's type."""
    try:
        if param.size:
            return [param.type(part) for part in text.replace(",", " ").split()]
        if param.type is bool:
            return {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}[text.strip().lower()]
        return param.type(text)
    except (ValueError, KeyError) as error:
        raise ParameterError(
            f"{param.name} must be of type {param.type.__name__}, not {text[:40]}."
        ) from error


def run(
    items: list[Item],
    journal: Journal,
    runners: list[Runner],
    on_outcome: Callable[[Outcome], None],
) -> None:
    """Work through the items, as many at a time as there are runners, each of which gets one at a
    time. on_outcome is called for every item, in this thread, in the order of their ends. Whatever
    ends this early, the journal holds what has ended. Raises OSError if it cannot be written."""
    free = list(runners)
    waiting = list(reversed(items))
    running: dict[Any, Runner] = {}
    with ThreadPoolExecutor(len(runners), "triplane-batch") as pool:
        try:
            while waiting or running:
                while waiting and free:
                    item = waiting.pop()
                    early = _without_work(item, journal)
                    if early is not None:
                        on_outcome(early)
                        continue
                    runner = free.pop()
                    running[pool.submit(_perform, item, runner, journal)] = runner
                # A limit, because a wait without one cannot be interrupted on Windows.
                done, _ = wait(running, 0.25, FIRST_COMPLETED)
                for future in done:
                    free.append(running.pop(future))
                    on_outcome(future.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _without_work(item: Item, journal: Journal) -> Outcome | None:
    if item.problem:
        outcome = Outcome(item, False, reason=item.problem)
        journal.record(outcome)
        return outcome
    return Outcome(item, True, skipped=True) if journal.has(item) else None


def _perform(item: Item, runner: Runner, journal: Journal) -> Outcome:
    started = time.monotonic()
    try:
        files = tuple(runner(item.job, item.params, Path(item.out)))
        outcome = Outcome(item, True, time.monotonic() - started, files)
    except Exception as error:
        words = describe(error)
        reason = f"{words['sentence']} {words['remedy']}".strip()
        outcome = Outcome(item, False, time.monotonic() - started, reason=reason)
    journal.record(outcome)
    return outcome


def write_result(result: Result, out: Path) -> list[str]:
    """Write a job's result into a folder: the paths of its files, those that the job itself has
    written included. Raises OutputError."""
    from .jobs.outputs import write_outputs

    files = write_outputs(result, out).values()
    more = (frame.get("path") for frame in result.meta.get("frames", ()))
    return sorted({str(path) for path in (*files, *more) if path})
