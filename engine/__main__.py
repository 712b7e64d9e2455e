"""The engine's command line: `python -m engine --help`.

Jobs run in this process; their options are made from their parameters' definitions. Progress goes
to standard error; standard output carries only the answer. Exit codes: 0 done, 1 failed (one
sentence on standard error), 2 wrong usage, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

from . import __version__, batch_command, jobs, memory, model_command
from .client import EngineClient, EngineSettings, JobFailed
from .errors import OutputError, ParameterError
from .failures import describe
from .jobs.base import Context, Job, Param
from .process import ENVIRONMENT
from .wire import json_safe
from .worker import estimate_seconds_left, take_stdout
from .worker import main as worker_main

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
PRECISIONS = ("auto", "float32", "bfloat16")
# Jobs that have a command of another form.
OWN_COMMANDS = ("import_model", "download_model", "find_directions", "selftest")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    memory.keep_freed()
    args = _parser().parse_args(arguments)
    if args.command == "worker":
        return worker_main(args.log)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Libraries print what they like; programs that read our answer shall not see it.
    answer = take_stdout()
    try:
        if args.command == "jobs":
            return _list_jobs(answer, args.json)
        if args.command == "selftest":
            return _selftest(answer, args.json)
        if args.command == "model":
            return _model(args, answer)
        if args.command == "batch":
            return _batch(args, answer)
        return _run_job(args, answer)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m engine", description="Triplane's engine.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in jobs.names():
        if name not in OWN_COMMANDS:
            _add_job(commands, jobs.load(name))
    batch_command.add_parser(commands, DEVICES, PRECISIONS)
    model_command.add_parser(commands)
    for name, text in (
        ("jobs", "List the jobs and their parameters."),
        ("selftest", "Start a worker with this Python, import torch in it, and report."),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", help="answer as a JSON object")
    text = "Serve jobs on standard input and output, as Blender runs it."
    worker = commands.add_parser("worker", help=text, description=text)
    worker.add_argument("--log", metavar="FILE", help="where prints go (standard error)")
    return parser


def _add_job(commands: Any, job: Job) -> None:
    command = commands.add_parser(job.name, help=job.help, description=job.help)
    params = [p for p in job.params if p.name != job.folder]
    for index, param in enumerate(params):
        _add_param(command, param, positional=index == 0 and _is_required(param))
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of results")
    command.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    command.add_argument("--precision", choices=PRECISIONS, default="auto", help="(default: auto)")
    command.add_argument("--json", action="store_true", help="answer as a JSON object")


def _is_required(param: Param) -> bool:
    return param.type is str and not param.choices and not param.default


def _add_param(command: argparse.ArgumentParser, param: Param, positional: bool) -> None:
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(param, positional)}
    if param.type is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["type"] = param.type
    if param.choices:
        options["choices"] = param.choices
    elif param.type is not bool:
        options["metavar"] = param.name.upper()
    if param.size:
        options |= {"nargs": param.size, "metavar": "X"}
    command.add_argument(
        param.name if positional else "--" + param.name.replace("_", "-"), **options
    )


def _help(param: Param, positional: bool) -> str:
    facts = [param.unit] if param.unit else []
    if param.minimum is not None and param.maximum is not None:
        facts.append(f"{param.minimum} to {param.maximum}")
    elif param.minimum is not None or param.maximum is not None:
        least = param.minimum is not None
        facts.append(f"at least {param.minimum}" if least else f"at most {param.maximum}")
    if not positional and param.default not in ("", None, (), []):
        facts.append(f"default: {param.default}")
    text = f"{param.help} ({'; '.join(facts)})" if facts else param.help
    return text.replace("%", "%%")


def _run_job(args: argparse.Namespace, answer: BinaryIO) -> int:
    job = jobs.load(args.command)
    names = {p.name for p in job.params}
    progress = _Progress()
    try:
        given = {k: v for k, v in vars(args).items() if k in names}
        params = job.checked(given | ({job.folder: str(args.out)} if job.folder else {}))
        _check_folder(args.out)
        context = Context(progress.show, device=args.device, precision=args.precision)
        result = job.run(params, context)
        from .jobs.outputs import write_outputs

        context.progress(1.0, "writing the results")
        outputs = write_outputs(result, args.out)
        context.finish()
    except Exception as error:
        progress.end()
        _report_failure(answer, describe(error), args.json)
        return USAGE if isinstance(error, ParameterError) else FAILED
    progress.end()
    paths = {name: str(path) for name, path in outputs.items()}
    for sentence in ((result.meta.get("figures") or {}).get("quality") or {}).get("warnings", ()):
        print(f"Warning: {sentence}", file=sys.stderr)
    if args.json:
        facts = {"outputs": paths, "meta": result.meta, "timings": context.timings}
        _print_json(answer, {"ok": True, **facts})
    else:
        _print(answer, "".join(f"{name}: {path}\n" for name, path in paths.items()))
    return DONE


def _check_folder(folder: Path) -> None:
    """Raise OutputError if results cannot go there: better now than after the work."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    remedy = "Choose another folder with --out."
    if not existing.is_dir():
        raise OutputError(f"{existing} is not a folder.", remedy)
    try:
        # Asking for permissions is not enough: a file system may be mounted read-only.
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise OutputError(f"Cannot write into {existing}: {error.strerror}.", remedy) from error


