"""Blender's side of the engine: it never waits, never hangs, and survives every death."""

from __future__ import annotations

import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from engine import wire
from engine.client import EngineClient, EngineSettings, JobFailed
from engine.process import child_environment

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals and shell scripts")


@pytest.fixture
def settings(root, tmp_path) -> EngineSettings:
    return EngineSettings(sys.executable, str(root), str(tmp_path / "log" / "engine.log"))


@pytest.fixture
def client(settings):
    client = EngineClient(settings)
    yield client
    client.close()
    assert client.state == "stopped"


def wait(client, job, until=("result", "failed"), limit=10.0) -> list[dict]:
    """The job's events up to the first of the names `until`, by polling as Blender does."""
    events, end = [], time.monotonic() + limit
    while not events or events[-1]["event"] not in until:
        assert time.monotonic() < end, f"only {events}"
        time.sleep(0.005)
        for event in client.poll(job):
            events.append(event)
            if event["event"] in until:
                break
    return events


def process_of(client) -> int:
    return client.run_blocking("selftest", {"seconds": 0})["meta"]["process"]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def gone_within(process: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_job_from_start_to_end(client):
    assert client.state == "stopped"
    job = client.submit("selftest", {"steps": 2, "seconds": 0.3})
    assert client.state in ("starting", "running")
    events = wait(client, job)
    names = [e["event"] for e in events]
    assert names[:2] == ["starting", "accepted"] and names[-1] == "result"
    assert {e["job"] for e in events} == {job}
    assert [e["step"] for e in events if e["event"] == "progress"] == ["step 1", "step 2"]
    assert [e["image"].shape for e in events if e["event"] == "preview"] == [(8, 8, 3)] * 2
    result = events[-1]
    assert result["arrays"]["image"].shape == (8, 8, 3)
    assert result["arrays"]["image"].flags.writeable
    assert set(result["timings"]) == {"step 1", "step 2"}
    assert client.poll(job) == [] and client.poll("no such job") == []
    assert client.state == "idle"
    client.cancel(job)  # too late: nothing happens
    client.forget(job)
    assert client.state == "idle"


def test_the_worker_stays_for_the_next_job(client):
    assert process_of(client) == process_of(client)


def test_a_failure_has_its_words(client):
    with pytest.raises(JobFailed) as caught:
        client.run_blocking("selftest", {"misbehave": "raise"})
    error = caught.value
    assert (error.kind, error.remedy) == ("reconstruction", "Tell it otherwise.")
    assert "Traceback" in error.traceback
    assert process_of(client)


def test_parameters_that_cannot_travel_fail(client):
    process = process_of(client)
    for note in (object(), "x" * (wire.MAX_HEADER + 1)):
        with pytest.raises(JobFailed, match="cannot be sent") as caught:
            client.run_blocking("selftest", {"note": note})
        assert caught.value.kind == "parameter"
    assert process_of(client) == process


@posix
@pytest.mark.parametrize("how", ["crash", "exit", "garbage"])
def test_a_worker_that_dies_fails_its_job_and_the_next_one_works(client, settings, how):
    first = process_of(client)
    job = client.submit("selftest", {"misbehave": how, "steps": 2, "seconds": 0.4})
    other = client.submit("selftest", {"seconds": 0})
    failure = wait(client, job)[-1]
    assert failure["event"] == "failed" and failure["kind"] == "worker"
    words = {"crash": "signal 9", "exit": "exit code 3", "garbage": "cannot be read"}
    assert words[how] in failure["sentence"]
    assert settings.log_path in failure["remedy"]
    result = wait(client, other)[-1]
    assert result["event"] == "result" and result["meta"]["process"] != first
    assert gone_within(first, 1)


@posix
def test_killed_from_outside_in_mid_job(client):
    process = process_of(client)
    job = client.submit("selftest", {"seconds": 30})
    wait(client, job, until=("progress",))
    os.kill(process, signal.SIGKILL)
    failure = wait(client, job, limit=2)[-1]
    assert failure["kind"] == "worker" and "signal 9" in failure["sentence"]
    assert process_of(client) != process


@posix
def test_killed_while_idle_goes_unnoticed(client):
    process = process_of(client)
    os.kill(process, signal.SIGKILL)
    assert process_of(client) != process


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.3])
def test_cancelled_at_any_moment_within_two_seconds(client, delay):
    job = client.submit("selftest", {"seconds": 60})
    time.sleep(delay)
    start = time.monotonic()
    client.cancel(job)
    failure = wait(client, job, limit=2)[-1]
    assert failure["event"] == "failed" and failure["kind"] == "cancelled"
    assert time.monotonic() - start < 2
    assert client.state != "running"
    assert process_of(client)


