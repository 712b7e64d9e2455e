"""A list of jobs on a local Ray cluster of two machines, one of which dies in the middle.

Ray is optional and large, so it is in no lock file: `pip install ray` to run this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from engine import batch

pytestmark = pytest.mark.slow


def test_half_of_the_cluster_dies(tmp_path, root):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0)  # the head: it only keeps the books
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        manifest = tmp_path / "list.jsonl"
        rows = [
            {"job": "selftest", "out": f"out {i}", "params": {"seconds": 1.5, "note": str(i)}}
            for i in range(8)
        ]
        rows.append({"job": "selftest", "out": "bad", "params": {"misbehave": "error"}})
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        journal = batch.journal_path(manifest)
        command = [sys.executable, "-m", "engine", "batch", str(manifest), "--json"]
        command += ["--ray", cluster.address]
        child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_text().count("\n") >= 2):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        before = {f: f.stat().st_mtime_ns for f in tmp_path.glob("out */report.json")}
        cluster.remove_node(nodes[0], allow_graceful=False)
        answer, _ = child.communicate(timeout=240)
    finally:
        cluster.shutdown()
    facts = json.loads(answer)
    assert facts["done"] == 8 and [f["line"] for f in facts["failed"]] == [9]
    ended = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sorted(facts["line"] for facts in ended) == list(range(1, 10))
    for i in range(8):
        assert json.loads((tmp_path / f"out {i}" / "report.json").read_text())["note"] == str(i)
    # What had ended before was not touched again.
    assert before == {f: f.stat().st_mtime_ns for f in before}
