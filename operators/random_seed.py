"""Roll the dice."""

import random

import bpy

from . import sampling

LARGEST = 999_999  # short enough to be told to somebody


class TRIPLANE_OT_random_seed(bpy.types.Operator):
    """Choose a seed at random"""

    bl_idname = "triplane.random_seed"
    bl_label = "Random Seed"

    def execute(self, context):
        sampling.settings(context).seed = random.SystemRandom().randint(0, LARGEST)
        return {"FINISHED"}