def test_a_deaf_job_is_killed_and_the_next_one_is_not_lost(client):
    process = process_of(client)
    deaf = client.submit("selftest", {"seconds": 60, "misbehave": "deaf", "steps": 1})
    other = client.submit("selftest", {"seconds": 0})
    wait(client, deaf, until=("preview",))  # its last look at us
    start = time.monotonic()
    client.cancel(deaf)
    assert wait(client, deaf, limit=2)[-1]["kind"] == "cancelled"
    assert time.monotonic() - start < 2
    assert gone_within(process, 0.5)
    assert wait(client, other)[-1]["event"] == "result"


def test_a_job_that_hears_is_not_killed(client):
    process = process_of(client)
    job = client.submit("selftest", {"seconds": 60})
    wait(client, job, until=("progress",))
    client.cancel(job)
    assert wait(client, job, limit=2)[-1]["kind"] == "cancelled"
    assert process_of(client) == process


def test_jobs_wait_for_their_turn(client):
    first = client.submit("selftest", {"seconds": 0.3})
    second = client.submit("selftest", {"seconds": 0})
    third = client.submit("selftest", {"seconds": 0})
    assert client.poll(second) == [{"event": "queued", "job": second, "ahead": 1}]
    assert client.poll(third) == [{"event": "queued", "job": third, "ahead": 2}]
    client.cancel(second)
    assert wait(client, second)[-1]["kind"] == "cancelled"
    assert client.poll(third) == [{"event": "queued", "job": third, "ahead": 1}]
    assert client.waiting in (1, 2)
    assert wait(client, first)[-1]["event"] == "result"
    assert wait(client, third)[-1]["event"] == "result"
    assert client.waiting == 0


def test_a_forgotten_job_stops_and_leaves_nothing(client):
    waiting = [client.submit("selftest", {"seconds": 60}) for _ in range(2)]
    wait(client, waiting[0], until=("progress",))
    for job in waiting:
        client.forget(job)
    assert process_of(client)
    assert client._jobs == {} and client.waiting == 0


def test_the_caller_never_waits(client):
    """50 MB come in while the caller looks: no call may take longer than a frame of the UI."""
    process_of(client)
    assert any(longest_call(client) < 0.05 for _ in range(3))


def rest(client, limit: float = 20.0) -> None:
    """Until all jobs are over. (A process is idle for a moment before it gets its job.)"""
    end = time.monotonic() + limit
    while (client.state != "idle" or client.waiting) and time.monotonic() < end:
        time.sleep(0.01)


def longest_call(client) -> float:
    """Seconds that one call took at most. (A busy machine gets three tries.)"""
    longest, ended, job = 0.0, False, None
    while not ended:
        start = time.perf_counter()
        if job is None:
            job = client.submit("selftest", {"seconds": 0.0, "size": 4096, "steps": 1})
        events = client.poll(job)
        longest = max(longest, time.perf_counter() - start)
        ended = bool(events) and events[-1]["event"] in ("result", "failed")
        time.sleep(0.002)
    assert events[-1]["arrays"]["image"].nbytes == 3 * 4096**2
    return longest


def test_only_the_newest_preview_is_kept(client):
    job = client.submit("selftest", {"seconds": 0.6, "steps": 5})
    rest(client)
    names = [e["event"] for e in client.poll(job)]
    assert names.count("preview") == 1 and names.count("progress") == 5 and names[-1] == "result"


