"""What operators share that run several jobs one after another: N heads from one call."""

import time
from dataclasses import dataclass

from ..engine.errors import Cancelled, TriplaneError
from . import session
from .job import JobOperator, unexpected

FOR_ALL = {"engine-setup", "weights"}  # what fails for one head would fail for all others


@dataclass(frozen=True)
class Task:
    """One of the jobs: what the artist knows it as, and its parameters."""

    name: str
    parameters: dict


class BatchOperator(JobOperator):
    """Mix-in of an operator that runs `job` once for every task.

    A job that fails is skipped and named at the end; cancelling keeps what is finished. All of it
    is one undo step. A subclass says

    tasks(context): what to do, at least one Task; raise TriplaneError when they cannot be had.
    finish_task(context, index, prepared): take in one result, on the main thread.
    conclude(context, done): when all is over; done: the indices of the tasks that went well, at
        least one. Returns the sentence to report.
    """

    def tasks(self, context):
        raise NotImplementedError

    def finish_task(self, context, index, prepared):
        raise NotImplementedError

    def conclude(self, context, done):
        raise NotImplementedError

    def setup(self, context):
        self._tasks = self.tasks(context)
        self._index, self._done, self._failures, self._cancelled = 0, [], [], False
        self._started = time.monotonic()
        return self._tasks[0].parameters

    def finish(self, context, prepared):
        self.finish_task(context, self._index, prepared)

    def overall(self, event):
        """The step says which task of how many; the fraction is of all of them."""
        count = len(self._tasks)
        fraction = (self._index + event["fraction"]) / count
        elapsed = time.monotonic() - self._started
        left = elapsed * (1 - fraction) / fraction if fraction > 0.03 and elapsed > 1 else None
        return f"{self._index + 1} of {count}: {event['step']}", fraction, left

    def execute(self, context):
        try:
            try:
                self.setup(context)
            except TriplaneError as error:
                return self._fail(error)
            while True:
                try:
                    result = self._wait_for(context, self._tasks[self._index].parameters)
                    self.finish(context, self.prepare(result))
                    error = None
                except TriplaneError as trouble:
                    error = trouble
                except Exception as trouble:
                    error = unexpected(trouble)
                if not self._goes_on(error):
                    return self._outcome(context)
        finally:
            self.cleanup()

    def cancel(self, context):
        session.forget(self._id)
        self._release(context)
        session.end()

    def _goes_on(self, error):
        """Note how the present task has ended; True if there is a next one, now the present."""
        if isinstance(error, Cancelled):
            self._cancelled = True
        elif error is None:
            self._done.append(self._index)
        else:
            self._failures.append((self._tasks[self._index].name, error))
        last = self._index + 1 == len(self._tasks)
        if self._cancelled or last or (error is not None and error.kind in FOR_ALL):
            return False
        self._index += 1
        return True

    def _end(self, context, error):
        if not self._goes_on(error):
            self._release(context)
            session.end(self._to_show(), self.place)
            return self._outcome(context)
        running = self._running
        self._thread = None
        self._id = running.job = session.submit(self.job, self._tasks[self._index].parameters)
        running.state = "working"
        session.redraw()
        return {"PASS_THROUGH"}

    def _to_show(self):
        """What the panel shall say has failed, if anything."""
        if not self._failures:
            return None
        name, error = self._failures[0]
        if not self._done:
            return error
        more = f" and {len(self._failures) - 1} more" if len(self._failures) > 1 else ""
        shown = TriplaneError(f"Left out: {name}{more}. {error.sentence}", error.remedy)
        shown.kind = error.kind
        return shown

    def _outcome(self, context):
        if not self._done:
            if self._failures:
                return self._fail(self._failures[0][1])
            self.report({"INFO"}, "Cancelled")
            return {"CANCELLED"}
        try:
            sentence = self.conclude(context, self._done)
        except Exception as error:
            return self._fail(error if isinstance(error, TriplaneError) else unexpected(error))
        if self._cancelled:
            sentence = f"Cancelled after {len(self._done)} of {len(self._tasks)}: {sentence}"
        if self._failures:
            trouble = "; ".join(f"{name}: {error.sentence}" for name, error in self._failures)
            self.report({"WARNING"}, f"{sentence}. Left out: {trouble}")
        else:
            self.report({"INFO"}, sentence)
        return {"FINISHED"}
