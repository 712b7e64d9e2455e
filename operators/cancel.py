"""Stop the job that runs."""

import bpy

from . import session


class TRIPLANE_OT_cancel(bpy.types.Operator):
    """Stop the running job; nothing of it remains"""

    bl_idname = "triplane.cancel"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context):
        running = session.running()
        if running is None:
            cls.poll_message_set("No job is running")
            return False
        return running.state in {"starting", "working"}

    def execute(self, context):
        running = session.running()
        running.state, running.step, running.seconds_left = "cancelling", "Cancelling", None
        session.cancel(running.job)
        session.redraw()
        return {"FINISHED"}
