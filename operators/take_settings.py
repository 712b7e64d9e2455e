"""A head's own settings, to the panel: the way to its brothers and sisters."""

import bpy

from . import sampling, session
from .build import head


class TRIPLANE_OT_take_settings(bpy.types.Operator):
    """Put the settings that the active head was made with into the panel for new heads"""

    bl_idname = "triplane.take_settings"
    bl_label = "Take Over Settings"

    @classmethod
    def poll(cls, context):
        made = head.active(context)
        if made is None or not head.recipe(made):
            cls.poll_message_set("Select a head that was made from a seed")
            return False
        return True

    def execute(self, context):
        recipe, chosen = head.recipe(head.active(context)), sampling.settings(context)
        seeds = [h for h in recipe["heads"] if isinstance(h, int) and h <= sampling.LAST_SEED]
        if seeds:
            chosen.seed = seeds[0]
        if len(recipe["heads"]) > 1:
            chosen.heads = ", ".join(map(str, seeds))
            chosen.space = recipe["space"]
        for name in ("model", "psi", "cutoff", "yaw", "pitch", "mix_from", "mix_to"):
            setattr(chosen, name, recipe[name])
        chosen.mix = recipe["mix_seed"] >= 0
        chosen.mix_seed = min(max(recipe["mix_seed"], 0), sampling.LAST_SEED)
        session.forget_failure()
        session.redraw()
        return {"FINISHED"}