def _list_jobs(answer: BinaryIO, as_json: bool) -> int:
    every = [jobs.load(name) for name in jobs.names()]
    if as_json:
        _print_json(answer, {"version": __version__, "jobs": [jobs.describe(j) for j in every]})
        return DONE
    for job in every:
        lines = [f"{job.name}: {job.help}"]
        lines += [f"  {p.name}: {_help(p, positional=False)}" for p in job.params]
        _print(answer, "\n".join(lines).replace("%%", "%") + "\n\n")
    return DONE


def _selftest(answer: BinaryIO, as_json: bool) -> int:
    folder = Path(tempfile.mkdtemp(prefix="triplane-"))
    root = str(Path(__file__).resolve().parent.parent)
    client = EngineClient(EngineSettings(sys.executable, root, str(folder / "engine.log")))
    try:
        facts = client.run_blocking("selftest", {"torch": True})["meta"]
    except JobFailed as error:  # the log stays: the remedy may point to it
        _report_failure(answer, describe(error) | {"traceback": error.traceback}, as_json)
        return FAILED
    finally:
        client.close()
    shutil.rmtree(folder, ignore_errors=True)
    shown = {k: facts[k] for k in ("executable", "python", "numpy", "torch", "devices")}
    if as_json:
        _print_json(answer, {"ok": True, **shown})
    else:
        _print(answer, "".join(f"{name}: {value}\n" for name, value in shown.items()))
    return DONE


def _model(args: argparse.Namespace, answer: BinaryIO) -> int:
    progress = _Progress()
    try:
        facts, text = model_command.run(args, lambda f, step: progress.show(f, step, None))
    except Exception as error:
        progress.end()
        _report_failure(answer, describe(error), args.json)
        return USAGE if isinstance(error, ParameterError) else FAILED
    progress.end()
    if args.json:
        _print_json(answer, {"ok": True, **facts})
    else:
        _print(answer, text)
    return DONE


def _batch(args: argparse.Namespace, answer: BinaryIO) -> int:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        facts, text = batch_command.run(args, say)
    except Exception as error:
        _report_failure(answer, describe(error), args.json)
        return USAGE if isinstance(error, ParameterError) else FAILED
    if args.json:
        _print_json(answer, {"ok": not facts["failed"], **facts})
    else:
        _print(answer, text)
    return FAILED if facts["failed"] else DONE


def _report_failure(answer: BinaryIO, failure: dict[str, str], as_json: bool) -> None:
    if as_json:
        _print_json(answer, {"ok": False, **failure})
    elif failure["kind"] == "internal":
        sys.stderr.write(failure["traceback"])
    print(f"{failure['sentence']} {failure['remedy']}".strip(), file=sys.stderr)


def _print_json(answer: BinaryIO, value: Any) -> None:
    _print(answer, json.dumps(json_safe(value), ensure_ascii=False, indent=1) + "\n")


def _print(answer: BinaryIO, text: str) -> None:
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    while len(data):
        data = data[answer.write(data) :]


class _Progress:
    """Progress on standard error: one line that moves on a terminal, one line a step elsewhere."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._moving = sys.stderr.isatty()
        self._step = ""

    def show(self, fraction: float, step: str, seconds_left: float | None) -> None:
        if seconds_left is None:
            seconds_left = estimate_seconds_left(fraction, time.monotonic() - self._started)
        left = "" if seconds_left is None else f", about {seconds_left:.0f} s left"
        line = f"{100 * fraction:3.0f} % {step}{left}"
        if self._moving:
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        elif step != self._step:
            print(line, file=sys.stderr, flush=True)
        self._step = step

    def end(self) -> None:
        """Leave the moving line."""
        if self._moving and self._step:
            print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
