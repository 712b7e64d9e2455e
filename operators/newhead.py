"""What operators share that bring one new head into the scene."""

import time

from ..engine.errors import OutputError
from . import session
from .build import head, views


class NewHead:
    """Mix-in: takes in a result of the jobs 'reconstruct' and 'sample'."""

    def prepare(self, result):
        return head.prepare(result["meta"], result["arrays"])

    def finish(self, context, prepared):
        start = time.perf_counter()
        made = build(context, prepared, self.kept())
        views.frame(context, [made])
        running = session.running()
        print(
            f"Triplane: imported {made.name} in {time.perf_counter() - start:.2f} s"
            + (f"; longest tick {running.longest_tick * 1000:.0f} ms" if running else ""),
            flush=True,
        )
        self.report({"INFO"}, f"{made.name} is ready")
        for sentence in head.quality(prepared.record)[1]:
            self.report({"WARNING"}, sentence)

    def kept(self):
        """The job's parameters that are recorded on the head."""
        raise NotImplementedError


def build(context, prepared, parameters, into=None, keep_field=True):
    """head.build, with the field where the preferences say, and trouble in a sentence."""
    keep = session.preferences(context).keep_field if keep_field else ""
    try:
        return head.build(context, prepared, parameters, keep, into)
    except OSError as error:
        raise OutputError(
            f"The field could not be written beside the .blend: {error.strerror or error}.",
            "Choose in the preferences to keep fields in the .blend, or free the folder.",
        ) from error
