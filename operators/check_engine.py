"""Does the engine work here, and on what?"""

import bpy

from . import session
from .job import JobOperator


class TRIPLANE_OT_check_engine(JobOperator, bpy.types.Operator):
    """Start the engine once and say which Python, PyTorch and devices it has"""

    bl_idname = "triplane.check_engine"
    bl_label = "Check Engine"

    job = "selftest"
    title = "Checking the engine"

    def setup(self, context):
        session.engine_facts = ""
        return {"torch": True}

    def finish(self, context, prepared):
        facts = prepared["meta"]
        session.engine_facts = (
            f"Python {facts['python']}, PyTorch {facts['torch']} on {', '.join(facts['devices'])}"
        )
        self.report({"INFO"}, f"The engine works: {session.engine_facts}")
