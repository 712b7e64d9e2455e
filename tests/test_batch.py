"""Lists of jobs: what they say, what is skipped, what a failure or a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine import batch
from engine.errors import NoFaceError, ParameterError


def write(path: Path, *rows: dict | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def row(number: int, **params) -> dict:
    return {"job": "selftest", "out": f"out {number}", "params": params}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def worker(work=lambda job, params, out: None, log=None):
    """A runner that writes a file and notes what it did."""

    def perform(job, params, out):
        if log is not None:
            log.append((job, params["note"], str(out)))
        work(job, params, out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text("{}")
        return [str(out / "report.json")]

    return perform


def run(manifest: Path, *runners) -> list[batch.Outcome]:
    outcomes = []
    journal = batch.Journal(batch.journal_path(manifest))
    batch.run(batch.read_manifest(manifest), journal, list(runners), outcomes.append)
    return outcomes


def test_json_lines_and_tables_say_the_same(here):
    lines = write(
        here / "list.jsonl",
        {"job": "views", "out": "a", "params": {"field": "x.safetensors", "size": 64,
                                                 "orthographic": True}},
        "",
        {"job": "selftest", "out": "b", "params": {"seconds": 1.5, "note": "zoë, twice"}},
    )  # fmt: skip
    table = here / "list.csv"
    table.write_text(
        "\ufeffjob,out,field,size,orthographic,seconds,note\n"
        "views,a,x.safetensors,64,yes,,\n"
        'selftest,b,,,,1.5,"zoë, twice"\n',
        "utf-8",
    )
    first, second = batch.read_manifest(lines), batch.read_manifest(table)
    assert [i.params for i in first] == [i.params for i in second]
    assert [i.line for i in first] == [1, 3] and [i.line for i in second] == [2, 3]
    assert first[0].params["folder"] == "a" and first[0].params["size"] == 64
    assert [i.key() for i in first] == [i.key() for i in second]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "JSON object"),
        ("[1]", "JSON object"),
        ('{"job": "selftest"}', "no out"),
        ('{"out": "x"}', "no job"),
        ('{"job": "dance", "out": "x"}', "no job named dance"),
        ('{"job": "selftest", "out": "x", "params": {"colour": 1}}', "colour"),
        ('{"job": "selftest", "out": "x", "params": {"seconds": -1}}', "at least"),
        ('{"job": "selftest", "out": "./out 1"}', "earlier line"),
    ],
)
def test_a_bad_line_is_listed_and_the_others_are_done(here, line, words):
    manifest = write(here / "list.jsonl", row(1), line, row(2))
    outcomes = run(manifest, worker())
    assert [o.ok for o in sorted(outcomes, key=lambda o: o.item.line)] == [True, False, True]
    bad = next(o for o in outcomes if not o.ok)
    assert bad.item.line == 2 and words in bad.reason


@pytest.mark.parametrize("cell", ["seconds\nselftest,a,soon", "torch\nselftest,a,perhaps"])
def test_a_cell_of_the_wrong_type(here, cell):
    (here / "list.csv").write_text(f"job,out,{cell}\n")
    (item,) = batch.read_manifest(here / "list.csv")
    assert "must be of type" in item.problem


def test_a_manifest_that_is_none(here):
    with pytest.raises(ParameterError, match="cannot be read"):
        batch.read_manifest(here / "nowhere.jsonl")


def test_done_once_and_failures_tried_again(here):
    manifest = write(here / "list.jsonl", *(row(i, note=str(i)) for i in range(4)))
    log = []

    def fail(job, params, out):
        if params["note"] == "2":
            raise NoFaceError("No face was found.", "Place the points.")

    first = run(manifest, worker(fail, log))
    assert [o.ok for o in first] == [True, True, False, True]
    assert first[2].reason == "No face was found. Place the points."
    log.clear()
    again = run(manifest, worker(log=log))
    assert [o.skipped for o in again] == [True, True, False, True] and all(o.ok for o in again)
    assert [note for _, note, _ in log] == ["2"]
    # A lost file, another parameter: those only.
    (here / "out 1" / "report.json").unlink()
    write(manifest, row(0, note="0"), row(1, note="1"), row(2, note="2"), row(3, note="new"))
    log.clear()
    run(manifest, worker(log=log))
    assert [note for _, note, _ in log] == ["1", "new"]


def test_a_changed_input_file_is_worked_on_again(here):
    photo = here / "photo.png"
    photo.write_bytes(b"one")
    manifest = write(here / "list.jsonl", row(1, note="photo.png"))
    assert not run(manifest, worker())[0].skipped
    assert run(manifest, worker())[0].skipped
    photo.write_bytes(b"other")
    assert not run(manifest, worker())[0].skipped


def test_a_journal_cut_short_forgets_only_its_last_line(here):
    manifest = write(here / "list.jsonl", row(1), row(2))
    run(manifest, worker())
    path = batch.journal_path(manifest)
    path.write_bytes(path.read_bytes()[:-30])
    assert [o.skipped for o in run(manifest, worker())] == [True, False]
    assert [o.skipped for o in run(manifest, worker())] == [True, True]


def test_as_many_at_a_time_as_there_are_workers(here):
    manifest = write(here / "list.jsonl", *(row(i) for i in range(6)))
    meeting = threading.Barrier(3, timeout=20)
    busy, most = [], []

    def work(job, params, out):
        busy.append(out)
        meeting.wait()  # no one gets on before three are here
        most.append(len(busy))
        meeting.wait()
        busy.remove(out)

    assert all(o.ok for o in run(manifest, *(worker(work) for _ in range(3))))
    assert max(most) == 3 and len(most) == 6


def test_some_lines_only(here):
    manifest = write(here / "list.jsonl", *(row(i) for i in range(1, 8)))
    items = batch.read_manifest(manifest)
    for lines, expected in (("3", [3]), ("2-4", [2, 3, 4]), ("1, 6-9", [1, 6, 7]), ("9", [])):
        assert [i.line for i in batch.only_lines(items, lines)] == expected
    for lines in ("", "x", "3-", "-3", "1;2"):
        with pytest.raises(ParameterError, match="no line"):
            batch.only_lines(items, lines)
    assert batch.journal_path(manifest, "2-4").name == "list.jsonl.2-4.done.jsonl"


@pytest.mark.slow
def test_a_farms_tasks(tmp_path, root):
    """The Flamenco job type, compiled as its manager does it; then one of its tasks."""
    if shutil.which("node") is None:
        pytest.skip("no node to run the job type's script")
    manifest = write(tmp_path / "list.jsonl", *(row(i, note=str(i)) for i in range(1, 6)))
    settings = {"manifest": str(manifest), "lines": "1-5", "chunk_size": 2, "device": "cpu"}
    settings |= {"python": sys.executable, "checkout": str(root)}
    script = (root / "examples" / "flamenco" / "triplane_batch.js").read_text("utf-8")
    script += """