def test_every_item_arrives_in_order_however_late_they_are_fetched(client):
    job = client.submit("selftest", {"seconds": 0.1, "steps": 3, "items": 40, "size": 3})
    rest(client)
    events = client.poll(job)
    items = [e for e in events if e["event"] == "item"]
    assert [e["meta"] for e in items] == [
        {"step": s, "item": i} for s in range(3) for i in range(40)
    ]
    assert {e["image"].shape for e in items} == {(3, 3, 3)} and events[-1]["event"] == "result"


def test_items_of_a_cancelled_job_are_kept(client):
    job = client.submit("selftest", {"seconds": 60, "items": 2, "steps": 1})
    wait(client, job, until=("item",))
    client.cancel(job)
    events = wait(client, job, limit=2)
    assert events[-1]["kind"] == "cancelled"
    assert [e["meta"]["item"] for e in events if e["event"] == "item"] in ([], [1])


def test_an_idle_worker_is_ended(client, settings):
    client.configure(replace(settings, idle_seconds=0.3))
    process = process_of(client)
    assert gone_within(process, 3)
    client.configure(replace(settings, idle_seconds=math.inf))
    assert process_of(client) != process


def test_other_settings_start_another_worker(client, settings):
    process = process_of(client)
    client.configure(replace(settings))
    client.release()
    assert process_of(client) == process
    client.configure(replace(settings, env=(("OMP_NUM_THREADS", "3"),)))
    assert process_of(client) != process
    assert gone_within(process, 1)


def test_close_ends_everything(settings):
    client = EngineClient(settings)
    process = process_of(client)
    jobs = [client.submit("selftest", {"seconds": 60, "misbehave": "deaf"}) for _ in range(2)]
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 1
    assert not is_alive(process)
    for job in jobs:
        assert client.poll(job)[-1]["kind"] == "cancelled"
    client.close()
    with pytest.raises(RuntimeError):
        client.submit("selftest")


def test_an_interrupted_wait_stops_the_job(client):
    def interrupt(event):
        if event["event"] == "progress":
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        client.run_blocking("selftest", {"seconds": 60}, on_event=interrupt)
    assert time.monotonic() - start < 3
    assert client.state != "running" and client._jobs == {}


def test_an_interpreter_that_is_not_there(client, settings):
    client.configure(replace(settings, python="/no/such/python"))
    job = client.submit("selftest")
    failure = wait(client, job)[-1]
    assert failure["kind"] == "engine-setup"
    assert "/no/such/python" in failure["sentence"] and "preferences" in failure["remedy"]
    client.configure(settings)
    assert process_of(client)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@posix
@pytest.mark.parametrize(
    "text, words",
    [
        ("#!/bin/sh\nexit 0\n", "did not start"),
        ("#!/bin/sh\necho 'I am no Python'\n", "did not start"),
        ("#!/bin/sh\necho No module named numpy >&2; exit 1\n", "No module named numpy"),
        ("not even a script", "did not start"),
    ],
)
def test_an_interpreter_that_is_none(client, settings, tmp_path, text, words):
    client.configure(replace(settings, python=script(tmp_path / "python", text)))
    for _ in range(2):
        with pytest.raises(JobFailed) as caught:
            client.run_blocking("selftest")
        assert caught.value.kind == "engine-setup"
        assert words in caught.value.sentence


def test_a_worker_that_never_gets_ready(client, settings, tmp_path, monkeypatch):
    import engine.client

    monkeypatch.setattr(engine.client, "STARTUP_LIMIT", 0.3)
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "engine").mkdir()
    (slow / "engine" / "worker.py").write_text("import time; time.sleep(60)")
    client.configure(replace(settings, engine_root=str(slow)))
    failure = wait(client, client.submit("selftest"), limit=3)[-1]
    assert failure["kind"] == "engine-setup" and "too long" in failure["sentence"]


