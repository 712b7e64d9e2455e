"""A seed becomes a head."""

import bpy
from bpy.props import FloatProperty, StringProperty

from . import parameters, sampling
from .headlist import HeadList
from .job import JobOperator
from .newhead import NewHead


class TRIPLANE_OT_sample_head(
    NewHead,
    HeadList,
    sampling.Latent,
    sampling.Mixing,
    sampling.Mesh,
    parameters.Quads,
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
    edits: StringProperty(
        name="Changes",
        description="Of a head of the built-in model, such as age=1, smile=0.5, beard=-1",
        options={"SKIP_SAVE"},
    )
    name: StringProperty(
        name="Name", description="The head's name; empty: from its seed", options={"SKIP_SAVE"}
    )

    def invoke(self, context, event):
        """From a button: what the call leaves open is as the sidebar says."""
        chosen = sampling.settings(context)
        sizes = ("faces", "texture_size", *parameters.QUADS)
        sampling.fill(self, context, ("seed", *sampling.NAMES, *sizes))
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
        return self.head_parameters() | self.kept() | {
            "at": self.at,
            "mix_seed": self.mix_seed,
            "mix_from": self.mix_from,
            "mix_to": self.mix_to,
            "edits": self.edits,
            "name": name,
        }  # fmt: skip

    def kept(self):
        return self.mesh_parameters() | self.quad_parameters()
