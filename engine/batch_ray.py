"""The jobs of a list on a Ray cluster (`python -m engine batch --ray ADDRESS`). Ray is an optional
package of PyPI, on this machine and on the cluster's.

As on any render farm, every machine sees the checkout, the manifest's folder and the input files
at the same paths. A task whose machine dies is started again elsewhere. What it had finished is not
done again: the last thing that a task writes into its folder is a note of what it did.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from . import batch, jobs
from .errors import TriplaneError
from .failures import describe
from .jobs.base import Context

NOTE = ".batch.json"
RETRIES = 10  # of a task whose machine dies


class RayError(TriplaneError):
    """The cluster cannot be used."""

    kind = "engine-setup"


def runners(address: str, device: str, precision: str) -> list[batch.Runner]:
    """One runner a processor of the cluster at `address` ("local" for one on this machine, "auto"
    for the one that runs here). Raises RayError."""
    try:
        import ray
    except ImportError as error:
        raise RayError(
            "This Python has no ray.", "Install it: python -m pip install ray"
        ) from error
    root, here = str(Path(__file__).resolve().parent.parent), os.getcwd()
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="warning",
            ignore_reinit_error=True,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RayError(
            f"There is no Ray cluster at {address}: {str(error)[:200]}.", "Check the address."
        ) from error

    def start(*given: Any) -> dict[str, Any]:
        # Sent as it is: it must find the engine by itself, without Ray's agents for that.
        import sys

        if root not in sys.path:
            sys.path.insert(0, root)
        from engine.batch_ray import perform_once

        return perform_once(*given)

    task = ray.remote(max_retries=RETRIES, num_cpus=1)(start)

    def runner(job: str, params: dict[str, Any], out: Path) -> list[str]:
        answer = ray.get(task.remote(here, job, params, str(out), device, precision))
        if "failure" in answer:
            raise _Elsewhere(answer["failure"])
        return answer["files"]

    return [runner] * max(1, int(ray.cluster_resources().get("CPU", 1)))


class _Elsewhere(TriplaneError):
    """What another machine said of a failure."""

    def __init__(self, words: dict[str, str]) -> None:
        super().__init__(words["sentence"], words["remedy"])


def perform_once(
    here: str, job: str, params: dict[str, Any], out: str, device: str, precision: str
) -> dict[str, Any]:
    """Run a job in this process, in the folder `here`, unless its note says that this was done.
    Returns {"files": paths} or {"failure": what failures.describe says}."""
    os.chdir(here)
    note = Path(out) / NOTE
    key = batch.Item(0, job, params, out).key()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(note.read_text("utf-8"))
        if said["key"] == key and all(map(os.path.exists, said["files"])):
            return {"files": said["files"]}
    try:
        result = jobs.load(job).run(params, Context(device=device, precision=precision))
        files = batch.write_result(result, Path(out))
        from .surface.export import write_whole

        write_whole({note: json.dumps({"key": key, "files": files}).encode()})
    except Exception as error:
        return {"failure": describe(error)}
    return {"files": files}