@posix
def test_paths_with_spaces_and_letters_of_the_world(client, settings, root, tmp_path):
    odd = tmp_path / "Köpfe und 日本語 'x'"
    light = shutil.ignore_patterns("__pycache__", "training", "*.safetensors", "weights")
    shutil.copytree(root / "engine", odd / "ext" / "engine", ignore=light)
    python = script(odd / "my python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    log = odd / "log" / "engine.log"
    client.configure(EngineSettings(python, str(odd / "ext"), str(log)))
    note = str(odd / "фото.png")
    assert client.run_blocking("selftest", {"note": note, "seconds": 0})["meta"]["note"] == note
    assert "фото.png" in log.read_text("utf-8")


def test_nothing_of_the_surroundings_leaks_in(client, settings, tmp_path, monkeypatch):
    fake = tmp_path / "fake"
    fake.mkdir()
    for name in ("numpy", "sitecustomize", "engine", "json"):
        (fake / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.setenv("PYTHONPATH", str(fake))
    monkeypatch.setenv("PYTHONHOME", str(fake))
    monkeypatch.setenv("PYTHONSTARTUP", str(fake / "numpy.py"))
    monkeypatch.chdir(fake)
    assert process_of(client)


def test_environment():
    settings = EngineSettings("python", "/x", "/x/log", env=(("A", "2"), ("B", "3")))
    given = {"A": "1", "PYTHONPATH": "/p", "PythonHome": "/h", "PATH": "/bin"}
    env = child_environment(settings, given)
    assert (env["A"], env["B"], env["PATH"]) == ("2", "3", "/bin")
    assert not [k for k in env if k.upper().startswith("PYTHON")]
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert child_environment(settings, {"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"] == "ACTIVE"


def test_extra_paths_are_seen_after_the_interpreters_own(client, settings, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a_package_that_nobody_has.py").write_text("")
    (wheels / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    client.configure(replace(settings, extra_paths=(str(wheels),)))
    client.run_blocking("selftest", {"misbehave": "import"})


@posix
@pytest.mark.parametrize("how", ["none", "deaf"])
def test_the_worker_ends_when_blender_is_killed(root, settings, how):
    code = f"""
import sys, time
from engine.client import EngineClient, EngineSettings
client = EngineClient(EngineSettings({settings.python!r}, {str(root)!r}, {settings.log_path!r}))
print(client.run_blocking("selftest", {{"seconds": 0}})["meta"]["process"], flush=True)
job = client.submit("selftest", {{"seconds": 60, "misbehave": {how!r}, "steps": 1}})
while not any(e["event"] == "progress" for e in client.poll(job)):
    time.sleep(0.01)
print("running", flush=True)
time.sleep(60)
"""
    blender = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE)
    process = int(blender.stdout.readline())
    assert blender.stdout.readline() == b"running\n"
    assert is_alive(process)
    blender.kill()
    blender.communicate()
    assert gone_within(process, 2)


def test_a_script_that_ends_without_closing_leaves_no_process(root, settings):
    code = f"""
from engine.client import EngineClient, EngineSettings
client = EngineClient(EngineSettings({settings.python!r}, {str(root)!r}, {settings.log_path!r}))
print(client.run_blocking("selftest", {{"seconds": 0}})["meta"]["process"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 0 and done.stderr == ""
    assert not is_alive(int(done.stdout))


def test_as_a_part_of_an_extension(root, settings, tmp_path):
    """In Blender this package is <extension>.engine: nothing in it may rely on the name engine."""
    package = tmp_path / "bl_ext_triplane"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "engine").symlink_to(root / "engine", target_is_directory=True)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from bl_ext_triplane.engine import jobs
from bl_ext_triplane.engine.client import EngineClient, EngineSettings
assert [jobs.load(n).params for n in jobs.names()]
client = EngineClient(EngineSettings({settings.python!r}, {str(root)!r}, {settings.log_path!r}))
client.run_blocking("selftest", {{"seconds": 0}})
print("engine" in sys.modules, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=10
    )
    assert done.stdout.split() == ["False", "False"], done.stderr
