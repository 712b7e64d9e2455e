"""What would seeds look like? Small pictures of many."""

import bpy
from bpy.props import IntProperty

from . import sampling, session, shelf
from .job import JobOperator


class TRIPLANE_OT_gallery(JobOperator, sampling.Latent, bpy.types.Operator):
    """Make a small picture of every seed of the page; those that are there already are kept"""

    bl_idname = "triplane.gallery"
    bl_label = "Show Seeds"

    job = "gallery"
    place = "gallery"

    first: sampling.seed("First Seed", "The first seed")
    count: IntProperty(
        name="Seeds",
        description="How many seeds",
        default=shelf.PAGE,
        min=1,
        max=1000,
        options={"SKIP_SAVE"},
    )
    size: IntProperty(
        name="Size",
        description="Width and height of a picture",
        subtype="PIXEL",
        default=128,
        min=16,
        max=1024,
        options={"SKIP_SAVE"},
    )

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says."""
        sampling.fill(self, context, ("first", *sampling.NAMES))
        sampling.settings(context).first = self.first
        if not shelf.missing(shelf.key(self), self.first, self.count):
            session.redraw()
            return {"FINISHED"}
        return super().invoke(context, event)

    def setup(self, context):
        self._key = shelf.key(self)
        missing = shelf.missing(self._key, self.first, self.count) or [self.first]
        first = missing[0]
        count = min(missing[-1], sampling.LAST_SEED) - first + 1
        self.title = f"Pictures of {count} seeds" if count > 1 else "Picture of one seed"
        return self.latent() | {"first": first, "count": count, "size": self.size}

    def item(self, context, event):
        shelf.put(self._key, event["meta"]["seed"], event["image"])

    def finish(self, context, prepared):
        self.report({"INFO"}, f"{len(prepared['meta']['seeds'])} seeds have pictures")
