"""A seed becomes a head."""

import bpy
from bpy.props import FloatProperty, StringProperty

from . import sampling, session
from .headlist import HeadList
from .job import JobOperator
from .newhead import NewHead


class TRIPLANE_OT_sample_head(
    NewHead,
    HeadList,
    sampling.Latent,
    sampling.Mixing,
    sampling.Mesh,
    JobOperator,
    bpy.types.Operator,
):
    """Make a new head that nobody has: with texture, camera and radiance field"""

    bl_idname = "triplane.sample_head"
    bl_label = "Make Head"
    bl_options = {"UNDO"}

    job = "sample"
    place = "seed"

    seed: sampling.seed("Seed", "Which head: every number is another one, and always the same")
    heads: StringProperty(
        name="Heads",
        description="Instead of a seed: heads to blend, as in 'Between Heads'; see 'Place'",
        options={"SKIP_SAVE"},
    )
    at: FloatProperty(
        name="Place",
        description="Where on the way through the heads: 0 is the first, 1 the second",
        default=0.0,
        min=0.0,
        max=1000.0,
        options={"SKIP_SAVE"},
    )
    space: sampling.Path.__annotations__["space"]
    name: StringProperty(
        name="Name", description="The head's name; empty: from its seed", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        if session.running() is not None:
            cls.poll_message_set("Another job is still running")
            return False
        return True

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says."""
        chosen = sampling.settings(context)
        sampling.fill(self, context, ("seed", *sampling.NAMES, "faces", "texture_size"))
        if chosen.mix:
            sampling.fill(self, context, ("mix_seed", "mix_from", "mix_to"))
        if not self.heads:
            chosen.seed = self.seed
        return super().invoke(context, event)

    def setup(self, context):
        text = self.heads.strip() or str(self.seed)
        self.take_heads(context, text, self.space)
        name = self.name
        if not name and len(self.labels) == 1:
            name = self.labels[0]
        elif not name:
            name = f"{self.whole_name()}, {self.at:.2f}"
        self.title = f"Making {name}"
        self._parameters = self.latent() | {
            "heads": self.heads_text,
            "at": self.at,
            "space": self.space,
            "mix_seed": self.mix_seed,
            "mix_from": self.mix_from,
            "mix_to": self.mix_to,
            "faces": self.faces,
            "texture_size": self.texture_size,
            "name": name,
        }
        if self.model_used:
            self._parameters["model"] = self.model_used
        return self._parameters

    def kept(self):
        return {name: self._parameters[name] for name in ("faces", "texture_size")}
