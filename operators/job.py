"""What operators share that have the engine work: modal in the interface, blocking in scripts."""

import threading
import time

import bpy

from ..engine.errors import Cancelled, TriplaneError
from . import polls, session

TICK = 0.1  # seconds between looks at the engine's events


class JobOperator:
    """Mix-in of an operator that runs one job.

    In the interface the operator is modal on a timer and Blender stays alive; called from a script
    (EXEC_DEFAULT) or without windows it blocks, and its errors become Python exceptions.

    A subclass says what to run and what becomes of the result:
    job, title, place: the job's name in the catalogue, the panel's heading while it runs, and the
        panel that shows it (see session.Running).
    setup(context): the job's parameters; raise TriplaneError when they cannot be had.
    item(context, event): a finished part of the result {meta, image}, on the main thread; every one
        comes, in order, before the result.
    prepare(result): the slow half of taking in the result; runs in a thread, touches no Blender
        data; what it returns goes to finish.
    finish(context, prepared): the quick half, on the main thread.
    cleanup(): whatever the ending; remove temporary files here.
    """

    job = ""
    title = ""
    place = "photo"

    @classmethod
    def poll(cls, context):
        return polls.idle(cls)

    def setup(self, context):
        raise NotImplementedError

    def item(self, context, event):
        session.thumbnails.show(event["image"])

    def prepare(self, result):
        return result

    def finish(self, context, prepared):
        raise NotImplementedError

    def cleanup(self):
        pass

    # Called by a script, or without a window: block.

    def execute(self, context):
        try:
            parameters = self.setup(context)
            self.finish(context, self.prepare(self._wait_for(context, parameters)))
        except TriplaneError as error:
            if error.kind != "cancelled":
                return self._fail(error)
            self.report({"INFO"}, "Cancelled")
            return {"CANCELLED"}
        except Exception as error:
            return self._fail(unexpected(error))
        finally:
            self.cleanup()
        return {"FINISHED"}

    def _wait_for(self, context, parameters):
        def tell(event):
            if event["event"] == "item":
                self.item(context, event)
            elif event["event"] == "progress":
                # One line a step, for whoever watches a script run.
                step = self.overall(event)[0]
                if step != getattr(self, "_told", ""):
                    self._told = step
                    print(f"Triplane: {step}", flush=True)

        return session.run_blocking(self.job, parameters, on_event=tell)

    def overall(self, event):
        """(step, fraction, seconds left) to show for a progress event."""
        return event["step"], event["fraction"], event["seconds_left"]

    # Called from the interface: look at the engine now and then.

    def invoke(self, context, event):
        if bpy.app.background or context.window is None:
            return self.execute(context)
        if session.running() is not None:
            self.report({"WARNING"}, "Another job is still running")
            return {"CANCELLED"}
        try:
            parameters = self.setup(context)
        except TriplaneError as error:
            self.cleanup()
            session.end(error, self.place)
            return self._fail(error)
        self._id = session.submit(self.job, parameters)
        self._running = session.begin(self._id, self.title, parameters.get("photo", ""), self.place)
        self._thread = None
        self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
        context.window_manager.modal_handler_add(self)
        session.redraw()
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        if session.running() is not self._running:  # the extension was disabled meanwhile
            self._release(context)
            return {"CANCELLED"}
        start = time.perf_counter()
        try:
            ready = self._advance(context)
        except TriplaneError as error:
            return self._end(context, error)
        except Exception as error:
            return self._end(context, unexpected(error))
        running = self._running
        running.longest_tick = max(running.longest_tick, time.perf_counter() - start)
        if not ready:
            return {"PASS_THROUGH"}
        try:
            self.finish(context, self._prepared)
        except TriplaneError as error:
            return self._end(context, error)
        except Exception as error:
            return self._end(context, unexpected(error))
        return self._end(context, None)

    def cancel(self, context):
        """Blender ends the operator itself: it quits, or opens another file."""
        session.forget(self._id)
        self._end(context, Cancelled())

    def _advance(self, context):
        """Take in new events; True once the result is ready to be finished. Raises what failed."""
        if self._thread is not None:
            if self._thread.is_alive():
                return False
            if self._trouble is not None:
                raise self._trouble
            return True
        events = session.poll(self._id)
        running, preview = self._running, None
        for event in events:
            kind = event["event"]
            if kind == "queued":
                running.step = "Waiting for another job"
            elif kind == "starting":
                running.step = "Starting the engine"
            elif kind == "progress":
                running.step, running.fraction, running.seconds_left = self.overall(event)
                if running.state == "starting":
                    running.state = "working"
            elif kind == "preview":
                preview = event["image"]
            elif kind == "item":
                self.item(context, event)
            elif kind == "failed":
                raise failed(event)
            elif kind == "result":
                running.state = "importing"
                done = {"step": "Importing", "fraction": 1.0, "seconds_left": None}
                running.step, running.fraction, running.seconds_left = self.overall(done)
                self._begin_preparing(event)
        if preview is not None:
            session.thumbnails.show(preview)
        if events:
            session.redraw()
        return False

    def _begin_preparing(self, result):
        self._prepared, self._trouble = None, None

        def work():
            try:
                self._prepared = self.prepare(result)
            except Exception as error:  # handed to the main thread, which reports it
                self._trouble = error

        self._thread = threading.Thread(target=work, name="triplane-prepare", daemon=True)
        self._thread.start()

    def _release(self, context):
        context.window_manager.event_timer_remove(self._timer)
        self.cleanup()

    def _end(self, context, error):
        self._release(context)
        if isinstance(error, Cancelled):
            session.end()
            self.report({"INFO"}, "Cancelled")
            return {"CANCELLED"}
        session.end(error, self.place)
        return {"FINISHED"} if error is None else self._fail(error)

    def _fail(self, error):
        """Report an error; Blender raises it as RuntimeError where a script called."""
        self.report({"ERROR"}, f"{error.sentence} {error.remedy}".strip())
        return {"CANCELLED"}


def failed(event):
    """The exception of a failed event."""
    if event["kind"] == "cancelled":
        return Cancelled()
    error = TriplaneError(event["sentence"], event["remedy"])
    error.kind = event["kind"]
    return error


def unexpected(error):
    """A bug of ours, in a form that can be shown; the traceback goes to the console."""
    import traceback

    traceback.print_exception(error)
    result = TriplaneError(
        f"Something went wrong inside Triplane ({type(error).__name__}: {error}).",
        "Please report it with the text in Blender's console.",
    )
    result.kind = "internal"
    return result
