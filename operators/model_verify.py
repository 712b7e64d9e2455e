"""Is a model's file what it was when it was added?"""

import threading

import bpy
from bpy.props import StringProperty

from ..engine.checkpoints import registry
from ..engine.errors import Cancelled, TriplaneError, WeightsError
from . import models, polls, session
from .job import TICK, unexpected


class TRIPLANE_OT_model_verify(bpy.types.Operator):
    """Read the whole file and compare it with the hash that was kept when it was added"""

    bl_idname = "triplane.model_verify"
    bl_label = "Verify Model"

    name: StringProperty(name="Model", description="The model's name", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context):
        return polls.idle(cls)

    def execute(self, context):
        return self._end(self._verify(lambda: None))

    def invoke(self, context, event):
        if bpy.app.background or context.window is None:
            return self.execute(context)
        self._running = running = session.begin("", f"Verifying {self.name}", place="models")
        running.step, running.state = "Reading the file", "working"

        def check():
            if running.state == "cancelling" or session.running() is not running:
                raise Cancelled()

        def work():
            self._trouble = self._verify(check)

        self._thread = threading.Thread(target=work, name="triplane-verify", daemon=True)
        self._thread.start()
        self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
        context.window_manager.modal_handler_add(self)
        session.redraw()
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        if event.type != "TIMER" or self._thread.is_alive():
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        if session.running() is self._running:
            session.end(place="models")
        return self._end(self._trouble)

    def cancel(self, context):
        context.window_manager.event_timer_remove(self._timer)
        session.end()

    def _verify(self, check):
        """What is wrong, as an exception; None if nothing is."""
        self._stamp = None
        try:
            path = registry.model_path(models.folder(), self.name)
            self._stamp = models.stamp(path)
            registry.verify(path, check)
        except TriplaneError as error:
            return error
        except OSError as error:
            return WeightsError(f"{self.name} cannot be read: {error.strerror or error}.")
        except Exception as error:
            return unexpected(error)
        return None

    def _end(self, trouble):
        if isinstance(trouble, Cancelled):
            self.report({"INFO"}, "Cancelled")
            return {"CANCELLED"}
        if self._stamp is not None:
            models.checked[self._stamp] = trouble.sentence if trouble else ""
        session.redraw()
        if trouble:
            self.report({"ERROR"}, str(trouble))
            return {"CANCELLED"}
        self.report({"INFO"}, f"{self.name} is as it was when it was added")
        return {"FINISHED"}
