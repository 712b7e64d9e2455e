"""The engine's process, driven by hand over its pipes, and the words it has for failures."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from engine import jobs, worker
from engine.errors import Cancelled, NoFaceError, ParameterError
from engine.failures import describe
from engine.jobs.base import Context
from engine.wire import read_message, write_message


class Child:
    """`python -m engine worker` with its pipes."""

    def __init__(self, root, log) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine", "worker", "--log", str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=root,
        )
        self.ready = self.read()

    def send(self, **message) -> None:
        write_message(self.process.stdin, message)

    def job(self, job_id: str, **params) -> None:
        self.send(do="job", job=job_id, name="selftest", params=params)

    def read(self) -> dict:
        message = read_message(self.process.stdout)
        return {"event": "end"} if message is None else {**message[0], "arrays": message[1]}

    def read_until(self, *names: str) -> list[dict]:
        """Events up to and with the first of one of these names."""
        events = [self.read()]
        while events[-1]["event"] not in names:
            assert events[-1]["event"] != "end", f"the worker ended:\n{self.log.read_text()}"
            events.append(self.read())
        return events

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)


def start(root, folder):
    child = Child(root, folder / "engine.log")
    yield child
    child.process.kill()
    child.process.wait()
    child.process.stdin.close()
    child.process.stdout.close()


@pytest.fixture
def child(root, tmp_path):
    yield from start(root, tmp_path)


@pytest.fixture(scope="module")
def lasting(root, tmp_path_factory):
    """A worker for tests that leave it as they found it."""
    yield from start(root, tmp_path_factory.mktemp("lasting"))


def test_a_job_reports_its_course(child):
    assert child.ready["event"] == "ready" and child.ready["process"] == child.process.pid
    child.job("a", steps=2, seconds=0.4, note="é")
    events = child.read_until("result", "failed")
    assert {e["job"] for e in events} == {"a"}
    course = [(e["event"], e.get("step")) for e in events if e["event"] != "preview"]
    assert course == [
        ("accepted", None),
        ("progress", "step 1"),
        ("progress", "step 2"),
        ("result", None),
    ]
    previews = [e["arrays"]["image"] for e in events if e["event"] == "preview"]
    assert [p.shape for p in previews] == [(8, 8, 3)] * 2
    result = events[-1]
    assert result["meta"]["note"] == "é"
    assert result["arrays"]["image"].dtype == np.uint8
    assert result["timings"]["step 1"] == pytest.approx(0.2, abs=0.1)
    child.process.stdin.close()
    child.wait(2)
    log = child.log.read_text("utf-8")
    assert "'note': 'é'" in log and "Job a: done" in log


def test_items_are_never_thinned_out(lasting):
    lasting.job("a", steps=2, seconds=0.0, items=30)
    events = lasting.read_until("result", "failed")
    items = [e for e in events if e["event"] == "item"]
    assert [e["meta"] for e in items] == [{"step": s, "item": i} for s in (0, 1) for i in range(30)]
    assert {e["arrays"]["image"].shape for e in items} == {(8, 8, 3)}
    # Its step's own preview comes first: items keep their place among the other events.
    assert events.index(items[0]) > [e["event"] for e in events].index("progress")


def test_prints_cannot_reach_the_wire(lasting):
    lasting.job("a", misbehave="print", seconds=0)
    assert lasting.read_until("result", "failed")[-1]["event"] == "result"
    assert "noise on standard output" in lasting.log.read_text()
    assert "noise on file descriptor 1" in lasting.log.read_text()


def test_jobs_run_one_after_the_other(lasting):
    lasting.job("a", seconds=0.2)
    lasting.job("b", seconds=0.0)
    lasting.job("c", seconds=0.0)
    lasting.send(do="cancel", job="b")
    ends = [lasting.read_until("result", "failed")[-1] for _ in range(3)]
    assert [e["job"] for e in ends] == ["a", "b", "c"]
    assert [e.get("kind") for e in ends] == [None, "cancelled", None]


def test_a_running_job_is_cancelled(lasting):
    lasting.job("a", seconds=60)
    lasting.read_until("progress")
    start = time.monotonic()
    lasting.send(do="cancel", job="a")
    assert lasting.read_until("failed")[-1]["kind"] == "cancelled"
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize(
    "params, kind, words",
    [
        ({"misbehave": "raise"}, "reconstruction", "as it was told to"),
        ({"misbehave": "error"}, "internal", "ZeroDivisionError"),
        ({"misbehave": "import"}, "engine-setup", "has no a_package_that_nobody_has"),
        ({"allocate": 1 << 30}, "memory", "memory is not enough"),
        ({"steps": 0}, "parameter", "at least 1"),
        ({"nothing": 0}, "parameter", "nothing"),
        ({"seconds": "long"}, "parameter", "seconds"),
        ({"note": 3}, "parameter", "note"),
    ],
)
def test_failures_are_events_and_the_worker_lives_on(lasting, params, kind, words):
    lasting.job("a", **params)
    failure = lasting.read_until("failed")[-1]
    assert failure["kind"] == kind
    assert words in failure["sentence"]
    assert "Traceback" in failure["traceback"] and "Traceback" in lasting.log.read_text()
    lasting.job("b", seconds=0)
    assert lasting.read_until("result")[-1]["job"] == "b"


def test_an_unknown_job_fails(lasting):
    lasting.send(do="job", job="a", name="os.system", params={})
    assert lasting.read_until("failed")[-1]["kind"] == "parameter"


def test_release_between_jobs(lasting):
    lasting.send(do="release")
    lasting.job("a", seconds=0)
    lasting.read_until("result")


@pytest.mark.parametrize("how", ["none", "deaf"])
def test_it_ends_with_its_parent_even_in_mid_job(child, how):
    child.job("a", seconds=60, misbehave=how, steps=1)
    child.read_until("progress")
    start = time.monotonic()
    child.process.stdin.close()
    child.wait(5)
    assert time.monotonic() - start < 2


def test_an_idle_worker_ends_at_once_and_well(child):
    child.process.stdin.close()
    assert child.wait(1) == 0


def test_garbage_ends_it(child):
    child.process.stdin.write(b"print('hello')\n" * 10)
    child.wait(2)
    assert "Unreadable message" in child.log.read_text()


def test_a_parent_that_no_longer_reads_ends_it(child):
    child.process.stdout.close()
    child.job("a", seconds=30)
    child.wait(2)


def test_a_long_log_is_put_aside(root, tmp_path):
    log = tmp_path / "engine.log"
    log.write_bytes(b"old\n" * (worker.LOG_LIMIT // 4 + 1))
    child = Child(root, log)
    child.process.stdin.close()
    child.wait(2)
    child.process.stdout.close()
    assert log.stat().st_size < 1000
    assert (tmp_path / "engine.log.1").stat().st_size > worker.LOG_LIMIT


def test_neither_the_catalogue_nor_the_client_imports_torch_or_bpy(root):
    code = (
        "import sys, engine.client, engine.worker, engine.__main__, engine.jobs as j\n"
        "[j.describe(j.load(n)) for n in j.names()]\n"
        "print([m for m in ('torch', 'bpy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_catalogue():
    assert "selftest" in jobs.names()
    job = jobs.load("selftest")
    described = jobs.describe(job)
    assert [p["name"] for p in described["params"]] == [p.name for p in job.params]
    assert job.checked({"steps": 2})["steps"] == 2
    with pytest.raises(ParameterError, match="no job named"):
        jobs.load("base")


def test_released_memory_goes_through_the_caches(monkeypatch):
    monkeypatch.setattr(jobs, "_at_release", [])
    emptied = []
    jobs.at_release(lambda: emptied.append(True))
    jobs.release_memory()
    assert emptied == [True]


def failure_of(function) -> dict[str, str]:
    try:
        function()
    except BaseException as error:
        return describe(error)
    raise AssertionError("it did not fail")


def raiser(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (NoFaceError("No face was found.", "Place the points."), "no-face", "No face"),
        (MemoryError(), "memory", "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "memory", ""),
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."),
            "memory",
            "graphics",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "output", "full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "output", "/x/y"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "engine-setup", "no torch"),
        (ImportError("cannot import name", name="torch.nn"), "engine-setup", "cannot load torch"),
        (ModuleNotFoundError("engine.x", name="engine.x"), "internal", "engine.x"),
        (ValueError("two\nlines."), "internal", "ValueError: two lines."),
        (KeyboardInterrupt(), "internal", "KeyboardInterrupt"),
    ],
)
def test_words_for_failures(error, kind, words):
    failure = failure_of(raiser(error))
    assert failure["kind"] == kind
    assert words in failure["sentence"]
    assert "\n" not in failure["sentence"] + failure["remedy"]
    assert not failure["sentence"].endswith("..")


def test_a_package_that_breaks_while_it_loads_is_a_matter_of_setup(tmp_path, monkeypatch):
    (tmp_path / "brokentorch.py").write_text("raise OSError('libcuda.so: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    failure = failure_of(lambda: __import__("brokentorch"))
    assert failure["kind"] == "engine-setup"
    assert "brokentorch" in failure["sentence"] and "libcuda" in failure["sentence"]
    assert sys.executable in failure["sentence"]


class Sink:
    """Takes what a _Report would send."""

    def __init__(self) -> None:
        self.sent = []

    def _send(self, event, job_id, arrays=None, **fields) -> None:
        self.sent.append((event, fields))


def test_reports_are_thinned_but_no_step_is_lost():
    sink = Sink()
    report = worker._Report(sink, "a")
    for i in range(1000):
        report.progress(i / 1000, "first")
        report.preview(np.zeros((4, 4, 3), np.uint8))
    report.progress(0.999, "second")
    report.progress(1.0, "second")
    progress = [fields for event, fields in sink.sent if event == "progress"]
    assert [p["step"] for p in progress][0] == "first"
    assert [(p["step"], p["fraction"]) for p in progress][-2:] == [("second", 0.999), ("second", 1)]
    assert len(sink.sent) < 100


def test_a_preview_must_be_an_image():
    report = worker._Report(Sink(), "a")
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="preview"):
            report.preview(wrong)
        with pytest.raises(ValueError, match="item"):
            report.item({}, wrong)


def test_an_item_is_reported_before_its_job_hears_of_the_cancellation():
    got = []
    context = Context(
        is_cancelled=lambda: True, on_item=lambda meta, image: got.append((meta, image.shape))
    )
    with pytest.raises(Cancelled):
        context.item({"seed": 3}, np.zeros((2, 2, 3), np.uint8))
    assert got == [({"seed": 3}, (2, 2, 3))]


def test_seconds_left():
    assert worker.estimate_seconds_left(0.25, 10.0) == pytest.approx(30.0)
    assert worker.estimate_seconds_left(1.0, 10.0) == 0.0
    assert worker.estimate_seconds_left(0.25, 0.5) is None
    assert worker.estimate_seconds_left(0.0, 10.0) is None


def test_a_job_runs_without_a_worker():
    job = jobs.load("selftest")
    result = job.run(job.checked({"seconds": 0.0}), Context())
    assert result.meta["process"] == os.getpid()