const tasks = [];
const author = {
    Task: (name, type) => ({ name, type, commands: [], addCommand(c) { this.commands.push(c); } }),
    Command: (name, parameters) => ({ name, parameters }),
};
function frameChunker(lines, size) {  // as Flamenco has it, for one range
    const [first, last] = lines.split("-").map(Number), out = [];
    for (let i = first; i <= last; i += size) {
        const end = Math.min(i + size - 1, last);
        out.push(i === end ? `${i}` : `${i}-${end}`);
    }
    return out;
}
const settings = JSON.parse(process.argv[1]);
const named = JOB_TYPE.settings.map(s => s.key);
if (!Object.keys(settings).every(key => named.includes(key))) throw "unknown setting";
compileJob({ settings, addTask: t => tasks.push(t) });
console.log(JSON.stringify(tasks));
"""
    command = ["node", "-e", script, json.dumps(settings)]
    tasks = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [t["name"] for t in tasks] == ["lines-1-2", "lines-3-4", "lines-5"]
    (last,) = tasks[2]["commands"]
    assert last["name"] == "exec"
    done = subprocess.run(
        [last["parameters"]["exe"], *last["parameters"]["args"]],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "done: 1" in done.stdout
    assert (tmp_path / "out 5").is_dir() and not (tmp_path / "out 4").exists()


def engine(root: Path, *arguments: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "engine", "batch", *arguments],
        cwd=root, capture_output=True, text=True, timeout=120, **more,
    )  # fmt: skip


def test_from_the_command_line(tmp_path, root):
    manifest = write(
        tmp_path / "list.jsonl",
        row(1, note="fine"),
        row(2, misbehave="exit"),
        row(3, misbehave="raise"),
        row(4, note="fine, too"),
    )
    done = engine(root, str(manifest), "--json")
    assert done.returncode == 1
    facts = json.loads(done.stdout)
    assert not facts["ok"] and facts["done"] == 2 and facts["skipped"] == 0
    assert [f["line"] for f in facts["failed"]] == [2, 3]
    assert (tmp_path / "out 4" / "report.json").is_file()  # a dead worker is replaced
    assert "4 of 4: line 4: selftest into out 4 took" in done.stderr
    write(manifest, row(1, note="fine"), row(4, note="fine, too"))
    done = engine(root, str(manifest))
    assert done.returncode == 0 and "there already: 2" in done.stdout
    missing = engine(root, str(tmp_path / "nowhere.csv"))
    assert missing.returncode == 2 and "cannot be read" in missing.stderr


@pytest.mark.slow
def test_killed_in_the_middle(tmp_path, root):
    """Nothing is lost, nothing is done twice, no process stays."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no such signal on this system")
    manifest = write(tmp_path / "list.jsonl", *(row(i, seconds=0.4, note=str(i)) for i in range(6)))
    journal = batch.journal_path(manifest)
    command = [sys.executable, "-m", "engine", "batch", str(manifest), "--workers", "2"]
    child = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if journal.exists() and journal.read_text().count("\n") >= 2:
            break
        assert child.poll() is None
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = journal.read_text().count("\n")
    assert 2 <= before < 6
    done = engine(root, str(manifest), "--json")
    facts = json.loads(done.stdout)
    assert facts["ok"] and facts["skipped"] == before and facts["done"] == 6 - before
    ended = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sorted(facts["line"] for facts in ended) == [1, 2, 3, 4, 5, 6]
    notes = [json.loads((tmp_path / f"out {i}" / "report.json").read_text()) for i in range(6)]
    assert [facts["note"] for facts in notes] == [str(i) for i in range(6)]
    # The killed one's workers end by themselves, as nobody speaks to them any more.
    workers = {
        json.loads((tmp_path / f"out {i}/report.json").read_text())["process"] for i in range(6)
    }
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A dead child of a killed parent may wait for somebody to read its end.
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
